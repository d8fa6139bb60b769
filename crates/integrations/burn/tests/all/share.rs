//! How much of a small adapter's effect reaches y in 16 bits, beside burn's separate ops: `⟨y − y₀, z⟩ / ⟨z, z⟩` with
//! y₀ = x·w and z the adapter's term, exact.

use burn::tensor::{DType, TensorData};

use crate::case::{Case, Values, devices};

fn share(got: &[f64], base: &[f64], term: &[f64]) -> f64 {
    let along: f64 = got.iter().zip(base).zip(term).map(|((got, base), z)| (got - base) * z).sum();
    along / term.iter().map(|z| z * z).sum::<f64>()
}

#[test]
fn all_of_a_small_adapter_arrives() {
    for (name, device, types) in devices() {
        for &dtype in types.iter().filter(|of| **of != DType::F32) {
            let case = Case { bias: false, scale: 1.0, ..Case::f32([1, 96], 128, 128, 16) };
            let of = case.of(dtype, DType::F32).values(12);
            // |s·a·b| = |w| / 1000: of uniform factors √16·(1/√3)² beside 1/√3.
            let size = (1e-3 * 3f64.sqrt() / 4.0) as f32;
            let b: Vec<f32> = of.b.iter::<f32>().map(|of| of * size).collect();
            let of = Values { b: TensorData::new(b, of.b.shape().clone()), ..of };
            let zero = TensorData::zeros::<f32, _>(of.b.shape().clone());
            let [base, _, _, _] = Values { b: zero, ..of.clone() }.exact();
            let [exact, _, _, _] = of.exact();
            let term: Vec<f64> = exact.iter().zip(&base).map(|(all, base)| all - base).collect();
            let [y, _, _, _] = of.fused(&device);
            let fused = share(&y, &base, &term);
            let [y, _, _, _] = of.by_ops(&device, dtype);
            let separate = share(&y, &base, &term);
            println!("{name}, {dtype:?}: {fused:.3}, by separate ops {separate:.3}");
            assert!((0.97..1.03).contains(&fused), "{name}, {dtype:?}: {fused}");
            assert!(dtype != DType::BF16 || separate < 0.9, "{name}: nothing lost: {separate}");
        }
    }
}
