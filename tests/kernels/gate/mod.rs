//! The gate around NVIDIA's assembler: every text that `build.rs` renders is assembled for every target that it is
//! meant for, without a GPU, and refused for spills, local memory, warnings that ptxas only prints, for an
//! interior loop in disorder, and for more registers or shared memory than `snapshot.txt` says. Renew that with
//! `FUSED_LORA_GATE_BLESS=1 cargo test --test kernels gate::`; see the numbers with `-- --nocapture`.
//! The snapshot names each text by its hash: with `FUSED_LORA_GATE_ONE_IN=8`, one in eight of the runs over
//! texts that have passed as they are is made again, and every run over any other text.
//!
//! ```text
//! texts     what is assembled
//! tools     where ptxas and nvdisasm are found
//! assemble  one text, one target, one ptxas: resources, or why not
//! sass      what the main loop is made of, from nvdisasm
//! issue     whether issue or the tensor cores bound a step of it
//! occupancy how many CTAs a multiprocessor holds, and the plan counts on
//! snapshot  the committed numbers
//! marks     the check that the build itself can run
//! check     all texts × all targets, in parallel, into one report
//! ```

mod assemble;
mod check;
mod issue;
mod marks;
mod occupancy;
mod sass;
mod snapshot;
pub(crate) mod texts;
mod tools;

use check::Report;
use snapshot::Snapshot;
use texts::{Kernel, kernels, rendered};
use tools::Tools;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/gate/snapshot.txt");

/// Of the runs over texts that the snapshot names by their hash, one in so many is made again.
fn one_in() -> usize {
    let variable = std::env::var("FUSED_LORA_GATE_ONE_IN").ok();
    let one_in = variable.map_or(1, |n| n.parse().expect("FUSED_LORA_GATE_ONE_IN: a number"));
    assert!(one_in > 0, "FUSED_LORA_GATE_ONE_IN: a number above 0");
    one_in
}

#[test]
fn every_kernel_on_every_target() {
    let Some(tools) = Tools::find() else { return };
    let kernels = kernels();
    let snapshot: Snapshot = std::fs::read_to_string(SNAPSHOT).unwrap().parse().unwrap();
    if std::env::var_os("FUSED_LORA_GATE_BLESS").is_some() {
        assert_eq!(tools.newest.release, tools::PINNED, "the snapshot is of the pinned ptxas");
        // Texts that passed as they are keep their lines.
        let passed = check::Passed { snapshot: &snapshot, one_in: usize::MAX };
        let report = check::run(&tools, &kernels, Some(passed));
        println!("{report}");
        report.refuse().unwrap_or_else(|refused| panic!("{refused}"));
        let mut renewed = Snapshot::of(&report, &kernels);
        renewed.keep(snapshot, &kernels);
        std::fs::write(SNAPSHOT, renewed.to_string()).unwrap();
        return;
    }
    let pinned = tools.newest.release == tools::PINNED;
    // What another ptxas says of a text is not in the snapshot.
    let passed = pinned.then(|| check::Passed { snapshot: &snapshot, one_in: one_in() });
    let report = check::run(&tools, &kernels, passed);
    println!("{report}");
    let mut refused = report.refused.clone();
    if pinned {
        refused.extend(snapshot.compare(&report));
    } else {
        let release = &tools.newest.release;
        tools::say(&format!(
            "numbers NOT compared: ptxas {release}, the snapshot is of {}",
            tools::PINNED
        ));
    }
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

/// The order of every interior loop, of all tiles and kinds, without an assembler.
#[test]
fn interiors_of_the_snapshot_are_in_order() {
    let snapshot: Snapshot = std::fs::read_to_string(SNAPSHOT).unwrap().parse().unwrap();
    let refused = snapshot.refused();
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

/// Fails unless every assembler takes these texts, for their own target: a card's driver has one of them.
pub(crate) fn assembles<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let Some(tools) = Tools::find() else { return };
    for (name, text) in texts {
        let kernel = Kernel { name: name.into(), text: text.into(), listed: None };
        let refused = check::own_target(&tools, &kernel);
        assert!(refused.is_empty(), "{}\n{text}", refused.join("\n"));
    }
}

/// What the gate says of one text, held against `snapshot`.
fn refusals(tools: &Tools, text: &str, snapshot: &str) -> String {
    let kernel = Kernel { name: "k".into(), text: text.into(), listed: None };
    let report: Report = check::run(tools, &[kernel], None);
    let snapshot: Snapshot = snapshot.parse().unwrap();
    let mut all = report.refused.clone();
    all.extend(snapshot.compare(&report));
    all.join("\n")
}

/// An entry that reads `n` values, sums them all two ways and stores: `n` registers live at once.
fn hungry(n: usize, directive: &str) -> String {
    let body = |f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<String>();
    let loads = body(&|i| format!("ld.volatile.global.f32 %f{i}, [%p+{}];\n", 4 * i));
    let up = body(&|i| format!("fma.rn.f32 %s, %s, %f{i}, %f{i};\n"));
    let down = body(&|i| format!("fma.rn.f32 %s, %s, %f{}, %f{};\n", n - 1 - i, n - 1 - i));
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x) {directive} {{
         .reg .b64 %p; .reg .f32 %f<{n}>, %s;\nld.param.u64 %p, [x]; mov.f32 %s, 0f3F800000;\n
         {loads}{up}{down}st.global.f32 [%p], %s; ret; }}"
    )
}

const EMPTY: &str = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k() { ret; }";

/// A snapshot that fits anything.
const ANY: &str = "k loop=0 mma=0 sm_80=255/99999 sm_86=255/99999 sm_87=255/99999 sm_89=255/99999 \
    sm_90=255/99999 sm_90a=255/99999 sm_100=255/99999 sm_103=255/99999 sm_110=255/99999 sm_120=255/99999 \
    sm_121=255/99999";

#[test]
fn what_is_clean_passes() {
    let Some(tools) = Tools::find() else { return };
    assert_eq!(refusals(&tools, EMPTY, ANY), "");
    assert_eq!(refusals(&tools, &hungry(100, ""), ANY), "");
}

#[test]
fn a_spill_is_refused() {
    let Some(tools) = Tools::find() else { return };
    let said = refusals(&tools, &hungry(100, ".maxntid 128 .maxnreg 32"), ANY);
    assert!(said.contains("k for sm_80") && said.contains("registers spill"), "{said}");
    assert!(said.contains("sm_120") && said.contains("ptxas 12.0"), "{said}");
}

/// What ptxas says of a kernel of this crate that is given too few registers.
#[test]
fn a_rendered_kernel_that_spills_is_refused() {
    let Some(tools) = Tools::find() else { return };
    let all = rendered();
    let kernel = all.iter().find(|k| k.name == "leader_small_r16_bf16").unwrap();
    let few = kernel.text.replacen(".minnctapersm 2", ".maxnreg 32", 1);
    assert!(few != kernel.text, "the text bounds its registers in another way");
    let said = refusals(&tools, &few, ANY);
    let spills = said.lines().filter(|line| line.contains("registers spill")).count();
    // Ten targets of the newest ptxas, three of the middle one, five of the oldest.
    assert_eq!(spills, 18, "{said}");
    for ptxas in [&tools.newest, &tools.middle, &tools.oldest] {
        let release = &ptxas.release;
        assert!(said.contains(&format!("k for sm_80, ptxas {release}: registers spill")), "{said}");
    }
}

/// The simulator's decoder refuses what ptxas refuses, and more; none of ours may be among that.
#[test]
fn the_simulator_reads_every_rendered_kernel() {
    let refused: Vec<String> = rendered()
        .iter()
        .filter_map(|k| ptx_sim::Module::parse(&k.name, &k.text).err())
        .map(|error| error.to_string())
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn local_memory_is_refused() {
    let Some(tools) = Tools::find() else { return };
    // The loop's end comes from memory, or ptxas would keep the array in registers.
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x) {
        .local .align 4 .b8 a[256]; .reg .b64 %p, %l; .reg .b32 %i, %n, %v; .reg .pred %q;
        ld.param.u64 %p, [x]; ld.global.u32 %n, [%p+4]; mov.u64 %l, a; mov.u32 %i, 0;
        L: st.local.u32 [%l], %i; add.u64 %l, %l, 4; add.u32 %i, %i, 1;
        setp.lt.u32 %q, %i, %n; @%q bra L;
        ld.global.u32 %i, [%p]; mov.u64 %l, a; mad.wide.u32 %l, %i, 4, %l;
        ld.local.u32 %v, [%l]; st.global.u32 [%p], %v; ret; }";
    let said = refusals(&tools, text, ANY);
    assert!(said.contains("k for sm_80") && said.contains("256 bytes of local memory"), "{said}");
}

#[test]
fn a_syntax_error_is_refused_with_its_line() {
    let Some(tools) = Tools::find() else { return };
    let said = refusals(&tools, &EMPTY.replace("{ ret;", "{\n bogus.u32; ret;"), ANY);
    assert!(said.contains("k for sm_80") && said.contains("line 5"), "{said}");
    let said = refusals(&tools, &EMPTY.replace("sm_80", "sm_62"), ANY);
    assert!(said.contains("target sm_62 is none that the gate knows"), "{said}");
    let said = refusals(&tools, &EMPTY.replace("7.0", "8.7"), ANY);
    assert!(said.contains("ptxas 12.0") && said.contains("8.7"), "{said}");
}

#[test]
fn a_message_that_costs_speed_is_refused_though_ptxas_exits_with_0() {
    let Some(tools) = Tools::find() else { return };
    // setmaxnreg without a bound on the registers of the launch: ptxas drops it and says so.
    let text = ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x) .maxntid 256 {
        .reg .b64 %p; .reg .b32 %v; .reg .pred %q; mov.u32 %v, %tid.x; setp.lt.u32 %q, %v, 128;
        @%q bra L; setmaxnreg.inc.sync.aligned.u32 232; bra M; L: setmaxnreg.dec.sync.aligned.u32 40; M:
        ld.param.u64 %p, [x]; st.global.u32 [%p], %v; ret; }";
    let said = refusals(&tools, text, ANY);
    assert!(said.contains("k for sm_90a") && said.contains("(C75"), "{said}");
    assert!(!said.contains("sm_80"), "sm_90a text is for sm_90a alone: {said}");
}

#[test]
fn more_than_the_snapshot_is_refused() {
    let Some(tools) = Tools::find() else { return };
    let text = hungry(100, "");
    let said = refusals(&tools, &text, &ANY.replace("sm_80=255", "sm_80=64"));
    assert!(
        said.contains("k for sm_80") && said.contains("registers, the snapshot has 64"),
        "{said}"
    );
    let shared = EMPTY.replace(
        "{ ret;",
        "{ .shared .b32 s[64]; .reg .b32 %r; mov.u32 %r, s; st.shared.u32 [%r+4], %r; ret;",
    );
    let said = refusals(&tools, &shared, &ANY.replace("sm_89=255/99999", "sm_89=255/255"));
    assert!(said.contains("k for sm_89") && said.contains("256 bytes of shared memory"), "{said}");
    assert!(refusals(&tools, &text, "").contains("k is not in the snapshot"));
    assert!(refusals(&tools, &text, &ANY.replace("sm_86=255/99999", "")).contains("sm_86"));
    let gone = format!("{ANY}\n{}", ANY.replacen('k', "gone", 1));
    assert!(refusals(&tools, &text, &gone).contains("gone stands in the snapshot"));
}

#[test]
fn the_main_loop_is_held_to_the_snapshot() {
    let Some(tools) = Tools::find() else { return };
    let all = kernels();
    let gemm = all.iter().find(|k| k.name == "fixture/gemm_bf16").unwrap();
    let row = ANY.replace("loop=0 mma=0", "loop=100 mma=90");
    let said = refusals(&tools, &gemm.text, &row);
    assert!(said.contains("of its main loop are mma, the snapshot has 90 of 100"), "{said}");
    // With the mma outside of any loop: the text has one, the loops have none.
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x) {
        .reg .b64 %p; .reg .f32 %f<4>; .reg .b32 %r<4>, %b<2>;
        ld.param.u64 %p, [x]; ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%p]; ld.global.v2.u32 {%b0, %b1}, [%p+16];
        ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%p+32];
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%b0, %b1},
          {%f0, %f1, %f2, %f3};
        st.global.v4.f32 [%p], {%f0, %f1, %f2, %f3}; ret; }";
    let said = refusals(&tools, text, ANY);
    assert!(said.contains("no loop of its code has one"), "{said}");
}

/// A text that passed is sampled; one that differs from it by a byte is assembled in whole.
#[test]
fn a_changed_text_is_assembled_whole() {
    let Some(tools) = Tools::find() else { return };
    let of = |text: &str| Kernel { name: "k".into(), text: text.into(), listed: None };
    let known = of(EMPTY);
    let whole = check::run(&tools, std::slice::from_ref(&known), None);
    let snapshot = Snapshot::of(&whole, std::slice::from_ref(&known)).to_string();
    let snapshot: Snapshot = snapshot.parse().unwrap();
    let runs = |kernel: Kernel| {
        let passed = check::Passed { snapshot: &snapshot, one_in: 8 };
        check::run(&tools, &[kernel], Some(passed)).to_string()
    };
    let said = |n: usize, out: usize| (format!("{n} runs of ptxas"), format!("{out} left out"));
    for (kernel, (runs_said, out_said)) in [
        (known, said(2, 16)),
        (of(&format!("{EMPTY} ")), said(18, 0)),
        (of(&EMPTY.replace("{ ret;", "{ bogus; ret;")), said(18, 0)),
    ] {
        let text = runs(kernel);
        assert!(text.starts_with(&runs_said) || text.contains(&format!("\n{runs_said}")), "{text}");
        assert!(text.contains(&out_said), "{text}");
    }
}
