//! A layer with its adapter as eight products written by hand: no tape, and no gradient of the frozen weight. The least
//! that separate calls of candle do. Used by the bench `step` and by both examples.

use candle_core::{Error, Result, Tensor};
use fused_lora_candle::LoraLinear;

/// `y`, and `scale · x·aᵀ`, which [`backward`] reads.
pub fn forward(layer: &LoraLinear, x: &Tensor) -> Result<[Tensor; 2]> {
    let (a, b, scale) = adapter(layer)?;
    let shrunk = (x.matmul(&a.t()?)? * scale)?;
    let y = (x.matmul(&layer.weight().t()?)? + shrunk.matmul(&b.t()?)?)?;
    let y = match layer.bias() {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok([y, shrunk])
}

/// `dx`, `da` and `db`.
pub fn backward(
    layer: &LoraLinear,
    x: &Tensor,
    shrunk: &Tensor,
    dy: &Tensor,
) -> Result<[Tensor; 3]> {
    let (a, b, scale) = adapter(layer)?;
    let dshrunk = (dy.matmul(b)? * scale)?;
    let dx = (dy.matmul(layer.weight())? + dshrunk.matmul(a)?)?;
    Ok([dx, dshrunk.t()?.matmul(x)?, dy.t()?.matmul(shrunk)?])
}

fn adapter(layer: &LoraLinear) -> Result<(&Tensor, &Tensor, f64)> {
    let (_, of) = layer.active().ok_or(Error::msg("a layer without an adapter"))?;
    Ok((of.a(), of.b(), f64::from(of.scale())))
}
