//! Leaders that walk x and `down` alone before their tile (`alone` of a launch of `linear`), in the simulator with all of
//! its checks on. Plans for so few tiles have none of them: here the text is told otherwise, for so many rows of tiles.

use core::mem::offset_of;

use fused_lora::reference::Sums;
use fused_lora::{DType, Operation, Plan, Problem};
use ptx_sim::{Chip, Options};
use test_support::sim::walk::{COPIES, SCHEDULES, texts};
use test_support::sim::{Gpu, gpu};
use test_support::{Buffers, Case, Fill, assert_exact, results};

use super::waves::abi;

/// Plans that have such leaders, and ranks of theirs.
const CHOICES: [(&str, usize); 5] = [
    ("leader/large", 5),
    ("leader/large", 9),
    ("leader/large", 32),
    ("leader/large", 50),
    ("leader/medium", 16),
];

/// Three rows of tiles, ragged against them.
const SIZES: [usize; 3] = [290, 200, 344];

fn layer(operation: Operation, rank: usize) -> Problem {
    let [tokens, deep, wide] = SIZES;
    let (k, n) = if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
    Problem::new(operation, tokens, k, n, rank).with_dtype(DType::Bf16).with_scale(0.5)
}

/// The text for launches whose first `rows` rows of tiles have such leaders, whatever they say.
fn forced(text: &str, rows: u32) -> String {
    let asks = format!("ld.param.u32 u0,[params+{}];", offset_of!(abi::Linear, alone));
    if text.contains(".entry linear(") {
        assert_eq!(text.matches(&asks).count(), 2, "at each step, and behind a walk");
    }
    text.replace(&asks, &format!("mov.u32 u0,{rows};"))
}

fn run(
    plan: &Plan,
    before: &Buffers,
    options: &Options,
    edit: impl Fn(&str) -> String + 'static,
) -> Result<(Buffers, u64), String> {
    let mut after = before.clone();
    let mut gpu = Gpu::new(plan.workspace_len());
    gpu.edit(edit);
    let counters = gpu.run(plan, &mut after, options)?;
    after.assert_guards(before);
    Ok((after, counters.iter().map(|of| of.bytes_first_touched()).sum()))
}

/// Every text that has it, on machines of any size: exact, and the bits of the launch without.
#[test]
fn walks_leave_the_same_bits() {
    let mut at = 0usize;
    let mut names = std::collections::BTreeSet::new();
    for (choice, rank) in CHOICES {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            for adapter in [DType::Bf16, DType::F32] {
                // Of a pair on medium tiles there is none; a low part of shrunk with some of the others.
                if adapter == DType::F32
                    && (choice == "leader/medium" || (choice, rank) == ("leader/large", 50))
                {
                    continue;
                }
                let problem = layer(operation, rank)
                    .with_adapter(adapter)
                    .with_precise(adapter == DType::F32 && rank < 32)
                    .with_keep_shrunk(at.is_multiple_of(2));
                at += 1;
                let rows = [1, 2, u32::MAX][at % 3];
                let sms = [1, 2, 3, 7, 108, 132][at % 6];
                let plan = Plan::choose(&problem, &gpu(sms), &choice.parse().unwrap()).unwrap();
                let case = Case::new(problem, Fill::Integers, at as u64);
                let before = case.aligned_buffers();
                let chip = if sms > 108 { Chip::SM_90 } else { Chip::SM_80 };
                let options = Options {
                    chip,
                    sms,
                    blocks_per_sm: 1 + at as u32 % 3,
                    schedule: SCHEDULES[at % 4],
                    copies: COPIES[at / 2 % 3],
                    seed: at as u64,
                    ..Options::default()
                };
                let (after, touched) =
                    run(&plan, &before, &options, move |text| forced(text, rows)).unwrap();
                assert_exact(&plan, &after, &results(&problem, Sums::TensorCore, &before), &case);
                // Of small integers any order of sums gives the same.
                let before = Case::new(problem, Fill::Uniform, at as u64).aligned_buffers();
                let (after, _) =
                    run(&plan, &before, &options, move |text| forced(text, rows)).unwrap();
                let (without, once) =
                    run(&plan, &before, &options, |text| forced(text, 0)).unwrap();
                after.assert_same_bits(&without, choice);
                // What is read twice comes from L2, and is no byte more.
                assert_eq!(touched, once, "{choice} {operation} r{rank}");
                names.extend(texts(&plan).filter(|name| name.starts_with("leader")));
            }
        }
    }
    println!("{names:?}");
    // Seven in two majors.
    assert_eq!(names.len(), 2 * 7, "{names:?}");
}

/// So many rows of tiles as are said, and what of x they copy once more: nothing else is copied or multiplied twice.
#[test]
fn walks_copy_x_once_more() {
    for (choice, rank, tile) in [("leader/large", 32, 128), ("leader/medium", 16, 128)] {
        let problem = Problem::forward(512, 320, 512, rank).with_dtype(DType::Bf16);
        let plan = Plan::choose(&problem, &gpu(1), &choice.parse().unwrap()).unwrap();
        let counts = |rows: u32| {
            let mut gpu = Gpu::new(plan.workspace_len());
            gpu.edit(move |text| forced(text, rows));
            let mut buffers = Case::new(problem, Fill::Uniform, 5).aligned_buffers();
            let options = Options { sms: 1, blocks_per_sm: 1, ..Options::default() };
            let counters = gpu.run(&plan, &mut buffers, &options).unwrap();
            let text = plan.launches()[0].source.as_ref().unwrap().text.clone();
            let lines: Vec<&str> = text.lines().collect();
            let copies = counters[0]
                .lines()
                .into_iter()
                .filter(|of| lines[of.line as usize - 1].contains("cp.async.cg."));
            (copies.map(|of| of.warps).sum::<u64>(), counters[0].total().macs)
        };
        let (copies, multiplied) = counts(0);
        for rows in [1, 3, 512 / tile] {
            // Of 16 bytes a thread.
            let x = u64::from(rows * tile) * 320 * 2 / 16 / 32;
            // And what of shrunk it reads back, as followers do.
            let shrunk =
                u64::from(rows * tile) * u64::from(rank as u32).div_ceil(32) * 64 / 16 / 32;
            assert_eq!(counts(rows), (copies + x + shrunk, multiplied), "{choice}, {rows} rows");
        }
    }
}

/// What begins the tile behind a walk is needed, and so is the order in which shrunk is stored and published.
#[test]
fn spoilt_walks_are_noticed() {
    let problem = layer(Operation::Forward, 20);
    let plan = Plan::choose(&problem, &gpu(2), &"leader/large".parse().unwrap()).unwrap();
    let before = Case::new(problem, Fill::Uniform, 3).aligned_buffers();
    let machines = || {
        SCHEDULES.into_iter().enumerate().map(|(at, schedule)| Options {
            sms: 2,
            schedule,
            copies: COPIES[at % 3],
            budget: 1 << 24,
            ..Options::default()
        })
    };
    let right: Vec<_> = machines()
        .map(|machine| run(&plan, &before, &machine, |text| forced(text, 1)).unwrap().0)
        .collect();
    let restart = "mov.pred owner,0;\nmov.pred has_x,1;\nmov.u32 segment,0xffffffff;\nmov.u32 left,0;\nmov.u32 step,-3;\nmov.u32 slot,0;\nbra.uni NEXT;\n";
    let stores = "@p2 st.global.v4.b32 [v1],{h0,h1,h2,h3};\n";
    let barrier = "STORED:\nbar.sync 0;\n";
    let mut spoilt: Vec<(String, String)> = restart
        .lines()
        // All copies of the border have been issued by then, so that nothing is `left` of it anyhow; and the turn to
        // segment 0 says that x is copied.
        .filter(|line| !["slot", "left", "has_x", "bra"].iter().any(|of| line.contains(of)))
        .map(|line| (format!("{line}\n"), String::new()))
        .map(|(line, none)| (restart.to_owned(), restart.replace(&line, &none)))
        .collect();
    // Published before it is stored by all; not stored; fragments of columns that were not copied; no ranks.
    spoilt.push((barrier.to_owned(), "STORED:\n".to_owned()));
    spoilt.push((stores.to_owned(), String::new()));
    spoilt.push(("@alone bra.uni READ;\n".to_owned(), String::new()));
    spoilt.push(("@p0 bra.uni RANKS;\n".to_owned(), "@p0 bra.uni NEXT;\n".to_owned()));
    for (from, to) in spoilt {
        let edit = move |from: String, to: String| {
            move |text: &str| {
                let text = forced(text, 1);
                if text.contains(".entry linear(") {
                    assert!(text.contains(&from), "{from} is not there");
                }
                text.replace(&from, &to)
            }
        };
        let noticed = machines().zip(&right).any(|(machine, right)| {
            let bits = |of: &Buffers| -> Vec<Vec<u8>> {
                of.stored.iter().map(|of| of.data.bytes().to_vec()).collect()
            };
            run(&plan, &before, &machine, edit(from.clone(), to.clone()))
                .map_or(true, |(after, _)| bits(&after) != bits(right))
        });
        assert!(noticed, "{from} becomes {to}");
    }
}
