//! The calls on LoKr with a whole w2: forward, backward with each gradient, merge and norm against the definition; what is
//! the same as another layer; all of a small adapter arrives; LyCORIS' own step; what is refused. Part of `kronecker`.

use std::path::Path;

use fused_lora::reference::{Dense, gradients_of_delta_w};
use fused_lora::{
    Adapter, Backward, DType, Device, Error, Factor, Forward, Merge, Norm, Operand, Operation,
    Problem, Tensor,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;

use super::super::golden;
use super::{devices, lokr};

const SCALE: f32 = 0.75;

/// A layer on a device, with both factors and numbers that are drawn.
struct Layer {
    device: Device,
    tensors: Vec<(Operand, Tensor)>,
}

/// Tokens, features, shape of w1, rank of a w1 of two factors or 0, types of the layer and of the factors.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    k: usize,
    n: usize,
    w1: [usize; 2],
    rank: usize,
    activation: DType,
    factors: DType,
}

impl Layer {
    fn new(device: &Device, of: Sizes, mut value: impl FnMut() -> f32) -> Layer {
        let ([a, b], wide) = (of.w1, DType::F32);
        let (narrow, factors) = (of.activation, of.factors);
        let mut all = vec![
            (Operand::X, [of.tokens, of.k], narrow),
            (Operand::W, [of.n, of.k], narrow),
            (Operand::Dy, [of.tokens, of.n], narrow),
            (Operand::Magnitude, [1, of.n], wide),
            (Operand::W2, [of.n / a, of.k / b], factors),
        ];
        match of.rank {
            0 => all.push((Operand::W1, [a, b], factors)),
            rank => {
                all.push((Operand::W1a, [a, rank], factors));
                all.push((Operand::W1b, [rank, b], factors));
            }
        }
        let tensors = all.into_iter().map(|(operand, [rows, cols], dtype)| {
            let values: Vec<f32> = (0..rows * cols).map(|_| value()).collect();
            (operand, device.tensor(rows, cols, dtype, &values).unwrap())
        });
        Layer { device: device.clone(), tensors: tensors.collect() }
    }

    fn get(&self, operand: Operand) -> &Tensor {
        &self.tensors.iter().find(|of| of.0 == operand).unwrap().1
    }

    fn has(&self, operand: Operand) -> bool {
        self.tensors.iter().any(|of| of.0 == operand)
    }

    fn dense(&self, operand: Operand) -> Dense {
        dense(self.get(operand))
    }

    fn adapter(&self) -> Adapter<&Tensor> {
        use Operand::{W1, W1a, W1b, W2};
        let w1 = match self.has(W1) {
            true => Factor::whole(self.get(W1)),
            false => Factor::low(self.get(W1a), self.get(W1b)),
        };
        Adapter::lokr(w1, Factor::whole(self.get(W2)))
    }

    /// w1 in f64.
    fn w1(&self) -> Dense {
        match self.has(Operand::W1) {
            true => self.dense(Operand::W1),
            false => {
                let b = self.dense(Operand::W1b).transposed();
                self.dense(Operand::W1a).times_transposed(&b)
            }
        }
    }

    fn filled(&self, like: Operand, dtype: DType, value: f32) -> Tensor {
        let of = self.get(like);
        let (rows, cols) = (of.rows(), of.cols());
        self.device.tensor(rows, cols, dtype, &vec![value; rows * cols]).unwrap()
    }
}

fn dense(tensor: &Tensor) -> Dense {
    let values = tensor.to_f32().unwrap().into_iter().map(f64::from).collect();
    Dense::new(tensor.rows(), tensor.cols(), values)
}

fn add(one: &Dense, other: &Dense) -> Dense {
    Dense::from_fn(one.rows(), one.cols(), |row, col| one.at(row, col) + other.at(row, col))
}

/// w1 ⊗ w2, element by element.
fn kron(w1: &Dense, w2: &Dense) -> Dense {
    let (c, d) = (w2.rows(), w2.cols());
    Dense::from_fn(w1.rows() * c, w1.cols() * d, |row, col| {
        w1.at(row / c, col / d) * w2.at(row % c, col % d)
    })
}

/// Each element within `part` of the largest one, and of its own rounding.
fn assert_close(got: &Dense, want: &Dense, dtype: DType, part: f64, what: &str) {
    assert_eq!((got.rows(), got.cols()), (want.rows(), want.cols()), "{what}");
    let most = want.values().iter().fold(0.0, |most: f64, of| most.max(of.abs()));
    for (got, want) in got.values().iter().zip(want.values()) {
        let tolerance = part * most + 1.01 * dtype.roundoff() * want.abs();
        assert!((got - want).abs() <= tolerance, "{what}: {got} for {want}");
    }
}

/// Operands in, done: forward, backward with β, merge and unmerge, norm; w1 whole and of two factors.
#[test]
fn calls_match_the_definition() {
    use DType::{Bf16, F16, F32};
    let of = |[tokens, k, n]: [usize; 3], w1, rank, activation, factors| Sizes {
        tokens,
        k,
        n,
        w1,
        rank,
        activation,
        factors,
    };
    let all = [
        of([19, 40, 36], [4, 5], 0, F32, F32),
        of([70, 33, 50], [2, 3], 3, F32, F32),
        of([33, 64, 48], [8, 8], 0, Bf16, F32),
        of([5, 30, 42], [6, 2], 2, F16, F16),
        of([40, 24, 24], [3, 4], 2, Bf16, Bf16),
    ];
    for device in devices() {
        for sizes in all {
            let mut random = StdRng::seed_from_u64(5);
            let layer = Layer::new(&device, sizes, || random.random_range(-1.0..1.0));
            let at = format!("{} {sizes:?}", device.name());
            let (x, w, dy) =
                (layer.dense(Operand::X), layer.dense(Operand::W), layer.dense(Operand::Dy));
            let (w1, w2, s) = (layer.w1(), layer.dense(Operand::W2), f64::from(SCALE));
            let whole = add(&w, &kron(&w1, &w2).map(|of| s * of));

            let mut y = layer.filled(Operand::Dy, sizes.activation, f32::NAN);
            let call = Forward::new(layer.get(Operand::X), layer.get(Operand::W), &mut y);
            let call = call.with_adapter(Some(layer.adapter())).scale(SCALE);
            assert_eq!(call.shrunk_shape(), [sizes.tokens, 0], "{at}");
            device.forward(call).expect(&at);
            let want = x.times_transposed(&whole);
            assert_close(&dense(&y), &want, sizes.activation, 1e-5, &format!("{at}: y"));

            let g = dy.transposed().times_transposed(&x.transposed()).map(|of| s * of);
            let problem = Problem::new(Operation::BackwardAdapter, 0, sizes.k, sizes.n, 0)
                .with_method(lokr(sizes.w1));
            let pair = |of: Operand| if of == Operand::W1 { w1.clone() } else { w2.clone() };
            let exact = gradients_of_delta_w(&problem, &g, pair);
            let [dw1, dw2] = [0, 1].map(|at| exact[at].1.clone());
            let mut dx = layer.filled(Operand::X, sizes.activation, f32::NAN);
            let backward =
                Backward::new(layer.get(Operand::X), layer.get(Operand::W), layer.get(Operand::Dy));
            let backward = backward.with_adapter(Some(layer.adapter())).scale(SCALE).beta(-0.5);
            let mut got_w2 = layer.filled(Operand::W2, sizes.factors, 0.25);
            let wide = |dtype| if dtype == F32 { 2e-5 } else { 1e-4 };
            let close = |got: &Tensor, want: &Dense, what: &str| {
                let want = want.map(|of| of - 0.125);
                let what = format!("{at}: {what}");
                assert_close(&dense(got), &want, sizes.factors, wide(sizes.factors), &what);
            };
            if sizes.rank == 0 {
                let mut got_w1 = layer.filled(Operand::W1, sizes.factors, 0.25);
                let call = backward.dx(&mut dx).dw1(&mut got_w1).dw2(&mut got_w2);
                device.backward(call).expect(&at);
                close(&got_w1, &dw1, "dw1");
            } else {
                let mut got_w1a = layer.filled(Operand::W1a, sizes.factors, 0.25);
                let mut got_w1b = layer.filled(Operand::W1b, sizes.factors, 0.25);
                let call = backward.dx(&mut dx).dw1a(&mut got_w1a).dw1b(&mut got_w1b);
                device.backward(call.dw2(&mut got_w2)).expect(&at);
                let (a, b) = (layer.dense(Operand::W1a), layer.dense(Operand::W1b));
                close(&got_w1a, &dw1.times_transposed(&b), "dw1a");
                let turned = dw1.transposed();
                close(&got_w1b, &a.transposed().times_transposed(&turned), "dw1b");
            }
            close(&got_w2, &dw2, "dw2");
            let want = dy.times_transposed(&whole.transposed());
            assert_close(&dense(&dx), &want, sizes.activation, 1e-5, &format!("{at}: dx"));

            let mut merged = layer.get(Operand::W).clone();
            let call = Merge::new(&mut merged).with_adapter(Some(layer.adapter()));
            device.merge(call.scale(SCALE)).expect(&at);
            let what = format!("{at}: merged");
            assert_close(&dense(&merged), &whole, sizes.activation, 1e-6, &what);
            let from = dense(&merged);
            let call = Merge::new(&mut merged).with_adapter(Some(layer.adapter()));
            device.unmerge(call.scale(SCALE)).expect(&at);
            let want = add(&from, &kron(&w1, &w2).map(|of| -s * of));
            let what = format!("{at}: unmerged");
            assert_close(&dense(&merged), &want, sizes.activation, 1e-6, &what);

            let mut gain = layer.filled(Operand::Magnitude, F32, f32::NAN);
            let (w, magnitude) = (layer.get(Operand::W), layer.get(Operand::Magnitude));
            let call = Norm::new(w, magnitude, &mut gain).with_adapter(Some(layer.adapter()));
            device.norm(call.scale(SCALE)).expect(&at);
            let m = layer.dense(Operand::Magnitude);
            let want = Dense::from_fn(1, sizes.n, |_, row| {
                let squares = (0..sizes.k).map(|col| whole.at(row, col).powi(2)).sum::<f64>();
                m.at(0, row) / squares.sqrt()
            });
            assert_close(&dense(&gain), &want, F32, 1e-5, &format!("{at}: gain"));
        }
    }
}

/// Gradients one by one are those of the call for all, and what is not asked for is not touched.
#[test]
fn each_gradient_may_be_asked_for_alone() {
    for device in devices() {
        let sizes = Sizes {
            tokens: 37,
            k: 48,
            n: 40,
            w1: [4, 6],
            rank: 0,
            activation: DType::F32,
            factors: DType::F32,
        };
        let mut random = StdRng::seed_from_u64(6);
        let layer = Layer::new(&device, sizes, || random.random_range(-1.0..1.0));
        let run = |of_w1: bool, of_w2: bool| {
            let mut dw1 = layer.filled(Operand::W1, DType::F32, 0.5);
            let mut dw2 = layer.filled(Operand::W2, DType::F32, 0.5);
            let operands = [Operand::X, Operand::W, Operand::Dy].map(|of| layer.get(of));
            let mut call = Backward::new(operands[0], operands[1], operands[2])
                .with_adapter(Some(layer.adapter()));
            if of_w1 {
                call = call.dw1(&mut dw1);
            }
            if of_w2 {
                call = call.dw2(&mut dw2);
            }
            device.backward(call).unwrap();
            [bits(&dw1), bits(&dw2)]
        };
        let all = run(true, true);
        let untouched = run(false, false);
        assert!(untouched.iter().flatten().all(|of| *of == 0.5f32.to_bits()));
        assert_eq!(run(true, false), [all[0].clone(), untouched[1].clone()]);
        assert_eq!(run(false, true), [untouched[0].clone(), all[1].clone()]);
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Of integers, bit for bit: a w1 of a single one is the layer of w + s·w2; w2 = w2a·w2b is LoKr of low rank.
#[test]
fn it_is_the_same_as_another_layer() {
    for device in devices() {
        for (tokens, k, n) in [(1, 40, 24), (37, 24, 40)] {
            let mut random = StdRng::seed_from_u64(7);
            let mut draw = |rows: usize, cols: usize| {
                let values: Vec<f32> =
                    (0..rows * cols).map(|_| random.random_range(-2..=2) as f32).collect();
                device.tensor(rows, cols, DType::F32, &values).unwrap()
            };
            let (x, w, dy) = (draw(tokens, k), draw(n, k), draw(tokens, n));
            let run = |w: &Tensor, adapter: Option<Adapter<&Tensor>>| {
                let zeros = |rows, cols| device.zeros(rows, cols, DType::F32).unwrap();
                let (mut y, mut dx, mut merged) = (zeros(tokens, n), zeros(tokens, k), w.clone());
                let call = Forward::new(&x, w, &mut y).with_adapter(adapter);
                device.forward(call.scale(0.5)).unwrap();
                let call = Backward::new(&x, w, &dy).with_adapter(adapter).scale(0.5);
                device.backward(call.dx(&mut dx)).unwrap();
                let merge = Merge::new(&mut merged).with_adapter(adapter).scale(0.5);
                device.merge(merge).unwrap();
                [y, dx, merged].map(|of| bits(&of))
            };
            let at = format!("{} {tokens} tokens", device.name());

            let (one, w2) = (device.tensor(1, 1, DType::F32, &[1.0]).unwrap(), draw(n, k));
            let sum: Vec<f32> = w
                .to_f32()
                .unwrap()
                .iter()
                .zip(w2.to_f32().unwrap())
                .map(|(w, w2)| w + 0.5 * w2)
                .collect();
            let sum = device.tensor(n, k, DType::F32, &sum).unwrap();
            let whole = Adapter::lokr(Factor::whole(&one), Factor::whole(&w2));
            assert_eq!(run(&w, Some(whole)), run(&sum, None), "{at}: one ⊗ w2");

            let (w1, w2a, w2b) = (draw(4, 8), draw(n / 4, 2), draw(2, k / 8));
            let product = dense(&w2a).times_transposed(&dense(&w2b).transposed());
            let w2: Vec<f32> = product.values().iter().map(|of| *of as f32).collect();
            let w2 = device.tensor(n / 4, k / 8, DType::F32, &w2).unwrap();
            let whole = Adapter::lokr(Factor::whole(&w1), Factor::whole(&w2));
            let low = Adapter::lokr(Factor::whole(&w1), Factor::low(&w2a, &w2b));
            assert_eq!(run(&w, Some(whole)), run(&w, Some(low)), "{at}: w2a·w2b");
        }
    }
}

/// A small adapter arrives whole: 16 bits, |ΔW| of a thousandth of |w|, both directions.
#[test]
fn all_of_it_arrives() {
    let norm = |of: &Dense| of.values().iter().map(|of| of * of).sum::<f64>().sqrt();
    for device in devices() {
        for activation in [DType::Bf16, DType::F16] {
            let sizes = Sizes {
                tokens: 320,
                k: 64,
                n: 320,
                w1: [4, 4],
                rank: 0,
                activation,
                factors: DType::F32,
            };
            let mut random = StdRng::seed_from_u64(8);
            let layer = Layer::new(&device, sizes, || random.random_range(-1.0..1.0));
            let (x, w, dy) =
                (layer.dense(Operand::X), layer.dense(Operand::W), layer.dense(Operand::Dy));
            let delta = kron(&layer.w1(), &layer.dense(Operand::W2));
            let scale = (1e-3 * norm(&w) / norm(&delta)) as f32;
            let mut y = layer.filled(Operand::Dy, activation, f32::NAN);
            let mut dx = layer.filled(Operand::X, activation, f32::NAN);
            let (x_of, w_of, dy_of) =
                (layer.get(Operand::X), layer.get(Operand::W), layer.get(Operand::Dy));
            let call = Forward::new(x_of, w_of, &mut y).with_adapter(Some(layer.adapter()));
            device.forward(call.scale(scale)).unwrap();
            let call = Backward::new(x_of, w_of, dy_of).with_adapter(Some(layer.adapter()));
            device.backward(call.scale(scale).dx(&mut dx)).unwrap();
            let (wt, delta_t) = (w.transposed(), delta.transposed());
            for (name, got, left, w, delta) in
                [("y", &y, &x, &w, &delta), ("dx", &dx, &dy, &wt, &delta_t)]
            {
                let (base, term) = (left.times_transposed(w), left.times_transposed(delta));
                let got = dense(got);
                let got = got.values().iter().zip(base.values()).map(|(got, base)| got - base);
                let along: f64 = got.zip(term.values()).map(|(got, term)| got * term).sum();
                let share = along / (f64::from(scale) * norm(&term).powi(2));
                println!("  {} {activation} {name} {share:.4}", device.name());
                assert!((0.98..1.02).contains(&share), "{} {name}: {share}", device.name());
            }
        }
    }
}

/// With `batch_invariant` a token gets its bits alone and among others.
#[test]
fn a_token_alone_has_its_bits() {
    for device in devices() {
        for dtype in [DType::F32, DType::Bf16] {
            let sizes = Sizes {
                tokens: 90,
                k: 72,
                n: 60,
                w1: [3, 4],
                rank: 0,
                activation: dtype,
                factors: DType::F32,
            };
            let mut random = StdRng::seed_from_u64(12);
            let layer = Layer::new(&device, sizes, || random.random_range(-1.0..1.0));
            let x = layer.get(Operand::X).to_f32().unwrap();
            let run = |first: usize, tokens: usize| {
                let rows = &x[first * sizes.k..(first + tokens) * sizes.k];
                let x = device.tensor(tokens, sizes.k, dtype, rows).unwrap();
                let mut y = device.zeros(tokens, sizes.n, dtype).unwrap();
                let call = Forward::new(&x, layer.get(Operand::W), &mut y);
                let call = call.with_adapter(Some(layer.adapter())).batch_invariant(true);
                device.forward(call).unwrap();
                bits(&y)
            };
            let all = run(0, sizes.tokens);
            for (first, tokens) in [(0, 1), (41, 1), (17, 8), (60, 30)] {
                let want = &all[first * sizes.n..(first + tokens) * sizes.n];
                assert_eq!(run(first, tokens), want, "{} {first} {tokens}", device.name());
            }
        }
    }
}

/// What no layer has: the error names it, and nothing has been written.
#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let zeros = |rows, cols| device.zeros(rows, cols, DType::F32).unwrap();
        let (x, w, dy) = (zeros(5, 12), zeros(20, 12), zeros(5, 20));
        let refused = |w1: Factor<&Tensor>, w2: &Tensor| {
            let adapter = Adapter::lokr(w1, Factor::whole(w2));
            let seven = |rows, cols| {
                device.tensor(rows, cols, DType::F32, &vec![7.0; rows * cols]).unwrap()
            };
            let (mut y, mut dx) = (seven(5, 20), seven(5, 12));
            let call = Forward::new(&x, &w, &mut y).with_adapter(Some(adapter));
            let forward = device.forward(call).expect_err("what does not fit").cause().clone();
            let call = Backward::new(&x, &w, &dy).with_adapter(Some(adapter)).dx(&mut dx);
            let backward = device.backward(call).expect_err("what does not fit").cause().clone();
            let untouched =
                [y, dx].iter().all(|of| of.to_f32().unwrap().iter().all(|of| *of == 7.0));
            assert!(untouched, "{forward} {backward}");
            let name = |error: &Error| match error {
                Error::Factor { operand, .. } | Error::Shape { operand, .. } => *operand,
                other => panic!("{other}"),
            };
            assert_eq!(name(&forward), name(&backward), "{forward} {backward}");
            name(&forward)
        };
        // Rows and columns of w1 that do not divide w's, and a w2 of another layer.
        for w1 in [zeros(3, 3), zeros(4, 5), zeros(0, 3), zeros(40, 3)] {
            assert_eq!(refused(Factor::whole(&w1), &zeros(5, 4)), Operand::W1);
        }
        let w1 = zeros(4, 3);
        for w2 in [zeros(4, 4), zeros(5, 3), zeros(20, 12)] {
            assert_eq!(refused(Factor::whole(&w1), &w2), Operand::W2);
        }
        let (w1a, w1b) = (zeros(4, 2), zeros(2, 3));
        assert_eq!(refused(Factor::low(&w1a, &w1b), &zeros(5, 3)), Operand::W2);
        assert_eq!(refused(Factor::low(&w1a, &zeros(1, 3)), &zeros(5, 4)), Operand::W1a);
        assert_eq!(refused(Factor::low(&zeros(3, 2), &w1b), &zeros(5, 4)), Operand::W1);

        // Gradients of another method.
        let w2 = zeros(5, 4);
        let mut gradient = device.tensor(5, 4, DType::F32, &[7.0; 20]).unwrap();
        let adapter = Adapter::lokr(Factor::whole(&w1), Factor::whole(&w2));
        let call = || Backward::new(&x, &w, &dy).with_adapter(Some(adapter));
        for (call, operand) in [
            (call().dw2a(&mut gradient.clone()), Operand::Dw2a),
            (call().dw1a(&mut gradient.clone()), Operand::Dw1a),
        ] {
            let error = device.backward(call).expect_err("another method's");
            let found =
                matches!(error.cause(), Error::Unexpected { operand: of } if *of == operand);
            assert!(found, "{error}");
        }
        let (a, b) = (zeros(2, 12), zeros(20, 2));
        let lora = Backward::new(&x, &w, &dy).adapter(&a, &b);
        let error = device.backward(lora.dw2(&mut gradient)).expect_err("another method's");
        assert!(matches!(error.cause(), Error::Unexpected { operand: Operand::Dw2 }), "{error}");
        assert!(gradient.to_f32().unwrap().iter().all(|of| *of == 7.0));
    }
}

/// A training step as LyCORIS and PEFT take one, and as their files have the factors. Of whole factors LyCORIS' scale is 1,
/// PEFT's alpha/r.
#[test]
fn a_step_is_what_lycoris_and_peft_compute() {
    for (name, most) in [
        ("lokr_full_linear_f32", 2e-6),
        ("lokr_full_linear_bf16_af32", 4e-3),
        ("lokr_full_linear_bf16_abf16", 4e-3),
        ("lokr_full_peft_linear_f32", 2e-6),
        ("lokr_full_peft_linear_bf16_af32", 4e-3),
        ("lokr_full_peft_linear_bf16_abf16", 4e-3),
    ] {
        let path = Path::new("tests/golden/family").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().as_ref().unwrap();
        let number = |name: &str| metadata[name].parse::<f32>().unwrap();
        let scale = if name.contains("peft") { number("alpha") / number("rank") } else { 1.0 };
        assert_eq!(scale, number("scale"), "{name}");
        let of = |name: &str| golden::dense(&file.tensor(name).unwrap());
        for device in devices() {
            let on = |name: &str| {
                let values: Vec<f32> = of(name).values().iter().map(|of| *of as f32).collect();
                let dtype = match file.tensor(name).unwrap().dtype() {
                    safetensors::Dtype::F32 => DType::F32,
                    _ => DType::Bf16,
                };
                device.tensor(of(name).rows(), of(name).cols(), dtype, &values).unwrap()
            };
            let [x, w, bias, dy] = ["x", "w", "bias", "dy"].map(on);
            let (w1, w2) = (on("lokr_w1"), on("lokr_w2"));
            let adapter = Adapter::lokr(Factor::whole(&w1), Factor::whole(&w2));
            let like = |of: &Tensor| device.zeros(of.rows(), of.cols(), of.dtype()).unwrap();
            let (mut y, mut dx, mut dw1, mut dw2) = (like(&dy), like(&x), like(&w1), like(&w2));
            let call = Forward::new(&x, &w, &mut y).bias(&bias).with_adapter(Some(adapter));
            device.forward(call.scale(scale)).unwrap();
            let call = Backward::new(&x, &w, &dy).with_adapter(Some(adapter)).scale(scale);
            device.backward(call.dx(&mut dx).dw1(&mut dw1).dw2(&mut dw2)).unwrap();
            for (what, got) in [("y", &y), ("dx", &dx), ("d_lokr_w1", &dw1), ("d_lokr_w2", &dw2)] {
                let (got, want) = (dense(got), of(&format!("{what}_f64")));
                let norm = |of: &Dense| of.values().iter().map(|of| of * of).sum::<f64>();
                let error = add(&got, &want.map(|of| -of));
                let far = (norm(&error) / norm(&want)).sqrt();
                println!("  {} {name} {what} {far:.1e}", device.name());
                assert!(far <= most, "{} {name}: {what} is {far} away", device.name());
            }
        }
    }
}
