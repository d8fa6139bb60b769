//! Merge, unmerge and norm of a convolution's weight: they see no image, but the order of the weight's columns is that of its
//! channels, and of factors that have columns of it; a problem with another one is refused by name.

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

/// LoKr by the order of the weight, on every executor, for a w2 whole or low and a w1 likewise: channels first, and 1 × 1, are the
/// Kronecker product; channels last are channels first with the columns of w and of w2 put in order.
#[test]
fn lokr_goes_by_the_order_of_the_weight() {
    for device in devices() {
        let mut random = StdRng::seed_from_u64(3);
        let mut drawn = |rows, cols| tensor(&device, [rows, cols], &mut random);
        let (w1, w1a, w1b) = (drawn(2, 3), drawn(2, 2), drawn(2, 3));
        for taps in [1, TAPS] {
            let (d, k) = (CHANNELS / 3 * taps, CHANNELS * taps);
            let (w, w2) = (drawn(OUT, k), drawn(2, d));
            let (w2a, w2b) = (drawn(2, 2), drawn(2, d));
            let last = [&w, &w2, &w2b].map(|of| in_order(&device, of, taps));
            let [w_last, w2_last, w2b_last] = &last;
            let w1s = [Factor::whole(&w1), Factor::low(&w1a, &w1b)];
            let w2s = [
                [Factor::whole(&w2), Factor::whole(w2_last)],
                [Factor::low(&w2a, &w2b), Factor::low(&w2a, w2b_last)],
            ];
            let each = w1s.into_iter().flat_map(|w1| w2s.map(|of| (w1, of)));
            for (w1, [w2, w2_last]) in each {
                let (left, right) = (dense(w1), dense(w2));
                let delta =
                    |row: usize, col: usize| 2.0 * left(row / 2, col / d) * right(row % 2, col % d);
                let values = w.to_f32().unwrap();
                let with = |sign: f32| -> Vec<f32> {
                    let at = |at: usize| values[at] + sign * delta(at / k, at % k);
                    (0..values.len()).map(at).collect()
                };
                let kernel = if taps == 1 { [1, 1] } else { KERNEL };
                let of = Convolution::new(2, [5, 4], kernel);
                let shape = |of| if matches!(of, Factor::Whole(_)) { "whole" } else { "low" };
                let at = format!("{} {kernel:?} {} {}", device.name(), shape(w1), shape(w2));
                let adapter = Adapter::lokr(w1, w2);
                let all = run(&device, &w, adapter, Some(of)).map(|of| of.expect(&at));
                let [merged, unmerged, gain] = all;
                assert_eq!((&merged, &unmerged), (&with(1.0), &with(-1.0)), "{at}");
                for (row, gain) in merged.chunks(k).zip(&gain) {
                    let norm = row.iter().map(|of| of * of).sum::<f32>().sqrt();
                    assert!((gain * norm - 2.0).abs() < 1e-5, "{at}: {gain} of {norm}");
                }
                let unsaid = run(&device, &w, adapter, None).map(|of| of.expect(&at));
                assert_eq!(unsaid[0], merged, "{at}: without a word they are in PyTorch's order");

                let adapter = Adapter::lokr(w1, w2_last);
                let of = of.channels(Channels::Last);
                let all = run(&device, w_last, adapter, Some(of)).map(|of| of.expect(&at));
                let [merged_last, unmerged_last, gain_last] = all;
                let first = [&merged, &unmerged].map(|of| turned(of, k, taps));
                assert_eq!(first, [merged_last, unmerged_last], "{at}");
                for (one, other) in gain.iter().zip(&gain_last) {
                    assert!((one - other).abs() < 1e-5 * one, "{at}: {one} {other}");
                }
            }
        }
    }
}

/// The elements of a factor.
fn dense<'a>(of: Factor<&Tensor>) -> Box<dyn Fn(usize, usize) -> f32 + 'a> {
    match of {
        Factor::Whole(of) => {
            let (of, cols) = (of.buffer.to_f32().unwrap(), of.buffer.cols());
            Box::new(move |row, col| of[row * cols + col])
        }
        Factor::Low(a, b) => {
            let (left, right) = (a.buffer.to_f32().unwrap(), b.buffer.to_f32().unwrap());
            let cols = b.buffer.cols();
            let at =
                move |row, col| (0..2).map(|p| left[row * 2 + p] * right[p * cols + col]).sum();
            Box::new(at)
        }
    }
}

/// (channel, tap) to (tap, channel), of rows of so many columns.
fn turned(of: &[f32], columns: usize, taps: usize) -> Vec<f32> {
    let channels = columns / taps;
    let place = |at: usize| {
        let (row, col) = (at / columns, at % columns);
        row * columns + col % channels * taps + col / channels
    };
    (0..of.len()).map(|at| of[place(at)]).collect()
}

fn in_order(device: &Device, of: &Tensor, taps: usize) -> Tensor {
    let values = turned(&of.to_f32().unwrap(), of.cols(), taps);
    device.tensor(of.rows(), of.cols(), DType::F32, &values).unwrap()
}

/// What is said of a problem is said of its plans: taps that are not those of its images are refused by name.
#[test]
fn a_problem_says_so() {
    let kronecker = Kronecker::new(2, 3);
    let (low, whole) =
        (Method::Lokr as fn(Kronecker) -> Method, |of: Kronecker| Method::Lokr(of.whole()));
    let layers = [Operation::Forward, Operation::Merge, Operation::Unmerge, Operation::Norm];
    let of_layers = layers.map(|of| (of, whole as fn(Kronecker) -> Method, 0));
    let of_factors = Operation::FACTORS.iter().map(|of| (*of, low, 2));
    for (operation, method, rank) in of_layers.into_iter().chain(of_factors) {
        for (channels, right) in [(Channels::First, 1), (Channels::Last, TAPS)] {
            let of = images(channels);
            for taps in [1, 2, 3, TAPS] {
                let problem = Problem::new(operation, of.tokens(), CHANNELS * TAPS, OUT, rank)
                    .with_method(method(kronecker.taps_first(taps)))
                    .with_convolution(of);
                let plan = Plan::new(&problem, &Capabilities::cpu());
                if taps == right {
                    plan.unwrap();
                    continue;
                }
                let error = plan.unwrap_err();
                let is_named = matches!(
                    error.cause(),
                    Error::Convolution { what, got, .. } if what.contains("taps") && *got == [taps, right]
                );
                assert!(is_named, "{operation} {channels:?} {taps}: {error}");
            }
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
        let last = in_order(&device, &w, TAPS);
        let adapter = Adapter::tucker(&down, &core, &up);
        let first = run(&device, &w, adapter, Some(images(Channels::First)));
        let last = run(&device, &last, adapter, Some(images(Channels::Last)));
        let ([first, other, gain], [last, other_last, gain_last]) =
            (first.map(Result::unwrap), last.map(Result::unwrap));
        let in_order = [&first, &other].map(|of| turned(of, CHANNELS * TAPS, TAPS));
        assert_eq!(in_order, [last, other_last], "{}", device.name());
        for (one, other) in gain.iter().zip(&gain_last) {
            assert!((one - other).abs() < 1e-5 * one, "{} {one} {other}", device.name());
        }
    }
}
