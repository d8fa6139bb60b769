//! Layers whose adapter is stored in the factors of LoHa, LoKr or LoCon with a core, against ΔW by its definition (an element-wise or a
//! Kronecker product of dense matrices), never against the a and b that stand between: forward, backward with the
//! gradient of every factor, merge; the tolerance itself. `identity` has what is the same as LoRA, `refused` what no layer has, `taps` the order of
//! columns of a weight on images.

mod identity;
mod refused;
mod taps;

use fused_lora::reference::{
    Dense, Expected, Sums, delta_w, expected, gradients_of_delta_w, shrunk_value,
};
use fused_lora::{
    Access, Adapter, Backward, DType, Device, Factor, Forward, Kronecker, Merge, Method, Operand,
    Operation, Problem, Taps, Tensor,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::{Buffers, Case, Executor, Fill, Harness, Rows, executors, launch};

const SCALE: f32 = 0.75;
const BETA: f32 = -0.5;

/// A layer by its numbers.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    method: Method,
    tokens: usize,
    in_features: usize,
    out_features: usize,
    rank: usize,
    activation: DType,
    /// Of the factors and of their gradients.
    factors: DType,
    precise: bool,
}

impl Sizes {
    fn compose(&self) -> Problem {
        Problem::new(
            Operation::Compose,
            self.tokens,
            self.in_features,
            self.out_features,
            self.rank,
        )
        .with_method(self.method)
        .with_activation(self.activation)
        .with_adapter(self.factors)
        .with_gradient(self.factors)
        .with_precise(self.precise)
        .with_scale(SCALE)
    }

    /// The layer that kernels see.
    fn layer(&self, operation: Operation) -> Problem {
        self.compose().composed().with_operation(operation)
    }

    fn chain(&self) -> Problem {
        self.compose().with_operation(Operation::Chain).with_beta(BETA)
    }
}

/// Both methods, ragged sizes, one token and many, types beside each other, inner ranks up to the largest.
fn all_sizes() -> Vec<Sizes> {
    let lokr = |rows, columns| Method::Lokr(Kronecker::new(rows, columns));
    let low = |rows, columns| Method::Lokr(Kronecker::low(rows, columns));
    let of =
        |method, [tokens, in_features, out_features, rank]: [usize; 4], activation, factors| {
            let precise = false;
            Sizes { method, tokens, in_features, out_features, rank, activation, factors, precise }
        };
    use DType::{Bf16, F16, F32};
    vec![
        of(Method::Loha, [5, 24, 40, 3], F32, F32),
        of(Method::Loha, [33, 17, 35, 4], F16, Bf16),
        Sizes { precise: true, ..of(Method::Loha, [20, 40, 24, 5], Bf16, F32) },
        of(Method::Loha, [1, 72, 56, 8], Bf16, Bf16),
        of(Method::Loha, [70, 33, 130, 2], F32, F16),
        of(lokr(4, 3), [9, 21, 40, 5], F32, F32),
        of(lokr(8, 8), [40, 64, 48, 4], Bf16, F32),
        of(lokr(5, 2), [1, 18, 35, 3], F16, F16),
        of(low(4, 4), [21, 44, 36, 3], F32, F32),
        of(low(6, 2), [17, 32, 54, 2], Bf16, Bf16),
        of(Method::Tucker(Taps::new(9)), [6, 45, 20, 4], F32, F32),
        of(Method::Tucker(Taps::new(4)), [33, 28, 35, 5], F16, Bf16),
        Sizes { precise: true, ..of(Method::Tucker(Taps::new(3)), [20, 24, 40, 3], Bf16, F32) },
        of(Method::Tucker(Taps::new(1)), [1, 72, 56, 8], Bf16, Bf16),
        // Inner ranks beyond those of one block: 1024 and 4096.
        of(Method::Loha, [7, 9, 11, 32], F32, F32),
        of(Method::Loha, [3, 5, 6, 64], Bf16, F32),
    ]
}

/// A layer's operands in memory and on a device.
struct Layer {
    sizes: Sizes,
    device: Device,
    values: Vec<(Operand, Tensor, Dense)>,
}

impl Layer {
    fn new(device: &Device, sizes: Sizes) -> Layer {
        let mut random = StdRng::seed_from_u64(11);
        let mut values = Vec::new();
        let layer = sizes.layer(Operation::Forward).with_bias(true);
        let of_layer = [
            (Operand::X, layer),
            (Operand::W, layer),
            (Operand::Bias, layer),
            (Operand::Dy, sizes.layer(Operation::BackwardInput)),
        ];
        let of_layer = of_layer.map(|(of, problem)| (of, problem.spec(of).unwrap()));
        let factors: Vec<_> =
            sizes.compose().specs().filter(|(_, spec)| spec.access == Access::Read).collect();
        for (operand, spec) in of_layer.into_iter().chain(factors) {
            let len = spec.rows * spec.cols;
            let drawn: Vec<f32> = (0..len).map(|_| random.random_range(-1.0..1.0)).collect();
            let tensor = device.tensor(spec.rows, spec.cols, spec.dtype, &drawn).unwrap();
            let dense = dense(&tensor);
            values.push((operand, tensor, dense));
        }
        Layer { sizes, device: device.clone(), values }
    }

    fn tensor(&self, operand: Operand) -> &Tensor {
        &self.values.iter().find(|of| of.0 == operand).unwrap().1
    }

    fn dense(&self, operand: Operand) -> Dense {
        self.values.iter().find(|of| of.0 == operand).unwrap().2.clone()
    }

    fn adapter(&self) -> Adapter<&Tensor> {
        use Operand::{W1, W1a, W1b, W2a, W2b};
        let of = |operand| self.tensor(operand);
        match self.sizes.method {
            Method::Lokr(Kronecker { low, .. }) => {
                let w1 = if low { Factor::low(of(W1a), of(W1b)) } else { Factor::whole(of(W1)) };
                Adapter::lokr(w1, Factor::low(of(W2a), of(W2b)))
            }
            Method::Tucker(_) => {
                Adapter::tucker(of(Operand::Down), of(Operand::Core), of(Operand::Up))
            }
            _ => Adapter::loha(of(W1a), of(W1b), of(W2a), of(W2b)),
        }
    }

    fn new_tensor(&self, rows: usize, cols: usize, dtype: DType, value: f32) -> Tensor {
        self.device.tensor(rows, cols, dtype, &vec![value; rows * cols]).unwrap()
    }

    /// a and b as they are composed exactly, with what that may lose.
    fn composed(&self) -> [Expected; 2] {
        let all = expected(&self.sizes.compose(), sums(&self.device), |of| self.dense(of));
        let [(_, a), (_, b)] = <[_; 2]>::try_from(all).unwrap();
        [a, b]
    }

    /// ΔW by definition.
    fn delta(&self) -> Dense {
        delta_w(&self.sizes.compose(), |of| self.dense(of))
    }
}

fn dense(tensor: &Tensor) -> Dense {
    let values = tensor.to_f32().unwrap().into_iter().map(f64::from).collect();
    Dense::new(tensor.rows(), tensor.cols(), values)
}

fn sums(device: &Device) -> Sums {
    if device.name().starts_with("cuda") { Sums::TensorCore } else { Sums::F32 }
}

/// Those that a device has time for: one where a kernel takes a second to compile, or a launch as long as here a
/// layer, meets each method with each kind of types.
fn sizes_on(device: &Device) -> Vec<Sizes> {
    let all = all_sizes();
    let executors = executors();
    let of = executors.iter().find(|of| of.name() == device.name());
    match of.is_some_and(|of| of.one_in(Rows::Drawn) > 1) {
        true => [0, 2, 6, 8, 10, 12].map(|at| all[at]).to_vec(),
        false => all,
    }
}

fn devices() -> Vec<Device> {
    let open = |name: &str| Device::open(name).expect("a device that the tests have");
    executors().iter().map(|of| open(of.name())).collect()
}

fn add(one: &Dense, other: &Dense) -> Dense {
    Dense::from_fn(one.rows(), one.cols(), |row, col| one.at(row, col) + other.at(row, col))
}

fn abs(of: &Dense) -> Dense {
    of.map(f64::abs)
}

/// What of a product is lost where its sides may lose so much.
fn lost(x: &Dense, tol_x: &Dense, y: &Dense, tol_y: &Dense) -> Dense {
    let first = add(&abs(x), tol_x).times_transposed(tol_y);
    add(&first, &tol_x.times_transposed(&abs(y)))
}

/// The largest part of its tolerance that an element uses.
fn part(got: &Dense, want: &Dense, tolerance: &Dense) -> f64 {
    assert_eq!((got.rows(), got.cols()), (want.rows(), want.cols()));
    let all = got.values().iter().zip(want.values()).zip(tolerance.values());
    all.fold(0.0, |most: f64, ((got, want), tolerance)| {
        let error = (got - want).abs();
        most.max(if error.is_nan() { f64::INFINITY } else { error / tolerance })
    })
}

/// y or dx, shrunk or dshrunk by definition of ΔW, with their tolerances.
fn linear(layer: &Layer, operation: Operation, delta: &Dense) -> [Expected; 2] {
    let problem = layer.sizes.layer(operation).with_bias(operation == Operation::Forward);
    let [a, b] = layer.composed();
    let of_layer = expected(&problem, sums(&layer.device), |of| match of {
        Operand::A => a.value.clone(),
        Operand::B => b.value.clone(),
        of => layer.dense(of),
    });
    let [(_, mut y), (_, mut shrunk)] = <[_; 2]>::try_from(of_layer).unwrap();
    let (x, w, delta, down, up) = match operation {
        Operation::Forward => {
            (layer.dense(Operand::X), layer.dense(Operand::W), delta.clone(), a, b)
        }
        _ => {
            let turned = |mut of: Expected| {
                of.value = of.value.transposed();
                of.tolerance = of.tolerance.transposed();
                of
            };
            let (w, delta) = (layer.dense(Operand::W).transposed(), delta.transposed());
            (layer.dense(Operand::Dy), w, delta, turned(b), turned(a))
        }
    };
    let (scale, zero) = (f64::from(SCALE), x.map(|_| 0.0));
    let of_down = lost(&x, &zero, &down.value, &down.tolerance).map(|of| scale * of);
    let of_up = lost(&shrunk.value, &of_down, &up.value, &up.tolerance);
    let whole = add(&w, &delta.map(|of| scale * of));
    let mut value = x.times_transposed(&whole);
    if operation == Operation::Forward {
        let bias = layer.dense(Operand::Bias);
        value = Dense::from_fn(value.rows(), value.cols(), |row, col| {
            value.at(row, col) + bias.at(0, col)
        });
    }
    y.value = value;
    y.tolerance = add(&y.tolerance, &of_up);
    shrunk.tolerance = add(&shrunk.tolerance, &of_down);
    [y, shrunk]
}

fn is_gradient(of: Operand) -> bool {
    use Operand::*;
    matches!(of, Dw1 | Dw1a | Dw1b | Dw2a | Dw2b | Ddown | Dcore | Dup)
}

/// The gradients of the factors by definition, each with its tolerance.
fn factor_gradients(layer: &Layer, old: f32) -> Vec<(Operand, Expected)> {
    let (sizes, sums) = (layer.sizes, sums(&layer.device));
    let (x, dy) = (layer.dense(Operand::X), layer.dense(Operand::Dy));
    let delta = layer.delta();
    let [_, shrunk] = linear(layer, Operation::Forward, &delta);
    let [_, dshrunk] = linear(layer, Operation::BackwardInput, &delta);
    // da = dshrunkᵀ·x and db = dyᵀ·shrunk, with what shrunk and dshrunk may have lost.
    let gamma = 2.0 * sums.gamma(sizes.tokens) + 2.0 * DType::F32.roundoff();
    let of = |left: &Expected, right: &Dense| {
        let (value, tolerance) = (left.value.transposed(), left.tolerance.transposed());
        let right = right.transposed();
        let exact = value.times_transposed(&right);
        let sums = abs(&value).times_transposed(&abs(&right)).map(|of| gamma * of);
        (exact, add(&sums, &tolerance.times_transposed(&abs(&right))))
    };
    let (da, lost_a) = of(&dshrunk, &x);
    let (db, lost_b) = of(&shrunk, &dy);
    let (db, lost_b) = (db.transposed(), lost_b.transposed());
    // Through the chain: it is linear, and with absolute values it says what a loss becomes.
    let chained = |[da, db]: [&Dense; 2], absolute: bool| {
        expected(&sizes.chain(), sums, |of| match of {
            Operand::Da => da.clone(),
            Operand::Db => db.clone(),
            of if is_gradient(of) => {
                let spec = sizes.chain().spec(of).unwrap();
                let old = if absolute { 0.0 } else { f64::from(old) };
                Dense::from_fn(spec.rows, spec.cols, |_, _| old)
            }
            of if absolute => abs(&layer.dense(of)),
            of => layer.dense(of),
        })
    };
    let own = chained([&da, &db], false);
    let lost = chained([&lost_a, &lost_b], true);
    let g = dy.transposed().times_transposed(&x.transposed()).map(|of| f64::from(SCALE) * of);
    let by_definition = gradients_of_delta_w(&sizes.compose(), &g, |of| layer.dense(of));
    let named = |of: Operand, all: &[(Operand, Expected)]| {
        all.iter().find(|(operand, _)| *operand == of).unwrap().1.clone()
    };
    let all = by_definition.into_iter().map(|(of, value)| {
        let (mut want, lost) = (named(of, &own), named(of, &lost));
        want.value = value.map(|value| value + f64::from(BETA) * f64::from(old));
        want.tolerance = add(&want.tolerance, &lost.value.map(|of| 1.01 * of));
        (of, want)
    });
    all.collect()
}

/// Every gradient of a factor, by name, all old values alike.
struct Gradients(Vec<(Operand, Tensor)>);

impl Gradients {
    fn new(layer: &Layer, old: f32) -> Gradients {
        let chain = layer.sizes.chain();
        let written = chain.specs().filter(|(_, spec)| spec.access != Access::Read);
        let all =
            written.map(|(of, spec)| (of, layer.new_tensor(spec.rows, spec.cols, spec.dtype, old)));
        Gradients(all.collect())
    }

    /// `backward` with all of them that `wants` names.
    fn wanted_of<'t>(
        &'t mut self,
        mut backward: Backward<&'t Tensor, &'t mut Tensor>,
        wants: impl Fn(Operand) -> bool,
    ) -> Backward<&'t Tensor, &'t mut Tensor> {
        for (of, tensor) in self.0.iter_mut().filter(|(of, _)| wants(*of)) {
            backward = match of {
                Operand::Dw1 => backward.dw1(tensor),
                Operand::Dw1a => backward.dw1a(tensor),
                Operand::Dw1b => backward.dw1b(tensor),
                Operand::Dw2a => backward.dw2a(tensor),
                Operand::Ddown => backward.ddown(tensor),
                Operand::Dcore => backward.dcore(tensor),
                Operand::Dup => backward.dup(tensor),
                _ => backward.dw2b(tensor),
            };
        }
        backward
    }
}

fn forward<'t>(layer: &'t Layer, y: &'t mut Tensor) -> Forward<&'t Tensor, &'t mut Tensor> {
    Forward::new(layer.tensor(Operand::X), layer.tensor(Operand::W), y)
        .bias(layer.tensor(Operand::Bias))
        .with_adapter(Some(layer.adapter()))
        .precise(layer.sizes.precise)
        .scale(SCALE)
}

fn backward(layer: &Layer) -> Backward<&Tensor, &mut Tensor> {
    let [x, w, dy] = [Operand::X, Operand::W, Operand::Dy].map(|of| layer.tensor(of));
    Backward::new(x, w, dy)
        .with_adapter(Some(layer.adapter()))
        .precise(layer.sizes.precise)
        .scale(SCALE)
        .beta(BETA)
}

/// The same layer with the last p (the last row of w1b, w2b, down or core) or the last q taken out of ΔW.
fn without_a_rank(layer: &Layer, of: Operand) -> Dense {
    delta_w(&layer.sizes.compose(), |operand| {
        let dense = layer.dense(operand);
        let last = dense.rows() - 1;
        Dense::from_fn(dense.rows(), dense.cols(), |row, col| {
            if operand == of && row == last { 0.0 } else { dense.at(row, col) }
        })
    })
}

#[test]
fn calls_match_the_definition() {
    let mut most: f64 = 0.0;
    for device in devices() {
        for sizes in sizes_on(&device) {
            let layer = Layer::new(&device, sizes);
            let at = format!("{} {sizes:?}", device.name());
            let Sizes { tokens, in_features, out_features, activation, .. } = sizes;
            let delta = layer.delta();
            let [of_y, of_shrunk] = linear(&layer, Operation::Forward, &delta);
            let [of_dx, _] = linear(&layer, Operation::BackwardInput, &delta);

            let mut y = layer.new_tensor(tokens, out_features, activation, f32::NAN);
            let shape = forward(&layer, &mut y).shrunk_shape();
            let mut shrunk = layer.new_tensor(shape[0], shape[1], activation, f32::NAN);
            device.forward(forward(&layer, &mut y).shrunk(&mut shrunk)).expect(&at);
            let used = part(&dense(&y), &of_y.value, &of_y.tolerance);
            assert!(used <= 1.0, "{at}: y uses {used}");
            most = most.max(used);
            let problem = sizes.layer(Operation::Forward);
            let kept = shrunk_value(&problem, &dense(&shrunk));
            let used = part(&kept, &of_shrunk.value, &of_shrunk.tolerance);
            assert!(used <= 1.0, "{at}: shrunk uses {used}");

            // With shrunk kept, and worked out anew; all gradients, or one side of them.
            for (kept, side) in [(true, "ab"), (false, "b"), (true, "a")] {
                let mut dx = layer.new_tensor(tokens, in_features, activation, f32::NAN);
                let mut gradients = Gradients::new(&layer, 0.25);
                let sides = sizes.chain();
                let wants = |of: Operand| {
                    let of_a = sides.with_gradients(fused_lora::Gradients::A).spec(of).is_some();
                    side.contains(if of_a { 'a' } else { 'b' })
                };
                let mut call = gradients.wanted_of(backward(&layer).dx(&mut dx), wants);
                if kept {
                    call = call.shrunk(&shrunk);
                }
                device.backward(call).expect(&at);
                let used = part(&dense(&dx), &of_dx.value, &of_dx.tolerance);
                assert!(used <= 1.0, "{at}: dx uses {used}");
                for (of, want) in factor_gradients(&layer, 0.25) {
                    let got = &gradients.0.iter().find(|(operand, _)| *operand == of).unwrap().1;
                    if !wants(of) {
                        assert!(got.to_f32().unwrap().iter().all(|old| *old == 0.25), "{at}: {of}");
                        continue;
                    }
                    let used = part(&dense(got), &want.value, &want.tolerance);
                    assert!(used <= 1.0, "{at}: {of} uses {used} of its tolerance");
                    most = most.max(used);
                }
            }

            // A rank of either product less, or the last row, and the tolerance is exceeded.
            for of in [Operand::W1b, Operand::W2b, Operand::Down, Operand::Core] {
                if sizes.compose().spec(of).is_none() || sizes.compose().inner_rank() > 64 {
                    continue;
                }
                let [less, _] = linear(&layer, Operation::Forward, &without_a_rank(&layer, of));
                let used = part(&dense(&y), &less.value, &of_y.tolerance);
                assert!(used > 1.0, "{at}: y without a rank of {of} uses {used}");
            }

            let mut w = layer.tensor(Operand::W).clone();
            let merge = Merge::new(&mut w).with_adapter(Some(layer.adapter())).scale(SCALE);
            device.merge(merge).expect(&at);
            let [a, b] = layer.composed();
            let of_merge = expected(&sizes.layer(Operation::Merge), sums(&device), |of| match of {
                Operand::A => a.value.clone(),
                Operand::B => b.value.clone(),
                of => layer.dense(of),
            });
            let (_, of_w) = &of_merge[0];
            let (a_t, tol_a) = (a.value.transposed(), a.tolerance.transposed());
            let more = lost(&b.value, &b.tolerance, &a_t, &tol_a);
            let want = add(&layer.dense(Operand::W), &delta.map(|of| f64::from(SCALE) * of));
            let used = part(&dense(&w), &want, &add(&of_w.tolerance, &more));
            assert!(used <= 1.0, "{at}: merged w uses {used}");
        }
    }
    assert!(most > 0.01, "at most {most} of a tolerance is used");
}

/// Every strategy and preset: the layer of the inner rank on a and b as they are composed, by definition of ΔW.
#[test]
fn every_candidate_matches_the_definition() {
    let mut harness = Harness::new("candidates on composed factors");
    let cpu = Device::open("cpu").unwrap();
    for sizes in all_sizes() {
        let layer = Layer::new(&cpu, sizes);
        let ab = layer.composed();
        let delta = layer.delta();
        for operation in [Operation::Forward, Operation::BackwardInput] {
            let problem = sizes.layer(operation).with_bias(operation == Operation::Forward);
            let case = Case::new(problem, Fill::Uniform, 1);
            let mut before: Buffers = case.aligned_buffers();
            for operand in [Operand::X, Operand::W, Operand::Bias, Operand::Dy] {
                if problem.spec(operand).is_some() {
                    let dense = layer.dense(operand);
                    before.at_mut(operand).fill(|row, col| dense.at(row, col) as f32);
                }
            }
            for (operand, of) in [(Operand::A, &ab[0]), (Operand::B, &ab[1])] {
                before.at_mut(operand).fill(|row, col| of.value.at(row, col) as f32);
            }
            let [of_y, _] = linear(&layer, operation, &delta);
            let out = if operation == Operation::Forward { Operand::Y } else { Operand::Dx };
            harness.each(&problem, None, |executor: &dyn Executor, plan| {
                let after = launch(executor, plan, &before, &case);
                // What tensor cores may lose beside it: the reference's own, with its sums.
                let of = &test_support::results(&problem, executor.sums(&problem), &before)[0].1;
                let tolerance = add(&of.tolerance, &of_y.tolerance);
                let used = part(&after.at(out).dense(), &of_y.value, &tolerance);
                assert!(used <= 1.0, "{out} uses {used}\n{}", plan.explain());
            });
        }
    }
    harness.report();
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32().unwrap().into_iter().map(f32::to_bits).collect()
}

/// A small adapter arrives whole: 16 bits, |ΔW| of a thousandth of |w|.
#[test]
fn all_of_it_arrives() {
    let norm = |of: &Dense| of.values().iter().map(|of| of * of).sum::<f64>().sqrt();
    for device in devices() {
        for activation in [DType::Bf16, DType::F16] {
            let tucker = Method::Tucker(Taps::new(4));
            for method in [Method::Loha, Method::Lokr(Kronecker::new(4, 4)), tucker] {
                let sizes = Sizes {
                    method,
                    tokens: 320,
                    in_features: 64,
                    out_features: 320,
                    rank: 8,
                    activation,
                    factors: DType::F32,
                    precise: false,
                };
                let layer = Layer::new(&device, sizes);
                let (w, delta) = (layer.dense(Operand::W), layer.delta());
                let scale = (1e-3 * norm(&w) / norm(&delta)) as f32;
                let mut y = layer.new_tensor(320, 320, activation, f32::NAN);
                let call = Forward::new(layer.tensor(Operand::X), layer.tensor(Operand::W), &mut y);
                let call = call.with_adapter(Some(layer.adapter())).scale(scale);
                device.forward(call).unwrap();
                let x = layer.dense(Operand::X);
                let (base, term) = (x.times_transposed(&w), x.times_transposed(&delta));
                let y = dense(&y);
                let got = y.values().iter().zip(base.values()).map(|(y, base)| y - base);
                let along: f64 = got.zip(term.values()).map(|(got, term)| got * term).sum();
                let share = along / (f64::from(scale) * norm(&term).powi(2));
                println!("  {} {} {activation} {share:.4}", device.name(), method_name(method));
                assert!((0.98..1.02).contains(&share), "{}: {share}", device.name());
            }
        }
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Loha => "LoHa",
        Method::Tucker(_) => "LoCon with a core",
        _ => "LoKr",
    }
}

/// The same bits again, whatever kept memory holds from another call.
#[test]
fn calls_give_the_same_bits_again() {
    for device in devices() {
        let run = |sizes: Sizes| {
            let layer = Layer::new(&device, sizes);
            let Sizes { tokens, in_features, out_features, activation, .. } = sizes;
            let mut y = layer.new_tensor(tokens, out_features, activation, f32::NAN);
            let mut dx = layer.new_tensor(tokens, in_features, activation, f32::NAN);
            let mut gradients = Gradients::new(&layer, 0.5);
            device.forward(forward(&layer, &mut y)).unwrap();
            device.backward(gradients.wanted_of(backward(&layer).dx(&mut dx), |_| true)).unwrap();
            let gradients = gradients.0.iter().map(|(_, of)| bits(of));
            [bits(&y), bits(&dx)].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let all = sizes_on(&device);
        let first: Vec<_> = all.iter().map(|of| run(*of)).collect();
        for (sizes, first) in all.iter().zip(first).rev() {
            assert_eq!(run(*sizes), first, "{} {sizes:?}", device.name());
        }
    }
}
