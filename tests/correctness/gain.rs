//! A factor of each output column, beside what every other test draws of it: ones change no bit, on any candidate; where it
//! comes of a magnitude, and what its gradients are, against the definition; PEFT's own DoRA, a whole training step; a NaN
//! stays in its column; what does not fit is refused.

use std::collections::BTreeMap;
use std::path::Path;

use fused_lora::reference::{Dense, delta_w};
use fused_lora::{
    Backward, BackwardGain, DType, Device, Error, Factor, Forward, Kronecker, Method, Norm,
    Operand, Operation, Plan, Problem, Tensor,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;
use test_support::{
    Buffers, Case, Fill, Harness, Reference, Usage, assert_exact, draw_gain, executors,
    largest_part, launch, wants_matrices,
};

use super::golden::dense;

fn devices() -> Vec<Device> {
    let open = |name: &str| Device::open(name).expect("a device that the tests have");
    executors().iter().map(|of| open(of.name())).collect()
}

/// Every strategy and preset, ragged and not, with an adapter and without one.
#[test]
fn ones_change_no_bit() {
    let mut harness = Harness::new("gains of one");
    for (at, [tokens, k, n, rank]) in
        [[1, 40, 33, 4], [19, 64, 40, 0], [70, 33, 130, 7]].into_iter().enumerate()
    {
        let dtypes =
            if wants_matrices() { vec![DType::F16] } else { vec![DType::F32, DType::Bf16] };
        for dtype in dtypes {
            let plain = Problem::forward(tokens, k, n, rank)
                .with_dtype(dtype)
                .with_scale(0.75)
                .with_bias(at == 1)
                .with_beta(if at == 2 { 0.5 } else { 0.0 });
            let problem = plain.with_gain(true);
            let (case, of_plain) =
                (Case::new(problem, Fill::Uniform, 5), Case::new(plain, Fill::Uniform, 5));
            let (mut before, before_plain) = (case.aligned_buffers(), of_plain.aligned_buffers());
            before.at_mut(Operand::Gain).fill(|_, _| 1.0);
            for operand in [Operand::X, Operand::W] {
                let of = before_plain.at(operand).dense();
                assert_eq!(
                    before.at(operand).dense(),
                    of,
                    "two cases that differ in the gain alone"
                );
            }
            harness.each(&problem, Some(at as u64), |executor, plan| {
                let same = Plan::choose(&plain, plan.capabilities(), &plan.choice());
                let Ok(without) = same else { return };
                let y = launch(executor, plan, &before, &case);
                let want = launch(executor, &without, &before_plain, &of_plain);
                let [y, want] = [&y, &want].map(|of| of.at(Operand::Y).dense());
                assert_eq!(y, want, "{}", plan.explain());
            });
        }
    }
    harness.report();
}

/// A case of DoRA as PEFT computed it, in f64.
struct Peft {
    dtype: DType,
    scale: f32,
    tensors: BTreeMap<String, Dense>,
}

impl Peft {
    fn read(name: &str) -> Peft {
        let path = Path::new("tests/golden/family").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let scale: f64 = metadata.metadata().as_ref().unwrap()["scale"].parse().unwrap();
        let tensors = file.iter().map(|(name, of)| (name.to_owned(), dense(&of))).collect();
        let dtype = if name.contains("bf16") { DType::Bf16 } else { DType::F32 };
        Peft { dtype, scale: scale as f32, tensors }
    }

    fn of(&self, name: &str) -> &Dense {
        &self.tensors[name]
    }
}

fn on(device: &Device, of: &Dense, dtype: DType) -> Tensor {
    let values: Vec<f32> = of.values().iter().map(|of| *of as f32).collect();
    device.tensor(of.rows(), of.cols(), dtype, &values).unwrap()
}

/// Relative error, in the Frobenius norm.
fn distance(got: &Tensor, want: &Dense) -> f64 {
    let pairs = || got.to_f32().unwrap().into_iter().map(f64::from).zip(want.values());
    let error: f64 = pairs().map(|(got, want)| (got - want).powi(2)).sum();
    (error / want.values().iter().map(|of| of * of).sum::<f64>()).sqrt()
}

/// A training step as PEFT takes one, the norm detached: the gain, y, and every gradient.
#[test]
fn a_step_of_dora_is_what_peft_computes() {
    for (name, most) in [("dora_linear_f32", 2e-6), ("dora_linear_bf16_af32", 4e-3)] {
        let peft = Peft::read(name);
        for device in devices() {
            let of = |name: &str, dtype| on(&device, peft.of(name), dtype);
            let [x, w, bias, dy] = ["x", "w", "bias", "dy"].map(|name| of(name, peft.dtype));
            let [a, b, m] = ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]
                .map(|name| of(name, DType::F32));
            let (tokens, k, n, r) = (x.rows(), x.cols(), w.rows(), a.rows());
            let zeros = |rows, cols, dtype| device.zeros(rows, cols, dtype).unwrap();
            let (mut gain, mut dm) = (zeros(1, n, DType::F32), zeros(1, n, DType::F32));
            let (mut y, mut scaled) = (zeros(tokens, n, peft.dtype), zeros(tokens, n, peft.dtype));
            let mut dx = zeros(tokens, k, peft.dtype);
            let (mut da, mut db) = (zeros(r, k, DType::F32), zeros(n, r, DType::F32));

            device.norm(Norm::new(&w, &m, &mut gain).adapter(&a, &b).scale(peft.scale)).unwrap();
            let forward = Forward::new(&x, &w, &mut y).bias(&bias).gain(&gain).adapter(&a, &b);
            device.forward(forward.scale(peft.scale)).unwrap();
            let before = BackwardGain::new([&dy, &y], [&gain, &m], &mut scaled, &mut dm);
            device.backward_gain(before.bias(&bias)).unwrap();
            let backward = Backward::new(&x, &w, &scaled).adapter(&a, &b).scale(peft.scale);
            device.backward(backward.dx(&mut dx).da(&mut da).db(&mut db)).unwrap();

            for (what, got) in [
                ("y", &y),
                ("dx", &dx),
                ("d_lora_A.weight", &da),
                ("d_lora_B.weight", &db),
                ("d_lora_magnitude_vector", &dm),
            ] {
                let far = distance(got, peft.of(&format!("{what}_f64")));
                println!("  {} {name} {what} {far:.1e}", device.name());
                assert!(far <= most, "{} {name}: {what} is {far} away", device.name());
            }
        }
    }
}

/// Every type, either major, ragged, with an adapter and without, on every executor.
#[test]
fn magnitudes_match_the_reference() {
    let mut harness = Harness::new("gains of magnitudes");
    let mut usage = Usage::default();
    for seed in 0..240 {
        let mut rng = StdRng::seed_from_u64(seed);
        let problem = draw_gain(&mut rng);
        let fill = [Fill::Uniform, Fill::Uniform, Fill::Outliers][rng.random_range(0..3)];
        // Sums of integers come out exactly, and so does what is divided by one.
        let exact = problem.operation() == Operation::BackwardGain && seed % 2 == 0;
        let case = Case::new(problem, if exact { Fill::Integers } else { fill }, seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, Some(seed), |executor, plan| {
            let after = launch(executor, plan, &before, &case);
            let expected = reference.of(executor.sums(plan.problem()));
            match exact && problem.beta().fract() == 0.0 {
                true => assert_exact(plan, &after, expected, &case),
                false => usage.check(plan, &after, expected, &case),
            }
        });
    }
    harness.finish();
}

/// What is missing of a norm, or of a gradient, exceeds the tolerance.
#[test]
fn what_is_missing_of_a_magnitude_exceeds_the_tolerance() {
    let mut harness = Harness::new("mistakes in magnitudes");
    let zero_last = |buffers: &mut Buffers, operand: Operand, row: bool| {
        let Some(stored) = buffers.stored.iter_mut().find(|of| of.operand == operand) else {
            return;
        };
        let (rows, cols) = (stored.spec.rows, stored.spec.cols);
        match row {
            true => (0..cols).for_each(|col| stored.set(rows - 1, col, 0.0)),
            false => (0..rows).for_each(|row| stored.set(row, cols - 1, 0.0)),
        }
    };
    for (operation, operand, row) in [
        (Operation::Norm, Operand::W, false),
        (Operation::Norm, Operand::A, true),
        (Operation::BackwardGain, Operand::Dy, true),
        (Operation::BackwardGain, Operand::Bias, true),
    ] {
        let problem = Problem::new(operation, 48, 300, 40, 8).with_bias(true).with_scale(2.0);
        let case = Case::new(problem, Fill::Uniform, 7);
        let right = case.buffers();
        let mut reference = Reference::new(&problem, &right);
        let mut wrong = right.clone();
        zero_last(&mut wrong, operand, row);
        harness.each(&problem, None, |executor, plan| {
            let after = launch(executor, plan, &wrong, &case);
            let parts = reference
                .of(executor.sums(&problem))
                .iter()
                .map(|(out, of)| largest_part(&problem, &after, *out, of));
            let most = parts.fold(0.0, f64::max);
            assert!(most > 1.0, "{operation} without the last of {operand} uses {most}");
        });
    }
    harness.report();
}

/// The norm of a row by definition of ΔW, of every method; and DoRA whose magnitudes are the norms is the layer itself.
#[test]
fn norms_are_those_of_the_definition() {
    let (k, n, r, scale) = (24, 20, 3, 0.75f32);
    let methods = [Method::Lora, Method::Loha, Method::Lokr(Kronecker::new(4, 3))];
    for (device, method) in devices().iter().flat_map(|of| methods.map(|method| (of, method))) {
        let mut random = StdRng::seed_from_u64(17);
        let mut draw = |rows: usize, cols: usize| {
            let value = |_| f64::from(random.random_range(-1.0f32..1.0));
            Dense::new(rows, cols, (0..rows * cols).map(value).collect())
        };
        let w = draw(n, k);
        let factors = match method {
            Method::Lora => vec![draw(r, k), draw(n, r)],
            Method::Loha => vec![draw(n, r), draw(r, k), draw(n, r), draw(r, k)],
            _ => vec![draw(4, 3), draw(n / 4, r), draw(r, k / 3)],
        };
        let delta = match method {
            Method::Lora => factors[1].times_transposed(&factors[0].transposed()),
            _ => {
                let problem = Problem::new(Operation::Compose, 0, k, n, r).with_method(method);
                delta_w(&problem, |operand| {
                    use Operand::*;
                    let names: &[Operand] = match method {
                        Method::Loha => &[W1a, W1b, W2a, W2b],
                        _ => &[W1, W2a, W2b],
                    };
                    let at = names.iter().position(|of| *of == operand).unwrap();
                    factors[at].clone()
                })
            }
        };
        let norms = Dense::from_fn(1, n, |_, row| {
            let element = |col| w.at(row, col) + f64::from(scale) * delta.at(row, col);
            (0..k).map(|col| element(col).powi(2)).sum::<f64>().sqrt()
        });
        let of: Vec<Tensor> = factors.iter().map(|of| on(device, of, DType::F32)).collect();
        let (of_w, magnitude) = (on(device, &w, DType::F32), on(device, &norms, DType::F32));
        let mut gain = device.zeros(1, n, DType::F32).unwrap();
        let norm = Norm::new(&of_w, &magnitude, &mut gain).scale(scale);
        device
            .norm(match method {
                Method::Lora => norm.adapter(&of[0], &of[1]),
                Method::Loha => norm.loha(&of[0], &of[1], &of[2], &of[3]),
                _ => norm.lokr(Factor::whole(&of[0]), Factor::low(&of[1], &of[2])),
            })
            .unwrap();
        for (row, got) in gain.to_f32().unwrap().into_iter().enumerate() {
            let off = (f64::from(got) - 1.0).abs();
            assert!(off < 2e-6, "{} {method:?}: row {row} is {off} off", device.name());
        }
    }
}

#[test]
fn a_nan_stays_in_its_column_and_what_does_not_fit_is_refused() {
    for device in devices() {
        let (tokens, k, n) = (5, 12, 20);
        let tensor = |rows, cols, values: &[f32]| device.tensor(rows, cols, DType::F32, values);
        let values: Vec<f32> = (0..240).map(|at| (at % 7) as f32 - 3.0).collect();
        let (x, w) = (tensor(tokens, k, &values[..60]).unwrap(), tensor(n, k, &values).unwrap());
        let run = |of: &[f32]| {
            let gain = tensor(1, n, of).unwrap();
            let mut y = device.zeros(tokens, n, DType::F32).unwrap();
            device.forward(Forward::new(&x, &w, &mut y).gain(&gain)).unwrap();
            y.to_f32().unwrap()
        };
        let mut gain = vec![2.0; n];
        let right = run(&gain);
        gain[3] = f32::NAN;
        for (at, (got, want)) in run(&gain).into_iter().zip(right).enumerate() {
            let in_it = at % n == 3;
            assert!(if in_it { got.is_nan() } else { got == want }, "{}: {at}", device.name());
        }
        let refused = |gain| {
            let mut y = tensor(tokens, n, &[7.0; 100]).unwrap();
            let error = device.forward(Forward::new(&x, &w, &mut y).gain(gain));
            let error = error.expect_err("what does not fit");
            assert!(y.to_f32().unwrap().iter().all(|of| *of == 7.0), "{error}");
            error.cause().clone()
        };
        let long = device.zeros(1, n + 1, DType::F32).unwrap();
        assert_eq!(
            refused(&long),
            Error::Shape { operand: Operand::Gain, expected: [1, n], got: [1, n + 1] }
        );
        let halves = device.zeros(1, n, DType::Bf16).unwrap();
        let (expected, got) = (DType::F32, DType::Bf16);
        assert_eq!(refused(&halves), Error::DType { operand: Operand::Gain, expected, got });
    }
}

/// On the CPU, which looks, nothing has been written; elsewhere the gain of that row alone is none.
#[test]
fn a_magnitude_of_zero_or_nan_is_refused_or_stays_in_its_row() {
    for device in devices() {
        let (k, n) = (12, 9);
        let w = device.tensor(n, k, DType::F32, &[0.5; 108]).unwrap();
        for bad in [0.0, f32::NAN, f32::INFINITY] {
            let mut values = vec![1.0; n];
            values[4] = bad;
            let magnitude = device.tensor(1, n, DType::F32, &values).unwrap();
            let mut gain = device.tensor(1, n, DType::F32, &[7.0; 9]).unwrap();
            let result = device.norm(Norm::new(&w, &magnitude, &mut gain));
            let gain = gain.to_f32().unwrap();
            if device.name() == "cpu" {
                let error = result.expect_err("a magnitude that is none");
                let of = Operand::Magnitude;
                let named =
                    matches!(error.cause(), Error::Value { operand, at: 4, .. } if *operand == of);
                assert!(named, "{error}");
                assert!(gain.iter().all(|of| *of == 7.0), "{error}");
            } else {
                result.unwrap();
                let right = 1.0 / 3.0f32.sqrt();
                let near = |of: f32| (of - right).abs() < 1e-6;
                assert!((0..n).all(|row| (row == 4) != near(gain[row])), "{} {bad}", device.name());
            }
        }
        let long = device.tensor(1, n + 1, DType::F32, &[1.0; 10]).unwrap();
        let mut gain = device.tensor(1, n, DType::F32, &[7.0; 9]).unwrap();
        let error = device.norm(Norm::new(&w, &long, &mut gain)).expect_err("another shape");
        let (operand, expected, got) = (Operand::Magnitude, [1, n], [1, n + 1]);
        assert_eq!(*error.cause(), Error::Shape { operand, expected, got });
        assert!(gain.to_f32().unwrap().iter().all(|of| *of == 7.0), "{error}");
    }
}
