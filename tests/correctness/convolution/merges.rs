//! Merge, unmerge and norm of a convolution's weight: they see no image, but the order of the weight's columns is that of its
//! channels. Factors whose columns are in PyTorch's are put in that order, or refused by name.

use fused_lora::{
    Adapter, Capabilities, Channels, Convolution, DType, Device, Error, Factor, Kronecker, Merge,
    Method, Norm, Operation, Plan, Problem, Tensor,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use test_support::{Harness, executors};

use super::calls::tensor;
use super::is_linear;

fn devices() -> Vec<Device> {
    executors().iter().map(|of| Device::open(of.name()).unwrap()).collect()
}

/// 6 channels to 4, 3 × 2.
const CHANNELS: usize = 6;
const KERNEL: [usize; 2] = [3, 2];
const TAPS: usize = 6;
const OUT: usize = 4;

fn images(channels: Channels) -> Convolution {
    Convolution::new(2, [5, 4], KERNEL).channels(channels)
}

/// What merge, unmerge and norm make of a weight.
fn run(
    device: &Device,
    w: &Tensor,
    adapter: Adapter<&Tensor>,
    of: Option<Convolution>,
) -> [Result<Vec<f32>, Error>; 3] {
    let magnitude = device.tensor(1, OUT, DType::F32, &[2.0; OUT]).unwrap();
    let mut gain = device.tensor(1, OUT, DType::F32, &[7.0; OUT]).unwrap();
    let (mut merged, mut unmerged) = (w.clone(), w.clone());
    let merge = Merge::new(&mut merged).with_adapter(Some(adapter)).scale(2.0).convolution(of);
    let merge = device.merge(merge);
    let unmerge = Merge::new(&mut unmerged).with_adapter(Some(adapter)).scale(2.0).convolution(of);
    let unmerge = device.unmerge(unmerge);
    let norm = Norm::new(w, &magnitude, &mut gain).with_adapter(Some(adapter)).scale(2.0);
    let norm = device.norm(norm.convolution(of));
    if merge.is_err() {
        let untouched = [&merged, &unmerged].map(|of| of.to_f32().unwrap());
        assert_eq!(untouched, [w.to_f32().unwrap(), w.to_f32().unwrap()], "nothing is written");
        assert_eq!(gain.to_f32().unwrap(), [7.0; OUT], "nothing is written");
    }
    let of = |done: Result<(), Error>, of: &Tensor| done.map(|()| of.to_f32().unwrap());
    [of(merge, &merged), of(unmerge, &unmerged), of(norm, &gain)]
}

/// LoKr's blocks of columns hold whole kernels: channels last are refused, on every executor, for a w2 whole or low and a w1
/// likewise; channels first, and 1 × 1 in either order, are the Kronecker product.
#[test]
fn lokr_is_refused_where_its_columns_are_apart() {
    for device in devices() {
        let mut random = StdRng::seed_from_u64(3);
        let mut drawn = |rows, cols| tensor(&device, [rows, cols], &mut random);
        let (w1, w1a, w1b) = (drawn(2, 3), drawn(2, 2), drawn(2, 3));
        for taps in [1, TAPS] {
            let (d, k) = (CHANNELS / 3 * taps, CHANNELS * taps);
            let (w, w2) = (drawn(OUT, k), drawn(2, d));
            let (w2a, w2b) = (drawn(2, 2), drawn(2, d));
            let w1s = || [Factor::whole(&w1), Factor::low(&w1a, &w1b)];
            let w2s = || [Factor::whole(&w2), Factor::low(&w2a, &w2b)];
            for adapter in w1s().into_iter().flat_map(|w1| w2s().map(|w2| Adapter::lokr(w1, w2))) {
                let product = |a: &Tensor, b: &Tensor| {
                    let (left, right) = (a.to_f32().unwrap(), b.to_f32().unwrap());
                    let at = move |row: usize, col: usize| {
                        (0..2).map(|p| left[row * 2 + p] * right[p * right.len() / 2 + col]).sum()
                    };
                    Box::new(at) as Box<dyn Fn(usize, usize) -> f32>
                };
                let whole = |of: &Tensor| {
                    let (of, cols) = (of.to_f32().unwrap(), of.cols());
                    Box::new(move |row: usize, col: usize| of[row * cols + col])
                        as Box<dyn Fn(usize, usize) -> f32>
                };
                let dense = |of: Factor<&Tensor>| match of {
                    Factor::Whole(of) => whole(of.buffer),
                    Factor::Low(a, b) => product(a.buffer, b.buffer),
                };
                let Adapter::Lokr { w1, w2 } = adapter else { unreachable!("LoKr") };
                let (left, right) = (dense(w1), dense(w2));
                let delta =
                    |row: usize, col: usize| 2.0 * left(row / 2, col / d) * right(row % 2, col % d);
                let values = w.to_f32().unwrap();
                let with = |sign: f32| -> Vec<f32> {
                    let at = |at: usize| values[at] + sign * delta(at / k, at % k);
                    (0..values.len()).map(at).collect()
                };
                let kernel = if taps == 1 { [1, 1] } else { KERNEL };
                for channels in [Channels::First, Channels::Last] {
                    let of = Convolution::new(2, [5, 4], kernel).channels(channels);
                    let all = run(&device, &w, adapter, Some(of));
                    let at = format!("{} {channels:?} {kernel:?} {adapter:?}", device.name());
                    if channels == Channels::Last && taps > 1 {
                        for refused in all {
                            let refused = refused.expect_err(&at);
                            let is_named = matches!(
                                refused.cause(),
                                Error::Convolution { what: "LoKr", got, .. } if *got == kernel
                            );
                            assert!(is_named, "{at}: {refused}");
                        }
                        continue;
                    }
                    let [merged, unmerged, gain] = all.map(|of| of.expect(&at));
                    assert_eq!((&merged, &unmerged), (&with(1.0), &with(-1.0)), "{at}");
                    for (row, gain) in merged.chunks(k).zip(gain) {
                        let norm = row.iter().map(|of| of * of).sum::<f32>().sqrt();
                        assert!((gain * norm - 2.0).abs() < 1e-5, "{at}: {gain} of {norm}");
                    }
                    let unsaid = run(&device, &w, adapter, None).map(|of| of.expect(&at));
                    assert_eq!(
                        unsaid[0], merged,
                        "{at}: without a word they are in PyTorch's order"
                    );
                }
            }
        }
    }
}

/// What is said of a problem is said of its plans.
#[test]
fn a_problem_says_so() {
    let kronecker = Kronecker::new(2, 3);
    for method in [Method::Lokr(kronecker), Method::Lokr(kronecker.whole())] {
        for operation in [Operation::Merge, Operation::Norm, Operation::Compose] {
            let is_whole = method == Method::Lokr(kronecker.whole());
            let rank = if is_whole { 0 } else { 2 };
            let of = |channels| {
                let of = images(channels);
                Problem::new(operation, of.tokens(), CHANNELS * TAPS, OUT, rank)
                    .with_method(method)
                    .with_convolution(of)
            };
            if is_whole == (operation == Operation::Compose) {
                continue;
            }
            let problem = of(Channels::Last);
            let error = Plan::new(&problem, &Capabilities::cpu()).unwrap_err();
            assert!(
                matches!(error, Error::Convolution { what: "LoKr", .. } | Error::Method { .. }),
                "{operation} {error}"
            );
        }
    }
}

/// Of a and b, whose columns lie as w's: merge, unmerge and norm of a convolution are those of a linear layer, by the same plan,
/// bit for bit, on every executor and in either order of channels.
#[test]
fn a_weight_sees_no_image() {
    let mut harness = Harness::new("merge and norm of convolutions");
    for (at, operation) in
        [Operation::Merge, Operation::Unmerge, Operation::Norm].into_iter().enumerate()
    {
        for (dtype, adapter) in
            [(DType::F32, DType::F32), (DType::Bf16, DType::F32), (DType::F16, DType::F16)]
        {
            let linear = Problem::new(operation, 60, CHANNELS * TAPS, 17, 3)
                .with_dtype(dtype)
                .with_adapter(adapter)
                .with_scale(0.7);
            for channels in [Channels::First, Channels::Last] {
                let of = images(channels);
                let problem = linear.with_tokens(of.tokens()).with_convolution(of);
                is_linear(&mut harness, at as u64, linear, problem);
            }
        }
    }
    harness.report();
}

/// A core's weight in either order: merge with channels last is merge with channels first, with the columns put in order.
#[test]
fn a_core_goes_by_the_order_of_the_weight() {
    for device in devices() {
        let mut random = StdRng::seed_from_u64(4);
        let mut drawn = |rows, cols| tensor(&device, [rows, cols], &mut random);
        let (down, core, up) = (drawn(2, CHANNELS), drawn(2, 2 * TAPS), drawn(OUT, 2));
        let w = drawn(OUT, CHANNELS * TAPS);
        // (channel, tap) to (tap, channel).
        let turned = |of: &[f32]| -> Vec<f32> {
            let place = |at: usize| {
                let (row, col) = (at / (CHANNELS * TAPS), at % (CHANNELS * TAPS));
                row * CHANNELS * TAPS + col % CHANNELS * TAPS + col / CHANNELS
            };
            (0..of.len()).map(|at| of[place(at)]).collect()
        };
        let last = turned(&w.to_f32().unwrap());
        let last = device.tensor(OUT, CHANNELS * TAPS, DType::F32, &last).unwrap();
        let adapter = Adapter::tucker(&down, &core, &up);
        let first = run(&device, &w, adapter, Some(images(Channels::First)));
        let last = run(&device, &last, adapter, Some(images(Channels::Last)));
        let ([first, other, gain], [last, other_last, gain_last]) =
            (first.map(Result::unwrap), last.map(Result::unwrap));
        assert_eq!([turned(&first), turned(&other)], [last, other_last], "{}", device.name());
        for (one, other) in gain.iter().zip(&gain_last) {
            assert!((one - other).abs() < 1e-5 * one, "{} {one} {other}", device.name());
        }
    }
}
