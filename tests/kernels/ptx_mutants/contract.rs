//! `contract`, whole: the sums over factors of every method, forward and back, and what layers with a whole w2 make of it.
//! Every index of either side, sums of a thread and of a warp, every type read and written; called by `layers`.

use fused_lora::{DType, Gradients, Kronecker, Method, Operand, Operation, Problem, Taps};

use super::factors::{WHOLE, layer, odd};
use super::layers::Data::{self, Infinite, Integers, Uniform};
use super::layers::{Layer, Loop, loops};
use DType::{Bf16, F16, F32};
use Operation::{BackwardAdapter, Chain, Compose, Forward, Merge};

type OfFactors = (Operation, Method, [usize; 3], [DType; 2]);
/// On factors alone: what they are, [k, n, rank], their type, that of the gradients. More sums than a CTA has threads; sums
/// of more terms than a warp has lanes, whose inner ones are fewer, and as many; none at all.
const FACTORS: [OfFactors; 11] = [
    (Compose, Method::Loha, [45, 5, 3], [Bf16, F32]),
    (Chain, Method::Lokr(Kronecker::low(4, 3)), [21, 20, 5], [F16, Bf16]),
    (Chain, Method::Tucker(Taps::new(9)), [27, 4, 4], [F32, F16]),
    (Compose, Method::Lokr(Kronecker::low(3, 4)), [28, 15, 2], [F32, F32]),
    (Chain, Method::Loha, [3, 2, 33], [Bf16, F32]),
    (Compose, Method::Tucker(Taps::new(6).first()), [18, 3, 5], [F16, F32]),
    (Chain, Method::Tucker(Taps::new(4).first()), [140, 2, 3], [Bf16, Bf16]),
    (Chain, Method::Lokr(Kronecker::new(2, 5)), [40, 6, 7], [F32, F32]),
    (Compose, Method::Lokr(Kronecker::low(3, 2).whole()), [8, 9, 4], [F16, F32]),
    (Compose, Method::Lokr(Kronecker::new(2, 3).taps_first(4)), [24, 4, 3], [F32, F32]),
    (Chain, Method::Lokr(Kronecker::low(2, 3).taps_first(2)), [24, 4, 5], [Bf16, F32]),
];

type OfWhole = (Operation, &'static str, [usize; 3], Kronecker, DType, Data);
/// With a whole w2, [tokens, k, n], and its w1: the layer, forward with all that is finished, and back.
const WHOLE_W2: [OfWhole; 10] = [
    (Merge, "auto", [1, 12, 10], Kronecker::new(2, 3).taps_first(2), F16, Uniform),
    (Forward, "merged/unaligned", [3, 12, 10], Kronecker::new(5, 3), F16, Integers),
    (Forward, "direct/mixed_unaligned", [3, 12, 10], Kronecker::new(2, 3), F32, Uniform),
    (Forward, "direct/mixed_unaligned", [3, 12, 10], Kronecker::new(2, 3), Bf16, Uniform),
    (Forward, "direct/mixed_unaligned", [2, 12, 9], Kronecker::new(3, 2), F16, Uniform),
    (Forward, "merged/unaligned", [2, 12, 10], Kronecker::new(2, 4), Bf16, Integers),
    (BackwardAdapter, "direct/kronecker", [37, 12, 10], Kronecker::new(2, 3), Bf16, Uniform),
    (
        BackwardAdapter,
        "direct/kronecker",
        [5, 12, 10],
        Kronecker::new(2, 3),
        F16,
        Infinite(Operand::Dy),
    ),
    (BackwardAdapter, "direct/kronecker", [5, 12, 10], Kronecker::new(2, 3), F32, Uniform),
    (BackwardAdapter, "direct/kronecker", [0, 12, 10], Kronecker::new(2, 3), Bf16, Uniform),
];

pub(super) fn all() -> Vec<Loop> {
    let of_factors =
        |(at, (operation, method, [k, n, rank], [adapter, gradient])): (usize, OfFactors)| {
            let problem = Problem::new(operation, 0, k, n, rank)
                .with_method(method)
                .with_adapter(adapter)
                .with_gradient(gradient)
                .with_beta(if at % 3 == 1 { 0.5 } else { 0.0 });
            layer(odd(problem, at), "auto", Uniform)
        };
    let of_whole =
        |(at, (operation, choice, [m, k, n], of, activation, data)): (usize, OfWhole)| {
            let problem = Problem::new(operation, m, k, n, 0)
                .with_method(Method::Lokr(of.whole()))
                .with_activation(activation)
                .with_adapter(if at % 2 == 0 { F32 } else { activation })
                .with_output((at % 2 == 0).then_some(F32))
                .with_gradient([F32, Bf16, F16][at % 3])
                .with_scale(0.75)
                .with_beta(if at % 2 == 0 { 0.5 } else { 0.0 })
                .with_bias(true)
                .with_gain(at != 4)
                .with_gradients(Gradients::Both);
            layer(odd(problem, at), choice, data)
        };
    let mut layers: Vec<Layer> = FACTORS.into_iter().enumerate().map(of_factors).collect();
    layers.extend(WHOLE_W2.into_iter().enumerate().map(of_whole));
    loops("contract", "contract", &layers, &WHOLE)
}
