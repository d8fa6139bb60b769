//! A layer and its inputs drawn at random; what candle's autograd says of them in f64, and how far from that
//! f32 sums and one rounding may lie (the core's `reference` has the formulas). Used by all tests.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::Linear;
use fused_lora_candle::fused_lora::reference::Sums;
use fused_lora_candle::{Adapter, LoraLinear};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const CPU: Device = Device::Cpu;

#[derive(Debug, Clone)]
pub struct Case {
    /// Dimensions of x in front of the last.
    pub front: Vec<usize>,
    pub in_features: usize,
    pub out_features: usize,
    pub rank: usize,
    /// Of x, w, bias and y.
    pub dtype: DType,
    /// Of a and b.
    pub adapter: DType,
    pub bias: bool,
    pub scale: f32,
}

impl Case {
    pub fn f32(front: &[usize], in_features: usize, out_features: usize, rank: usize) -> Case {
        let (dtype, adapter, front) = (DType::F32, DType::F32, front.to_vec());
        Case { front, in_features, out_features, rank, dtype, adapter, bias: true, scale: 0.75 }
    }

    pub fn of(self, dtype: DType, adapter: DType) -> Case {
        Case { dtype, adapter, ..self }
    }

    pub fn tensors(&self, seed: u64) -> Tensors {
        let mut random = StdRng::seed_from_u64(seed);
        let (k, n, r) = (self.in_features, self.out_features, self.rank);
        let mut draw = |shape: &[usize], dtype| drawn(shape, dtype, &mut random).unwrap();
        let with = |last: usize| [&self.front[..], &[last]].concat();
        Tensors {
            x: draw(&with(k), self.dtype),
            w: draw(&[n, k], self.dtype),
            bias: self.bias.then(|| draw(&[n], self.dtype)),
            a: draw(&[r, k], self.adapter),
            b: draw(&[n, r], self.adapter),
            dy: draw(&with(n), self.dtype),
            scale: self.scale,
        }
    }
}

/// Uniform in ±1.
pub fn drawn(shape: &[usize], dtype: DType, random: &mut StdRng) -> Result<Tensor> {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &CPU)?.to_dtype(dtype)
}

#[derive(Debug, Clone)]
pub struct Tensors {
    pub x: Tensor,
    pub w: Tensor,
    pub bias: Option<Tensor>,
    pub a: Tensor,
    pub b: Tensor,
    pub dy: Tensor,
    pub scale: f32,
}

/// An output or gradient, the exact value, and how far apart they may be.
pub struct Bound {
    pub name: &'static str,
    pub exact: Tensor,
    pub tolerance: Tensor,
}

impl Tensors {
    /// Trained.
    pub fn layer(&self) -> LoraLinear {
        let adapter = Adapter::new(self.a.clone(), self.b.clone(), self.scale).unwrap();
        let frozen = LoraLinear::frozen(Linear::new(self.w.clone(), self.bias.clone())).unwrap();
        frozen.with_adapter("trained", adapter.trainable().unwrap()).unwrap()
    }

    /// y, dx, da and db of the layer, for `x` as it lies.
    pub fn fused(&self, layer: &LoraLinear) -> [Tensor; 4] {
        let x = Var::from_tensor(&self.x).unwrap();
        let y = candle_nn::Module::forward(layer, &x).unwrap();
        let gradients = weighted(&y, &self.dy).backward().unwrap();
        let vars = layer.vars().unwrap();
        let of = |var: &Var| gradients.get(var).unwrap().clone();
        [y, of(&x), of(&vars[0]), of(&vars[1])]
    }

    /// The same by candle's own ops, in `dtype`.
    pub fn autograd(&self, dtype: DType) -> [Tensor; 4] {
        let var = |of: &Tensor| Var::from_tensor(&of.to_dtype(dtype).unwrap()).unwrap();
        let [x, a, b] = [&self.x, &self.a, &self.b].map(var);
        let [w, dy] = [&self.w, &self.dy].map(|of| of.to_dtype(dtype).unwrap());
        let bias = self.bias.as_ref().map(|of| of.to_dtype(dtype).unwrap());
        let y = by_ops(&rows(&x), &w, bias.as_ref(), [&a, &b], self.scale).unwrap();
        let y = y.reshape(self.dy.dims()).unwrap();
        let gradients = weighted(&y, &dy).backward().unwrap();
        let of = |var: &Var| gradients.get(var).unwrap().clone();
        [y, of(&x), of(&a), of(&b)]
    }

    /// What the layer may differ by from the exact values: each rounding has its own term, and only sums in
    /// f32 multiply sums of absolute values.
    pub fn bounds(&self) -> [Bound; 4] {
        let wide = |of: &Tensor| of.to_dtype(DType::F64).unwrap();
        let abs = |of: &Tensor| rows(&wide(of)).abs().unwrap();
        let [x, w, a, b, dy] = [&self.x, &self.w, &self.a, &self.b, &self.dy].map(abs);
        let of_dtype = |of: &Tensor| match of.dtype() {
            DType::F32 => fused_lora_candle::fused_lora::DType::F32,
            DType::F16 => fused_lora_candle::fused_lora::DType::F16,
            _ => fused_lora_candle::fused_lora::DType::Bf16,
        };
        let (activation, adapter) = (of_dtype(&self.x), of_dtype(&self.a));
        let (m, k) = x.dims2().unwrap();
        let (n, r) = b.dims2().unwrap();
        let gamma = |len| 2.0 * Sums::F32.gamma(len);
        let scale = f64::from(self.scale.abs());
        let product = |one: &Tensor, other: &Tensor| one.matmul(other).unwrap();
        let times = |of: Tensor, by: f64| (of * by).unwrap();
        let sum = |one: Tensor, other: Tensor| (one + other).unwrap();
        // Bounds of |shrunk| and |dshrunk|, and of what is wrong with them as they are stored.
        let [t, u] = [times(product(&x, &a.t().unwrap()), scale), times(product(&dy, &b), scale)];
        let [eta, eta_g] = [activation.half_subnormal(), adapter.half_subnormal()];
        let wrong =
            |of: &Tensor, len| of.affine(activation.roundoff() * 1.01 + gamma(len), eta).unwrap();
        let [t_wrong, u_wrong] = [wrong(&t, k), wrong(&u, n)];
        let layer = |input: &Tensor, w: &Tensor, up: &Tensor, of: [&Tensor; 2], len| {
            let [kept, wrong] = of;
            let sums = times(product(input, w), gamma(len));
            sum(sums, sum(product(wrong, up), times(product(kept, up), gamma(r))))
        };
        let gradient = |left: [&Tensor; 2], right: &Tensor| {
            let [kept, wrong] = left.map(|of| of.t().unwrap());
            sum(product(&wrong, right), times(product(&kept, right), gamma(m)))
        };
        let bt = b.t().unwrap();
        let mut y = layer(&x, &w.t().unwrap(), &bt, [&t, &t_wrong], k);
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&times(wide(bias).abs().unwrap(), 2f64.powi(-24))).unwrap();
        }
        let dx = layer(&dy, &w, &a, [&u, &u_wrong], n);
        let da = gradient([&u, &u_wrong], &x);
        let db = gradient([&t, &t_wrong], &dy).t().unwrap();
        let stored = [(activation, eta), (activation, eta), (adapter, eta_g), (adapter, eta_g)];
        let names = ["y", "dx", "da", "db"];
        let mut slack = [y, dx, da, db].into_iter();
        let mut exact = self.autograd(DType::F64).into_iter();
        std::array::from_fn(|at| {
            let (exact, slack) = (exact.next().unwrap(), slack.next().unwrap());
            let (dtype, eta) = stored[at];
            let rounding = exact.abs().unwrap().affine(dtype.roundoff() * 1.01, eta).unwrap();
            let tolerance = sum(rounding, slack.reshape(exact.dims()).unwrap());
            Bound { name: names[at], exact, tolerance }
        })
    }
}

/// Checks `got`, and gives the largest part of the tolerance that was used.
pub fn check(got: &[Tensor; 4], bounds: &[Bound; 4], what: &str) -> f64 {
    let mut most = 0.0f64;
    for (got, bound) in got.iter().zip(bounds) {
        assert_eq!(got.dims(), bound.exact.dims(), "{what}: {}", bound.name);
        let [got, exact, tolerance] = [got, &bound.exact, &bound.tolerance].map(values);
        for (at, ((got, exact), tolerance)) in got.iter().zip(&exact).zip(&tolerance).enumerate() {
            let used = (got - exact).abs() / tolerance;
            assert!(used <= 1.0, "{what}: {}[{at}] is {got}, not {exact}: {used}", bound.name);
            most = most.max(used);
        }
    }
    most
}

pub fn values(of: &Tensor) -> Vec<f64> {
    of.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn bits(of: &Tensor) -> Vec<u64> {
    values(of).into_iter().map(f64::to_bits).collect()
}

/// |one − other| / |other|, Frobenius.
pub fn apart(one: &Tensor, other: &Tensor) -> f64 {
    let (one, other) = (values(one), values(other));
    let square = |of: f64| of * of;
    let error: f64 = one.iter().zip(&other).map(|(one, other)| square(one - other)).sum();
    (error / other.iter().map(|&of| square(of)).sum::<f64>()).sqrt()
}

/// All dimensions but the last put together.
pub fn rows(of: &Tensor) -> Tensor {
    let last = *of.dims().last().unwrap();
    of.reshape(((), last)).unwrap()
}

/// `Σ y·dy`, whose gradient with respect to y is dy.
pub fn weighted(y: &Tensor, dy: &Tensor) -> Tensor {
    (y * dy).unwrap().sum_all().unwrap()
}

/// The layer as candle's users write it.
pub fn by_ops(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    [a, b]: [&Tensor; 2],
    scale: f32,
) -> Result<Tensor> {
    let term = (x.matmul(&a.t()?)?.matmul(&b.t()?)? * f64::from(scale))?;
    let base = x.matmul(&w.t()?)?;
    let base = match bias {
        Some(bias) => base.broadcast_add(bias)?,
        None => base,
    };
    base + term
}
