//! The gradient of a magnitude on images of either order: drawn at random against the definition; in small integers channels
//! first are channels last, bit for bit, by calls that read the problem off their operands.

use fused_lora::{
    BackwardGain, Capabilities, Channels, Convolution, CudaCapabilities, DType, Device, Error,
    Operation, Plan, Problem,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use test_support::{Fill, draw_gain_images};

use super::super::definition::candidates_match;
use super::calls::tensor;
use super::{serving, through};

#[test]
fn every_candidate_matches_the_definition() {
    let mut harness = through("gains of images").rarer(2);
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers];
    candidates_match(&mut harness, 300, &fills, draw_gain_images).report(None);
}

#[test]
fn planes_are_pixels_in_another_order() {
    const OUT: usize = 6;
    for device in serving().iter().map(|of| Device::open(of.name()).unwrap()) {
        for dtype in [DType::F32, DType::Bf16] {
            let of = Convolution::new(3, [5, 4], [3, 3]).padding([1, 1]).stride([2, 1]);
            let last = of.channels(Channels::Last);
            let ([height, width], tokens) = (of.output(), of.tokens());
            let pixels = height * width;
            let mut random = StdRng::seed_from_u64(2);
            let mut drawn = |rows, cols| tensor(&device, [rows, cols], &mut random);
            let (dy, y, bias) = (drawn(tokens, OUT), drawn(tokens, OUT), drawn(1, OUT));
            let row = |values: &[f32]| device.tensor(1, OUT, DType::F32, values).unwrap();
            let gain = row(&[0.5, -1.0, 2.0, 4.0, 0.25, 1.0]);
            let magnitude = row(&[2.0, 1.0, -0.5, 4.0, 0.25, 8.0]);
            let old = row(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            let typed = |of: &fused_lora::Tensor, values: Vec<f32>, rows, cols| {
                assert_eq!(of.to_f32().unwrap().len(), values.len());
                device.tensor(rows, cols, dtype, &values).unwrap()
            };
            // [token, column] to [image · column, pixel].
            let planes = |values: &[f32]| -> Vec<f32> {
                let place = |at: usize| {
                    let (plane, pixel) = (at / pixels, at % pixels);
                    (plane / OUT * pixels + pixel) * OUT + plane % OUT
                };
                (0..values.len()).map(|at| values[place(at)]).collect()
            };
            let [got, want] = [of, last].map(|of| {
                let is_first = of.channels == Channels::First;
                let [rows, cols] = if is_first { [3 * OUT, pixels] } else { [tokens, OUT] };
                let [dy, y] = [&dy, &y].map(|from| {
                    let values = from.to_f32().unwrap();
                    let values = if is_first { planes(&values) } else { values };
                    typed(from, values, rows, cols)
                });
                let bias = typed(&bias, bias.to_f32().unwrap(), 1, OUT);
                let mut scaled = device.tensor(rows, cols, dtype, &vec![7.0; rows * cols]).unwrap();
                let mut gradient = old.clone();
                let call =
                    BackwardGain::new([&dy, &y], [&gain, &magnitude], &mut scaled, &mut gradient);
                device.backward_gain(call.bias(&bias).beta(0.5).convolution(of)).unwrap();
                let scaled = scaled.to_f32().unwrap();
                (scaled, gradient.to_f32().unwrap())
            });
            assert_eq!(got.0, planes(&want.0), "{} {dtype}: scaled_dy", device.name());
            assert_eq!(got.1, want.1, "{} {dtype}: dmagnitude", device.name());
            assert!(got.1.iter().any(|of| *of != 0.0));
        }
    }
}

/// CUDA's kernel reads pixels whose channels lie side by side; planes it refuses by name.
#[test]
fn what_is_not_served_is_refused_by_name() {
    let cuda = Capabilities::Cuda(CudaCapabilities::default());
    let of = Convolution::new(2, [6, 7], [3, 3]).padding([1, 1]);
    let plan = |channels| {
        let of = of.channels(channels);
        let problem = Problem::new(Operation::BackwardGain, of.tokens(), 8 * of.taps(), 5, 0);
        Plan::new(&problem.with_convolution(of), &cuda)
    };
    assert!(plan(Channels::Last).is_ok());
    match plan(Channels::First) {
        Err(Error::NoStrategy { reasons, .. }) => {
            assert!(reasons.contains("does not load gathered dy"), "{reasons}");
        }
        other => panic!("{other:?}"),
    }
}
