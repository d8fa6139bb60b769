//! Several adapters on one base as one: LoRA's ranks lie side by side. Called by applications that stack adapters, as
//! ComfyUI's loaders do one after another.

use super::factors::Factors;
use super::lora::{MAX_INNER_RANK, scaled};
use super::{Factor, Module, of_module};
use crate::{DType, Result};

/// One LoRA whose ΔW is `Σ weight·scale·ΔW` over `adapters` of one layer, each with its weight (ComfyUI's strength):
///
/// ```text
/// a = [a₁; a₂; …]      b = [f₁·b₁, f₂·b₂, …]      f = weight·scale, the result's scale 1
/// ```
///
/// So one pass of rank r₁ + r₂ + … does what as many adapters would. Exactness: `f` is a product of two f32, formed in
/// f64, where it is exact; `f·b` is rounded to f32 once (2⁻²⁴ of each element, nothing where f is a power of two);
/// `a` keeps its values. Where all f are equal it is the result's scale, and no element changes. The sum over the adapters is then
/// the sum over ranks that the kernels form in f32.
///
/// LoHa, LoKr with a low-rank w2 and LoCon with a core are taken as the LoRA that they are ([`Module::to_lora`]).
///
/// # Errors
/// [`Error::Adapter`](crate::Error::Adapter) for none; for layers of several shapes; for DoRA, whose effect is no sum; for a weight
/// that is not finite; and for more than 4096 ranks.
///
/// ```
/// use fused_lora::DType;
/// use fused_lora::files::{Factor, Module, concat};
///
/// let lora = |rank, scale| {
///     let (a, b) = (vec![1.0; rank * 3], vec![1.0; 4 * rank]);
///     Module::lora(Factor::new(rank, 3, DType::F32, &a)?, Factor::new(4, rank, DType::F32, &b)?, scale)
/// };
/// let both = concat([(&lora(2, 1.0)?, 0.5), (&lora(1, 4.0)?, 1.0)])?;
/// assert_eq!((both.rank(), both.scale), (3, 1.0));
/// # Ok::<(), fused_lora::Error>(())
/// ```
pub fn concat<'a>(adapters: impl IntoIterator<Item = (&'a Module, f32)>) -> Result<Module> {
    let mut loras: Vec<(Factor, Factor, f64)> = Vec::new();
    let mut kernel: Vec<usize> = Vec::new();
    let mut rank = 0usize;
    for (nth, (module, weight)) in adapters.into_iter().enumerate() {
        let of = |reason: String| of_module(format!("adapter {nth}: {reason}"));
        if !weight.is_finite() {
            return Err(of(format!("expected a finite weight, got {weight}")));
        }
        if module.magnitude.is_some() {
            return Err(of("DoRA scales the rows of w + ΔW, so that several do not add up".into()));
        }
        rank = rank.saturating_add(module.inner_rank());
        if rank > MAX_INNER_RANK {
            return Err(of(format!("expected at most {MAX_INNER_RANK} ranks in all, got {rank}")));
        }
        let lora = module.to_lora()?;
        // A flat one does not say that it is a convolution.
        if kernel.is_empty() {
            kernel.clone_from(&lora.kernel);
        } else if !lora.kernel.is_empty() && lora.kernel != kernel {
            return Err(of(format!("expected the kernel {kernel:?}, got {:?}", lora.kernel)));
        }
        let Factors::Lora { a, b, .. } = lora.factors else {
            return Err(of("no LoRA".into()));
        };
        if let Some((first, up, _)) = loras.first()
            && (first.cols(), up.rows()) != (a.cols(), b.rows())
        {
            let expected = format!("[{}, {}]", up.rows(), first.cols());
            return Err(of(format!("expected {expected}, got [{}, {}]", b.rows(), a.cols())));
        }
        loras.push((a, b, f64::from(weight) * f64::from(lora.scale)));
    }
    let Some((first, up, factor)) = loras.first() else {
        return Err(of_module("no adapter to concatenate".into()));
    };
    let (k, n) = (first.cols(), up.rows());
    // As a scale only where f32 holds it.
    let one =
        f64::from(*factor as f32) == *factor && loras.iter().all(|(.., other)| other == factor);
    let scale = if one { *factor as f32 } else { 1.0 };
    let mut down = Vec::with_capacity(rank * k);
    let mut columns = Vec::with_capacity(loras.len());
    for (a, b, factor) in &loras {
        down.extend(a.values());
        columns.push((b.cols(), scaled(b, if one { 1.0 } else { *factor })?.values()));
    }
    let mut all = Vec::with_capacity(n * rank);
    for row in 0..n {
        for (r, b) in &columns {
            all.extend_from_slice(&b[row * r..][..*r]);
        }
    }
    let a = Factor::new(rank, k, DType::F32, &down)?;
    let b = Factor::new(n, rank, DType::F32, &all)?;
    Module::new(Factors::Lora { a, b, core: None }, scale, &kernel)
}
