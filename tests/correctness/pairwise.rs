//! Problems by system instead of by chance, a covering array: every two options of a problem meet
//! in one of few rows (`test_support::pairwise`), each in three sizes, through every candidate of its
//! plan, within the tolerance, and on small integers bit for bit. Rows share kernels, so that
//! executors that compile slowly take all of it.

use std::collections::BTreeSet;

use fused_lora::{Choice, DType, Operation, Problem};
use test_support::pairwise::{KINDS, Kind, Row, SIZES, check};
use test_support::{
    Case, Fill, Harness, Reference, Usage, assert_exact, feasible, launch, shrunk_is_exact,
    wants_matrices,
};

/// Runs the rows of all kinds of `operations`.
fn run(test: &'static str, operations: &[Operation]) {
    let mut harness = Harness::paired(test);
    let mut usage = Usage::default();
    let kinds = KINDS.into_iter().filter(|kind| operations.contains(&kind.operation));
    for (at, row) in kinds.flat_map(Kind::rows).enumerate() {
        harness.row(format!("{row:?}"));
        for size in 0..SIZES {
            within_the_tolerance(&mut harness, &mut usage, &row, (3 * at + size) as u64, size);
            exactly(&mut harness, &row, (3 * at + size) as u64, size);
        }
    }
    // What is forced may serve other operations alone.
    if harness.is_free() {
        harness.finish();
    } else {
        harness.list();
    }
    usage.report(None);
    if harness.is_free() {
        let missing = missing(&harness, operations);
        assert_eq!(missing, BTreeSet::new(), "candidates that no row ran");
    }
}

/// Cooperative matrices take factors of f16 alone: in a run about them every row has these.
fn served(problem: Problem) -> Problem {
    match wants_matrices() {
        true => problem.with_activation(DType::F16).with_adapter(DType::F16).with_precise(false),
        false => problem,
    }
}

fn within_the_tolerance(
    harness: &mut Harness,
    usage: &mut Usage,
    row: &Row,
    seed: u64,
    size: usize,
) {
    let problem = served(row.problem(size)).with_scale([1.5, -0.3, 1.0][size]);
    let fill = [Fill::Uniform, Fill::Outliers, Fill::Uniform][size];
    let case = Case::new(problem, fill, seed);
    let before = case.promised_buffers();
    let mut reference = Reference::new(&problem, &before);
    harness.each(&problem, Some(row.capabilities()), |executor, plan| {
        let after = launch(executor, plan, &before, &case);
        usage.check(plan, &after, reference.of(executor.sums(&problem)), &case);
    });
}

fn exactly(harness: &mut Harness, row: &Row, seed: u64, size: usize) {
    let problem = served(row.problem(size)).with_scale([0.5, 1.0, -0.25][size]);
    let case = Case::new(problem, Fill::Integers, seed);
    let before = case.promised_buffers();
    let mut reference = Reference::new(&problem, &before);
    harness.each(&problem, Some(row.capabilities()), |executor, plan| {
        let expected = reference.of(executor.sums(&problem));
        assert!(shrunk_is_exact(&problem, expected), "seed {seed} draws no exact case");
        let after = launch(executor, plan, &before, &case);
        assert_exact(plan, &after, expected, &case);
    });
}

/// Strategies and presets that serve one of `operations`, and did not run: with every activation
/// type, or, without an adapter, with any. A sample has all of them, too.
fn missing(harness: &Harness, operations: &[Operation]) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    for executor in test_support::executors() {
        // On CUDA a kernel serves some layouts alone, and no row need have its: `drawn` and
        // `ptx_decode` ask for those.
        if executor.name() == "cuda" {
            continue;
        }
        for capabilities in executor.capabilities() {
            for operation in operations {
                for (tokens, rank) in [(1, 0), (1, 8), (64, 0), (64, 8)] {
                    for &dtype in DType::ALL {
                        let problem = Problem::new(*operation, tokens, 64, 64, rank);
                        let problem = problem.with_dtype(dtype);
                        let choices = feasible(&problem, &capabilities, &Choice::default());
                        // Of a merge of rank 0 there is nothing to run.
                        let choices = choices.into_iter().filter(|of| !is_nothing(of));
                        let typed = if rank > 0 { dtype.to_string() } else { String::new() };
                        let name = |of: Choice| format!("{} {of} {typed}", executor.name());
                        missing.extend(choices.map(name));
                    }
                }
            }
        }
    }
    missing.retain(|name| !harness.ran().keys().any(|ran| ran.starts_with(name)));
    missing
}

fn is_nothing(choice: &Choice) -> bool {
    choice.preset.as_deref() == Some("nothing")
}

#[test]
fn forward() {
    run("pairwise, forward", &[Operation::Forward]);
}

#[test]
fn backward_input() {
    run("pairwise, backward_input", &[Operation::BackwardInput]);
}

#[test]
fn backward_shrink_and_adapter() {
    let operations = [Operation::BackwardShrink, Operation::BackwardAdapter];
    run("pairwise, backward_shrink and backward_adapter", &operations);
}

#[test]
fn merge_and_unmerge() {
    run("pairwise, merge and unmerge", &[Operation::Merge, Operation::Unmerge]);
}

#[test]
fn every_two_options_meet() {
    for kind in KINDS {
        println!("  {:<16} {:>3} rows", kind.operation.to_string(), check(kind));
    }
}

/// The rows reach every file of `shaders/parts`, and few enough texts for a driver that takes a
/// second for each.
#[cfg(feature = "wgpu")]
#[test]
fn rows_reach_every_part_of_the_shaders() {
    use fused_lora::{
        AdapterKind, Capabilities, Convolution, Kronecker, Method, Plan, WgpuCapabilities,
    };

    // As the executor under test lists them: with all features and without, and the habits of hosts.
    let devices =
        [(true, false, false), (false, false, false), (true, true, false), (false, true, true)];
    let devices = devices.map(|(features, shared_buffers, storage_params)| {
        let mut device = WgpuCapabilities::default();
        device.adapter = AdapterKind::Software;
        (device.f16, device.subgroup) = (features, if features { 4 } else { 0 });
        device.shared_buffers = shared_buffers;
        device.storage_params = storage_params;
        Capabilities::Wgpu(device)
    });
    let mut texts = BTreeSet::new();
    for row in KINDS.into_iter().flat_map(Kind::rows) {
        let device = devices[row.capabilities() as usize];
        for size in 0..SIZES {
            let problem = row.problem(size);
            for choice in feasible(&problem, &device, &Choice::default()) {
                let plan = Plan::choose(&problem, &device, &choice).unwrap();
                let sources = plan.launches().iter().map(|of| of.source.as_ref().unwrap());
                texts.extend(sources.map(|of| of.text.to_string()));
            }
        }
    }
    // A w with a summand, no binding of which holds all: `kronecker` draws the others.
    let of = Kronecker::new(5, 4).whole();
    let problem = Problem::forward(17, 64, 80, 0).with_method(Method::Lokr(of));
    let mut device = WgpuCapabilities::default();
    device.binding_bytes = 8 << 10;
    let plan = Plan::new(&problem, &Capabilities::Wgpu(device)).unwrap();
    let sources = plan.launches().iter().map(|of| of.source.as_ref().unwrap());
    texts.extend(sources.map(|of| of.text.to_string()));
    // Images, which `convolution` draws.
    let of = Convolution::new(2, [6, 7], [3, 3]).padding([1, 1]);
    for (operation, dtype) in [Operation::Forward, Operation::BackwardInput]
        .into_iter()
        .flat_map(|operation| [(operation, DType::F32), (operation, DType::Bf16)])
    {
        let problem = Problem::new(operation, of.tokens(), 8 * of.taps(), 5, 4);
        let problem = problem.with_dtype(dtype).with_convolution(of);
        for device in &devices {
            let plan = Plan::new(&problem, device).unwrap();
            let sources = plan.launches().iter().map(|of| of.source.as_ref().unwrap());
            texts.extend(sources.map(|of| of.text.to_string()));
        }
    }
    // And on them a whole w2, on the way back, and the gradient of a magnitude; w with what a LoKr or a LoRA adds to it.
    let lokr = Method::Lokr(Kronecker::new(5, 4).whole());
    let of_images =
        |operation| Problem::new(operation, of.tokens(), 8 * of.taps(), 5, 0).with_convolution(of);
    let taps = Kronecker::new(5, 4).taps_first(9).whole();
    let last = of.channels(fused_lora::Channels::Last);
    let of_merged: Choice = "merged/small".parse().unwrap();
    for (problem, choice) in [
        (of_images(Operation::BackwardInput).with_method(lokr), Choice::default()),
        (
            of_images(Operation::BackwardInput)
                .with_method(Method::Lokr(taps))
                .with_convolution(last),
            Choice::default(),
        ),
        (of_images(Operation::BackwardGain), Choice::default()),
        (Problem::forward(17, 64, 80, 0).with_method(lokr), of_merged.clone()),
        (Problem::forward(17, 64, 80, 4).with_keep_shrunk(false), of_merged),
    ] {
        for device in &devices {
            let plan = Plan::choose(&problem, device, &choice).unwrap();
            let sources = plan.launches().iter().map(|of| of.source.as_ref().unwrap());
            texts.extend(sources.map(|of| of.text.to_string()));
        }
    }
    // Cooperative matrices, which a host asks for.
    let mut device = WgpuCapabilities::default();
    let problem = Problem::forward(64, 64, 80, 8).with_dtype(DType::F16);
    let choice = "two_pass/cooperative".parse().unwrap();
    for side in [8, 16] {
        (device.f16, device.subgroup, device.cooperative) = (true, 8, side);
        let plan = Plan::choose(&problem, &Capabilities::Wgpu(device), &choice).unwrap();
        let sources = plan.launches().iter().map(|of| of.source.as_ref().unwrap());
        texts.extend(sources.map(|of| of.text.to_string()));
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/parts");
    let mut parts = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|of| of.unwrap().path()) {
        let part = std::fs::read_to_string(&file).unwrap();
        assert!(texts.iter().any(|text| is_in(&part, text)), "no row renders {}", file.display());
        parts += 1;
    }
    println!("{} texts, {parts} parts", texts.len());
    assert!(texts.len() < 1100, "{} texts", texts.len());
}

/// Whether `text` holds `part`, whatever names stand for its words.
#[cfg(feature = "wgpu")]
fn is_in(part: &str, text: &str) -> bool {
    const WORDS: [&str; 6] = ["NAME", "BUFFER", "DTYPE", "LEFT", "RIGHT", "OUT"];
    let pieces = WORDS.iter().fold(vec![part], |pieces, word| {
        pieces.into_iter().flat_map(|piece| piece.split(word)).collect()
    });
    let mut rest = Some(text);
    for piece in pieces {
        rest = rest.and_then(|rest| rest.split_once(piece)).map(|(_, behind)| behind);
    }
    rest.is_some()
}
