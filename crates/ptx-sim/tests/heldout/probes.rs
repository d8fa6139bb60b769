//! Runs the single forms of `forms`: one warp, a word of each of three inputs a lane, a result of 64 bits a lane.

use ptx_sim::{Chip, Launch, Memory, Module, Options, run_launch};

use super::case::{put_u32, u32s};
use super::forms::{At, Probe, probes};
use super::refused::REFUSED;

fn words(seed: u32) -> [u32; 32] {
    const ODD: [u32; 12] = [
        0,
        1,
        0xFFFF_FFFF,
        0x8000_0000,
        0x7FFF_FFFF,
        0x3F80_0000,
        0xBF99_999A,
        0x7F80_0000,
        0x7FC0_0000,
        0x0000_1234,
        0x4368_0000,
        0x8070_0000,
    ];
    std::array::from_fn(|i| match (i + seed as usize * 5) % 2 {
        0 => ODD[(i / 2 + seed as usize * 7) % ODD.len()],
        _ => super::case::noise(i, 100 + seed),
    })
}

fn head(target: &str) -> String {
    format!(".version 8.7\n.target {target}\n.address_size 64\n")
}

fn entry(probe: &Probe, n: usize) -> String {
    let wide = probe.body.contains("%w");
    let tail = if wide { "" } else { "cvt.u64.u32 %w, %o;" };
    let body = probe.body.replace("END: ret_not_here:", "END:");
    format!(
        "{}.visible .entry probe{n}(.param .u64 in, .param .u64 out)\n.reqntid 32\n{{\n\
         .reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %d<8>; .reg .f32 %f<8>; .reg .f64 %g<4>; .reg .pred %p<8>;\n\
         .reg .b32 %x, %y, %z, %o, %lane; .reg .b64 %w, %in, %out, %at;\n\
         .shared .align 1024 .b8 tile[1024]; .local .align 8 .b8 mine[64];\n\
         mov.u32 %lane, %laneid; ld.param.u64 %in, [in]; ld.param.u64 %out, [out];\n\
         mad.wide.u32 %at, %lane, 4, %in; ld.global.u32 %x, [%at]; ld.global.u32 %y, [%at+128]; ld.global.u32 %z, [%at+256];\n\
         mov.b64 %d0, {{%x, %y}}; mov.b64 %d1, {{%y, %z}}; mov.b32 %f0, %x; mov.b32 %f1, %y;\n\
         mov.b64 %g0, 0d3FB999999999999A; mov.b16 %h0, 0x81; mov.b16 %h1, 0x82; mov.b16 %h2, 0x83; mov.b16 %h3, 0x84;\n\
         {body}\n{tail}\n\
         mad.wide.u32 %at, %lane, 8, %out; st.global.b64 [%at], %w;\nret;\n}}\n",
        probe.before
    )
}

/// One text for each target, an entry for each probe.
pub(crate) fn texts() -> Vec<(String, String)> {
    ["sm_80", "sm_90a"]
        .map(|target| {
            let mut text = head(target);
            for (n, probe) in probes().iter().enumerate().filter(|(_, p)| p.target == target) {
                text.push_str(&entry(probe, n));
            }
            (format!("probes-{target}"), text)
        })
        .into()
}

/// The probes that go wrong, and how.
pub(crate) fn wrong() -> Vec<String> {
    let [xs, ys, zs] = [words(1), words(2), words(3)];
    let input: Vec<u32> = [xs, ys, zs].concat();
    let mut out = Vec::new();
    for (n, probe) in probes().iter().enumerate() {
        let body = probe.body;
        let text = format!("{}{}", head(probe.target), entry(probe, n));
        let module = match Module::parse("probe", &text) {
            Ok(module) => module,
            Err(e) => {
                out.push(format!("{body}: {e}"));
                continue;
            }
        };
        let chip = if probe.target == "sm_80" { Chip::SM_80 } else { Chip::SM_90 };
        let mut memory = Memory::new();
        let from = put_u32(&mut memory, &input);
        let to = put_u32(&mut memory, &[0xCCCC_CCCC; 80]);
        let launch = Launch::new(&format!("probe{n}"), [1, 1, 1], [32, 1, 1]).ptr(from).ptr(to);
        let options = Options { chip, budget: 1 << 21, ..Options::default() };
        if let Err(e) = run_launch(&module, &mut memory, &launch, &options) {
            out.push(format!("{body}: {e}"));
            continue;
        }
        let got = u32s(&mut memory, to, 64);
        for l in 0..32 {
            let got = u64::from(got[2 * l + 1]) << 32 | u64::from(got[2 * l]);
            let want = (probe.want)(&At { l, xs: &xs, ys: &ys, zs: &zs });
            if got != want {
                out.push(format!("{body}: lane {l} has {got:#x}, not {want:#x}"));
                break;
            }
        }
    }
    out
}

pub(crate) fn not_refused() -> Vec<String> {
    let wrong = |&(target, body, name): &(&str, &str, &str)| {
        let text = format!(
            "{}.visible .entry k() {{\n.reg .b16 %h<4>; .reg .b32 %r<8>; .reg .b64 %d<4>; .reg .f32 %f<4>; .reg .f64 %g<4>;\n{body}\nret;\n}}\n",
            head(target)
        );
        match Module::parse("k", &text) {
            Ok(_) => Some(format!("{body}: accepted")),
            Err(e) if e.line == 6 && e.message.contains(name) => None,
            Err(e) => Some(format!("{body}: {e}")),
        }
    };
    REFUSED.iter().filter_map(wrong).collect()
}
