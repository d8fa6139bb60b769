//! How much of a small adapter's effect reaches y and dx in 16 bits, beside candle's separate ops:
//! `⟨y − y₀, z⟩ / ⟨z, z⟩` with y₀ = x·wᵀ and z the adapter's term, exact.

use candle_core::{DType, Tensor, Var};
use candle_nn::Module;

use crate::case::{Case, Tensors, values, weighted};

fn share(got: &Tensor, base: &Tensor, term: &Tensor) -> f64 {
    let (got, base, term) = (values(got), values(base), values(term));
    let along: f64 =
        got.iter().zip(&base).zip(&term).map(|((got, base), z)| (got - base) * z).sum();
    along / term.iter().map(|z| z * z).sum::<f64>()
}

/// y and dx by separate ops, each of which stores 16 bits. candle's CPU has no product in bf16: it is taken
/// in f32 and rounded, as its GPU kernels do.
fn separate(of: &Tensors) -> [Tensor; 2] {
    let dtype = of.x.dtype();
    let product = |one: &Tensor, other: &Tensor| match dtype {
        DType::F16 => one.matmul(other).unwrap(),
        _ => {
            let [one, other] = [one, other].map(|of| of.to_dtype(DType::F32).unwrap());
            one.matmul(&other).unwrap().to_dtype(dtype).unwrap()
        }
    };
    let [a, b] = [&of.a, &of.b].map(|of| of.to_dtype(dtype).unwrap());
    let layer = |input: &Tensor, w: &Tensor, down: &Tensor, up: &Tensor| {
        let term = (product(&product(input, down), up) * f64::from(of.scale)).unwrap();
        (product(input, w) + term).unwrap()
    };
    let t = |of: &Tensor| of.t().unwrap();
    [layer(&of.x, &t(&of.w), &t(&a), &t(&b)), layer(&of.dy, &of.w, &b, &a)]
}

#[test]
fn all_of_a_small_adapter_arrives() {
    for dtype in [DType::BF16, DType::F16] {
        for adapter in [DType::F32, dtype] {
            let case = Case { bias: false, scale: 1.0, ..Case::f32(&[320], 320, 320, 16) };
            let tensors = case.of(dtype, adapter).tensors(12);
            // |s·b·a| = |w| / 1000: of uniform factors √16·(1/√3)² beside 1/√3.
            let b = (&tensors.b * (1e-3 * 3f64.sqrt() / 4.0)).unwrap();
            let tensors = Tensors { b, ..tensors };
            let layer = tensors.layer();
            let x = Var::from_tensor(&tensors.x).unwrap();
            let y = layer.forward(&x).unwrap();
            let gradients = weighted(&y, &tensors.dy).backward().unwrap();
            let dx = gradients.get(&x).unwrap();

            let wide = |of: &Tensor| of.to_dtype(DType::F64).unwrap();
            let [x, w, a, b, dy] =
                [&tensors.x, &tensors.w, &tensors.a, &tensors.b, &tensors.dy].map(wide);
            let (wt, at, bt) = (w.t().unwrap(), a.t().unwrap(), b.t().unwrap());
            let base = [x.matmul(&wt).unwrap(), dy.matmul(&w).unwrap()];
            let term = [
                x.matmul(&at).unwrap().matmul(&bt).unwrap(),
                dy.matmul(&b).unwrap().matmul(&a).unwrap(),
            ];
            let separate = separate(&tensors);
            for (at, (name, got)) in [("y", &y), ("dx", dx)].into_iter().enumerate() {
                let fused = share(got, &base[at], &term[at]);
                let separate = share(&separate[at], &base[at], &term[at]);
                println!(
                    "{dtype:?}, adapter {adapter:?}: {name} {fused:.3}, separate {separate:.3}"
                );
                assert!((0.98..1.02).contains(&fused), "{dtype:?} {adapter:?} {name}: {fused}");
                if dtype == DType::BF16 {
                    assert!(separate < 0.9, "separate ops in bf16 lost nothing: {separate}");
                }
            }
        }
    }
}
