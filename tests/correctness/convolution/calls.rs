//! Whole calls on images: forward and a backward pass against the definition, a training step as LyCORIS takes it, and a Tucker
//! core in the order of either layout's weight.

use std::path::Path;

use fused_lora::reference::Dense;
use fused_lora::{
    Backward, Channels, Convolution, DType, Device, Factor, Forward, Method, Operand, Operation,
    Problem, Taps, Tensor,
};
use rand::prelude::*;
use rand::rngs::StdRng;
use safetensors::SafeTensors;
use test_support::executors;

use super::super::golden::dense;
use super::{BOTH, gathers};

pub(super) fn tensor(device: &Device, [rows, cols]: [usize; 2], random: &mut StdRng) -> Tensor {
    let values: Vec<f32> = (0..rows * cols).map(|_| random.random_range(-2..=2) as f32).collect();
    device.tensor(rows, cols, DType::F32, &values).unwrap()
}

/// Forward and a whole backward pass, each step read off the operands: small integers, against the definition.
#[test]
fn calls_take_a_convolution() {
    for name in executors().iter().map(|of| of.name().to_owned()) {
        let device = Device::open(&name).unwrap();
        for channels in BOTH.into_iter().filter(|of| gathers(&name, *of)) {
            let of = Convolution::new(2, [5, 4], [3, 3])
                .padding([1, 2])
                .stride([2, 1])
                .dilation([1, 2])
                .channels(channels);
            let problem = Problem::forward(of.tokens(), 3 * of.taps(), 6, 2)
                .with_convolution(of)
                .with_scale(0.5);
            let shape = |operation, operand| {
                let spec = problem.with_operation(operation).spec(operand).unwrap();
                [spec.rows, spec.cols]
            };
            let mut random = StdRng::seed_from_u64(1);
            let mut drawn =
                |operation, operand| tensor(&device, shape(operation, operand), &mut random);
            let [x, w, a, b] = [Operand::X, Operand::W, Operand::A, Operand::B]
                .map(|of| drawn(Operation::Forward, of));
            let dy = drawn(Operation::BackwardInput, Operand::Dy);
            let zeros = |operation, operand| {
                let [rows, cols] = shape(operation, operand);
                device.zeros(rows, cols, DType::F32).unwrap()
            };
            let mut y = zeros(Operation::Forward, Operand::Y);
            let mut shrunk = zeros(Operation::Forward, Operand::Shrunk);
            let forward = Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(0.5).convolution(of);
            assert_eq!(forward.shrunk_shape(), shape(Operation::Forward, Operand::Shrunk));
            device.forward(forward.shrunk(&mut shrunk)).unwrap();
            let mut dx = zeros(Operation::BackwardInput, Operand::Dx);
            let [mut da, mut db] =
                [Operand::Da, Operand::Db].map(|of| zeros(Operation::BackwardAdapter, of));
            let backward = || Backward::new(&x, &w, &dy).adapter(&a, &b).scale(0.5).convolution(of);
            let all = backward().shrunk(&shrunk).dx(&mut dx).da(&mut da).db(&mut db);
            device.backward(all).unwrap();

            let dense = |of: &Tensor| {
                let values = of.to_f32().unwrap().into_iter().map(f64::from).collect();
                Dense::new(of.rows(), of.cols(), values)
            };
            let expected = |operation, inputs: &[(Operand, &Tensor)]| {
                let problem = problem.with_operation(operation);
                fused_lora::reference::expected(
                    &problem,
                    fused_lora::reference::Sums::F32,
                    |operand| dense(inputs.iter().find(|of| of.0 == operand).unwrap().1),
                )
            };
            let check =
                |all: &[(Operand, fused_lora::reference::Expected)], operand, got: &Tensor| {
                    let want = &all.iter().find(|of| of.0 == operand).unwrap().1.value;
                    assert_eq!(dense(got).values(), want.values(), "{name} {channels:?} {operand}");
                };
            let factors = [(Operand::W, &w), (Operand::A, &a), (Operand::B, &b)];
            let of_forward =
                expected(Operation::Forward, &[&[(Operand::X, &x)], &factors[..]].concat());
            check(&of_forward, Operand::Y, &y);
            let of_input =
                expected(Operation::BackwardInput, &[&[(Operand::Dy, &dy)], &factors[..]].concat());
            check(&of_input, Operand::Dx, &dx);
            let dshrunk = &of_input.iter().find(|of| of.0 == Operand::Dshrunk).unwrap().1.value;
            let values: Vec<f32> = (0..dshrunk.rows() * 8)
                .map(|at| if at % 8 < 2 { dshrunk.at(at / 8, at % 8) as f32 } else { 0.0 })
                .collect();
            let dshrunk = device.tensor(dshrunk.rows(), 8, DType::F32, &values).unwrap();
            let of_adapter = expected(
                Operation::BackwardAdapter,
                &[
                    (Operand::X, &x),
                    (Operand::Dy, &dy),
                    (Operand::Shrunk, &shrunk),
                    (Operand::Dshrunk, &dshrunk),
                ],
            );
            check(&of_adapter, Operand::Da, &da);
            check(&of_adapter, Operand::Db, &db);

            // Each gradient alone; db with what forward kept.
            let (mut alone, mut of_b) = (
                zeros(Operation::BackwardAdapter, Operand::Da),
                zeros(Operation::BackwardAdapter, Operand::Db),
            );
            device.backward(backward().da(&mut alone)).unwrap();
            assert_eq!(alone.to_f32().unwrap(), da.to_f32().unwrap());
            device.backward(backward().shrunk(&shrunk).db(&mut of_b)).unwrap();
            assert_eq!(of_b.to_f32().unwrap(), db.to_f32().unwrap());
            // And without it works that out anew: small integers, so the same.
            let mut anew = zeros(Operation::BackwardAdapter, Operand::Db);
            device.backward(backward().db(&mut anew)).unwrap();
            assert_eq!(anew.to_f32().unwrap(), db.to_f32().unwrap(), "{name} {channels:?}");
        }
    }
}

/// Relative error, in the Frobenius norm.
fn distance(got: &Tensor, want: &Dense) -> f64 {
    let pairs = || got.to_f32().unwrap().into_iter().map(f64::from).zip(want.values());
    let error: f64 = pairs().map(|(got, want)| (got - want).powi(2)).sum();
    (error / want.values().iter().map(|of| of * of).sum::<f64>()).sqrt()
}

/// A training step as LyCORIS takes one, 3 × 3 of stride 1 and 2 and 1 × 1, by the factors of its files: y, dx, and the
/// gradient of each factor.
#[test]
fn a_step_is_what_lycoris_computes() {
    let names = |name: &str, method: &str| match method {
        "lora" if name.contains("tucker") => {
            &["lora_down.weight", "lora_mid.weight", "lora_up.weight"][..]
        }
        "lora" => &["lora_down.weight", "lora_up.weight"],
        "loha" => &["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"],
        _ if name.contains("full") => &["lokr_w1", "lokr_w2"],
        _ => &["lokr_w1", "lokr_w2_a", "lokr_w2_b"],
    };
    let cases =
        ["lora_conv3", "lora_conv3_s2", "lora_conv1", "loha_conv3", "loha_conv3_s2", "loha_conv1"];
    let more = ["lokr_low_conv3", "lokr_low_conv1", "lora_tucker", "lokr_full_conv3_s2"];
    let cases = cases.into_iter().chain(more);
    for (name, label, dtype, most) in cases
        .flat_map(|name| [(name, "f32", DType::F32, 2e-6), (name, "bf16_af32", DType::Bf16, 4e-3)])
    {
        let path = Path::new("tests/golden/family").join(format!("{name}_{label}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().as_ref().unwrap();
        let number = |name: &str| metadata[name].parse::<usize>().unwrap();
        let scale = metadata["scale"].parse::<f64>().unwrap() as f32;
        let dense = |name: &str| dense(&file.tensor(name).unwrap());
        // Images as planes: rows and columns of pixels last.
        let planes = |name: &str| {
            let shape = file.tensor(name).unwrap().shape().to_vec();
            let of = dense(name);
            let rows = shape[0] * shape[1];
            Dense::new(rows, of.values().len() / rows, of.values().to_vec())
        };
        // Stored channels last: pixels of images, and of a factor's columns the taps before their channels.
        let pixels = |of: Dense, images: usize| {
            let (channels, pixels) = (of.rows() / images, of.cols());
            Dense::from_fn(images * pixels, channels, |row, channel| {
                of.at(row / pixels * channels + channel, row % pixels)
            })
        };
        let taps_first = |of: Dense, taps: usize| match of.cols().is_multiple_of(taps) {
            false => of,
            true => {
                let channels = of.cols() / taps;
                Dense::from_fn(of.rows(), of.cols(), |row, col| {
                    of.at(row, col % channels * taps + col / channels)
                })
            }
        };
        let (of_x, of_w) = (file.tensor("x").unwrap(), file.tensor("w").unwrap());
        let (x_shape, w_shape) = (of_x.shape(), of_w.shape());
        let of = Convolution::new(x_shape[0], [x_shape[2], x_shape[3]], [w_shape[2], w_shape[3]])
            .stride([number("stride"); 2])
            .padding([number("padding"); 2]);
        let each = executors().into_iter().flat_map(|of| {
            let name = of.name().to_owned();
            BOTH.map(|channels| (name.clone(), channels))
        });
        let served = |at: &(String, Channels)| gathers(&at.0, at.1);
        for (executor, channels) in each.filter(served) {
            let (device, of) = (Device::open(&executor).unwrap(), of.channels(channels));
            let is_last = channels == Channels::Last;
            let images = |name: &str| match is_last {
                true => pixels(planes(name), of.images),
                false => planes(name),
            };
            // A core is stored one way, whatever the order of the weight's columns; of LoKr w2 alone has them.
            let has_taps =
                |name: &str| !["lora_mid", "lokr_w1", "w2_a"].iter().any(|of| name.contains(of));
            let factor = |name: &str| match is_last && has_taps(name) {
                true => taps_first(dense(name), of.taps()),
                false => dense(name),
            };
            let on = |of: Dense, dtype| {
                let values: Vec<f32> = of.values().iter().map(|of| *of as f32).collect();
                device.tensor(of.rows(), of.cols(), dtype, &values).unwrap()
            };
            let (x, dy, w) =
                (on(images("x"), dtype), on(images("dy"), dtype), on(factor("w"), dtype));
            let bias = on(dense("bias"), dtype);
            let factors: Vec<Tensor> = names(name, &metadata["method"])
                .iter()
                .map(|name| on(factor(name), DType::F32))
                .collect();
            let zeros = |rows, cols, dtype| device.zeros(rows, cols, dtype).unwrap();
            let mut gradients: Vec<Tensor> =
                factors.iter().map(|of| zeros(of.rows(), of.cols(), DType::F32)).collect();
            let want = images("y_f64");
            let (mut y, mut dx) =
                (zeros(want.rows(), want.cols(), dtype), zeros(x.rows(), x.cols(), dtype));
            let forward = Forward::new(&x, &w, &mut y).bias(&bias).scale(scale).convolution(of);
            let backward = Backward::new(&x, &w, &dy).scale(scale).convolution(of).dx(&mut dx);
            let (forward, backward) = match (&factors[..], &mut gradients[..]) {
                ([w1, w2], [dw1, dw2]) if name.contains("full") => {
                    let factors = || (Factor::whole(w1), Factor::whole(w2));
                    let ((w1, w2), (of_w1, of_w2)) = (factors(), factors());
                    (forward.lokr(w1, w2), backward.lokr(of_w1, of_w2).dw1(dw1).dw2(dw2))
                }
                ([a, b], [da, db]) => (forward.adapter(a, b), backward.adapter(a, b).da(da).db(db)),
                ([w1a, w1b, w2a, w2b], [dw1a, dw1b, dw2a, dw2b]) => {
                    let backward = backward.loha(w1a, w1b, w2a, w2b).dw1a(dw1a).dw1b(dw1b);
                    (forward.loha(w1a, w1b, w2a, w2b), backward.dw2a(dw2a).dw2b(dw2b))
                }
                ([down, core, up], [ddown, dcore, dup]) if name == "lora_tucker" => {
                    let backward = backward.tucker(down, core, up).ddown(ddown).dcore(dcore);
                    (forward.tucker(down, core, up), backward.dup(dup))
                }
                ([w1, w2a, w2b], [dw1, dw2a, dw2b]) => {
                    let factors = || (Factor::whole(w1), Factor::low(w2a, w2b));
                    let ((w1, w2), (of_w1, of_w2)) = (factors(), factors());
                    let backward = backward.lokr(of_w1, of_w2).dw1(dw1).dw2a(dw2a).dw2b(dw2b);
                    (forward.lokr(w1, w2), backward)
                }
                _ => panic!("{name}"),
            };
            let [rows, cols] = forward.shrunk_shape();
            let mut shrunk = zeros(rows, cols, dtype);
            // With what forward kept, where there is a rank, and in f32 without it.
            if dtype == DType::F32 || cols == 0 {
                device.forward(forward).unwrap();
                device.backward(backward).unwrap();
            } else {
                device.forward(forward.shrunk(&mut shrunk)).unwrap();
                device.backward(backward.shrunk(&shrunk)).unwrap();
            }
            let mut all =
                vec![("y".to_owned(), &y, want), ("dx".to_owned(), &dx, images("dx_f64"))];
            for (name, of) in names(name, &metadata["method"]).iter().zip(&gradients) {
                all.push((format!("d_{name}"), of, factor(&format!("d_{name}_f64"))));
            }
            for (what, got, want) in all {
                let far = distance(got, &want);
                println!("  {executor} {channels:?} {name} {label} {what} {far:.1e}");
                assert!(far <= most, "{executor} {name} {label}: {what} is {far} away");
            }
        }
    }
}

/// A core on images of either order: the layer of the a that it composes, in the order of that weight's columns.
#[test]
fn a_core_goes_by_the_order_of_the_channels() {
    for name in executors().iter().map(|of| of.name().to_owned()) {
        let device = Device::open(&name).unwrap();
        for channels in BOTH.into_iter().filter(|of| gathers(&name, *of)) {
            let of = Convolution::new(2, [5, 4], [3, 2]).padding([1, 1]).channels(channels);
            let (images, n, rank) = (3, 6, 2);
            let taps = match channels {
                Channels::First => Taps::new(of.taps()),
                Channels::Last => Taps::new(of.taps()).first(),
            };
            let compose = Problem::new(Operation::Compose, 0, images * of.taps(), n, rank)
                .with_method(Method::Tucker(taps));
            let problem = compose.composed().with_operation(Operation::Forward);
            let problem = problem.with_tokens(of.tokens()).with_convolution(of);
            let mut random = StdRng::seed_from_u64(8);
            let mut drawn = |problem: &Problem, operand| {
                let spec = problem.spec(operand).unwrap();
                tensor(&device, [spec.rows, spec.cols], &mut random)
            };
            let [x, w] = [Operand::X, Operand::W].map(|of| drawn(&problem, of));
            let factors = [Operand::Down, Operand::Core, Operand::Up];
            let [down, core, up] = factors.map(|of| drawn(&compose, of));
            let dense = |of: &Tensor| {
                let values = of.to_f32().unwrap().into_iter().map(f64::from).collect();
                Dense::new(of.rows(), of.cols(), values)
            };
            // Small integers: exact.
            let delta = fused_lora::reference::delta_w(&compose, |of| match of {
                Operand::Down => dense(&down),
                Operand::Core => dense(&core),
                _ => dense(&up),
            });
            let whole: Vec<f32> = dense(&w)
                .values()
                .iter()
                .zip(delta.values())
                .map(|(w, delta)| (w + delta) as f32)
                .collect();
            let whole = device.tensor(w.rows(), w.cols(), DType::F32, &whole).unwrap();
            let [got, want] = [Some(()), None].map(|adapted| {
                let spec = problem.spec(Operand::Y).unwrap();
                let mut y = device.zeros(spec.rows, spec.cols, DType::F32).unwrap();
                let call = match adapted {
                    Some(()) => Forward::new(&x, &w, &mut y).tucker(&down, &core, &up),
                    None => Forward::new(&x, &whole, &mut y),
                };
                device.forward(call.convolution(of)).unwrap();
                y.to_f32().unwrap()
            });
            assert_eq!(got, want, "{name} {channels:?}");

            // The factors' gradients are what the definition makes of those of a and b.
            let on = |of: &Dense| {
                let values: Vec<f32> = of.values().iter().map(|of| *of as f32).collect();
                device.tensor(of.rows(), of.cols(), DType::F32, &values).unwrap()
            };
            let input = |of: Operand| match of {
                Operand::Down => dense(&down),
                Operand::Core => dense(&core),
                _ => dense(&up),
            };
            let sums = fused_lora::reference::Sums::F32;
            let composed = fused_lora::reference::expected(&compose, sums, input);
            let (a, b) = (on(&composed[0].1.value), on(&composed[1].1.value));
            let dy = drawn(&problem.with_operation(Operation::BackwardInput), Operand::Dy);
            let zeros = |of: &Tensor| device.zeros(of.rows(), of.cols(), DType::F32).unwrap();
            let kept = problem.spec(Operand::Shrunk).unwrap();
            let (mut shrunk, mut y) = (
                device.zeros(kept.rows, kept.cols, DType::F32).unwrap(),
                device.tensor(dy.rows(), dy.cols(), DType::F32, &dy.to_f32().unwrap()).unwrap(),
            );
            let call = Forward::new(&x, &w, &mut y).tucker(&down, &core, &up).convolution(of);
            device.forward(call.shrunk(&mut shrunk)).unwrap();
            let backward = || Backward::new(&x, &w, &dy).shrunk(&shrunk).convolution(of);
            let (mut da, mut db) = (zeros(&a), zeros(&b));
            device.backward(backward().adapter(&a, &b).da(&mut da).db(&mut db)).unwrap();
            let (mut ddown, mut dcore, mut dup) = (zeros(&down), zeros(&core), zeros(&up));
            let call = backward().tucker(&down, &core, &up);
            device.backward(call.ddown(&mut ddown).dcore(&mut dcore).dup(&mut dup)).unwrap();
            let chain = compose.with_operation(Operation::Chain);
            let want = fused_lora::reference::expected(&chain, sums, |of| match of {
                Operand::Da => dense(&da),
                Operand::Db => dense(&db),
                of => input(of),
            });
            for (operand, got) in
                [(Operand::Ddown, &ddown), (Operand::Dcore, &dcore), (Operand::Dup, &dup)]
            {
                let want = &want.iter().find(|of| of.0 == operand).unwrap().1.value;
                assert_eq!(dense(got).values(), want.values(), "{name} {channels:?} {operand}");
            }
        }
    }
}
