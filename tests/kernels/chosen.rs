//! Every text that a layer runs on is the fastest for some layer on some card, by the plan's price: what nobody
//! would choose need not be embedded. What each is worth: `-- --nocapture`.

use std::collections::BTreeMap;

use fused_lora::{
    Capabilities, Channels, Convolution, CudaCapabilities, DType, Layout, Operand, Operation,
    Outcome, Plan, Problem,
};
use test_support::sim::walk::texts;

use super::gate::texts::rendered;

/// Compute capability, multiprocessors, shared bytes a block and a multiprocessor, of which there are cards.
const CARDS: [((u32, u32), u32, u32, u32); 6] = [
    ((8, 0), 108, 166_912, 167_936),
    ((8, 6), 28, 101_376, 102_400),
    ((8, 7), 16, 166_912, 167_936),
    ((8, 9), 128, 101_376, 102_400),
    ((9, 0), 132, 232_448, 233_472),
    ((12, 0), 170, 101_376, 102_400),
];
const TOKENS: [usize; 7] = [8, 64, 200, 512, 1024, 4096, 16384];
const FEATURES: [usize; 7] = [256, 512, 1024, 1280, 3072, 4096, 14336];
const RANKS: [usize; 7] = [0, 4, 8, 16, 32, 64, 128];

/// What it is worth that there is a text.
#[derive(Default)]
struct Worth {
    layers: usize,
    /// How much longer the next best takes by the price, over the text's layers, and where most.
    sum: f64,
    most: f64,
    at: String,
}

fn problems() -> impl Iterator<Item = Problem> {
    let sizes = TOKENS.into_iter().flat_map(|m| FEATURES.map(|k| (m, k)));
    let sizes = sizes.flat_map(|(m, k)| FEATURES.map(|n| (m, k, n)));
    let layers = sizes.flat_map(|(m, k, n)| RANKS.map(|rank| (m, k, n, rank)));
    let of_operation = |(m, k, n, rank)| {
        [Operation::Forward, Operation::BackwardInput].map(|of| Problem::new(of, m, k, n, rank))
    };
    let of_types = |problem: Problem| {
        [DType::Bf16, DType::F16, DType::F32].into_iter().flat_map(move |dtype| {
            [dtype, DType::F32].map(|adapter| problem.with_dtype(dtype).with_adapter(adapter))
        })
    };
    let problems = layers.flat_map(of_operation).flat_map(of_types);
    // Few of other kinds do: an f32 layer that may round, an x that lies anywhere.
    problems.enumerate().map(|(at, problem)| {
        let odd = Layout { align: problem.activation().size(), ..Layout::default() };
        let x = if problem.operation() == Operation::Forward { Operand::X } else { Operand::Dy };
        match at % 16 {
            ..3 => problem.with_tf32(problem.activation() == DType::F32),
            3..6 => problem.with_layout(x, odd),
            _ => problem,
        }
    })
}

/// Layers on one image and on four, 3 × 3 in a border of zeros, as a diffusion model has them.
fn images() -> impl Iterator<Item = Problem> {
    let layers = [(64, 320, 320), (32, 640, 640), (32, 1280, 640), (16, 1280, 1280)];
    let sizes = layers.into_iter().flat_map(|of| [1, 4].map(|images| (images, of)));
    let ranks = sizes.flat_map(|of| RANKS.map(|rank| (of, rank)));
    let types = ranks.flat_map(|of| [DType::Bf16, DType::F16].map(|dtype| (of, dtype)));
    types.flat_map(|(((images, (size, channels, n)), rank), dtype)| {
        let of =
            Convolution::new(images, [size; 2], [3, 3]).padding([1, 1]).channels(Channels::Last);
        let problem = Problem::forward(of.tokens(), channels * of.taps(), n, rank);
        let problem = problem.with_convolution(of).with_dtype(dtype);
        [dtype, DType::F32].map(|adapter| problem.with_adapter(adapter))
    })
}

#[test]
fn every_text_of_a_layer_is_chosen() {
    let mut chosen: BTreeMap<String, Worth> = BTreeMap::new();
    for (compute_capability, multiprocessors, shared, of_multiprocessor) in CARDS {
        let mut card = CudaCapabilities::default();
        card.compute_capability = compute_capability;
        card.multiprocessors = multiprocessors;
        card.shared_bytes = shared;
        card.shared_bytes_per_multiprocessor = of_multiprocessor;
        let card = Capabilities::Cuda(card);
        for problem in problems().chain(images()) {
            let plan = Plan::new(&problem, &card).unwrap();
            let (mut best, mut next) = (0.0, f64::INFINITY);
            for of in plan.candidates() {
                match of.outcome {
                    Outcome::Chosen(micros) => best = micros,
                    Outcome::Slower(micros) => next = next.min(micros),
                    _ => {}
                }
            }
            for text in texts(&plan) {
                let worth = chosen.entry(text).or_default();
                worth.layers += 1;
                let longer = if next.is_finite() { next / best - 1.0 } else { 0.0 };
                worth.sum += longer;
                if longer > worth.most {
                    worth.most = longer;
                    worth.at = format!("{problem:?} on {multiprocessors}");
                }
            }
        }
    }
    for (name, Worth { layers, sum, most, at }) in &chosen {
        let mean = 100.0 * sum / *layers as f64;
        let most = 100.0 * most;
        println!(
            "{name:<40} {layers:>6} layers, else {mean:.1} % longer, at most {most:.1} %: {at}"
        );
    }
    let of_layers = ["plain_", "leader_", "recompute_", "shrink_", "decode_"];
    let names = rendered().into_iter().map(|of| of.name);
    let unused: Vec<String> = names
        .filter(|name| of_layers.iter().any(|of| name.starts_with(of)))
        // Of convolutions there is one of each other kind and type: nothing else could be chosen.
        .filter(|name| !name.contains("_gathered") || name.starts_with("leader_"))
        .filter(|name| !chosen.contains_key(name))
        .collect();
    assert!(unused.is_empty(), "no plan chooses {unused:#?}");
}
