//! What does not fit is an error that says what was expected and what came; nothing panics.

use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module};
use fused_lora_candle::{Adapter, LoraConfig, LoraLinear};

use crate::case::{CPU, Case};

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &CPU).unwrap()
}

fn says<T>(of: candle_core::Result<T>, words: &[&str]) {
    let error = of.err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "expected `{word}` in: {error}");
    }
}

#[test]
fn inputs_that_do_not_fit() {
    let layer = Case::f32(&[3], 12, 6, 2).tensors(1).layer();
    says(layer.forward(&zeros(&[3, 11], DType::F32)), &["x", "12", "11"]);
    says(layer.forward(&zeros(&[3, 12], DType::BF16)), &["x", "F32", "BF16"]);
    says(layer.forward(&zeros(&[], DType::F32)), &["x", "12"]);
    let wide = LoraLinear::frozen(Linear::new(zeros(&[6, 12], DType::F64), None)).unwrap();
    says(wide.forward(&zeros(&[3, 12], DType::F64)), &["f32, f16 or bf16", "F64"]);
}

#[test]
fn layers_that_do_not_fit() {
    let w = || zeros(&[6, 12], DType::F32);
    says(LoraLinear::frozen(Linear::new(zeros(&[6], DType::F32), None)), &["rank"]);
    let bias = Some(zeros(&[5], DType::F32));
    says(LoraLinear::frozen(Linear::new(w(), bias)), &["bias", "6", "5"]);
    says(LoraLinear::new(Linear::new(w(), None), 0, 1.0), &["no rank in common"]);
    let mut layer = LoraLinear::frozen(Linear::new(w(), None)).unwrap();
    let init = |features, dtype| Adapter::init(features, LoraConfig::new(2, 1.0), dtype, &CPU);
    says(layer.insert("it", init([11, 6], DType::F32).unwrap()), &["`it`", "12 to 6", "11 to 6"]);
    says(layer.insert("it", init([12, 6], DType::BF16).unwrap()), &["`it`", "F32", "BF16"]);
    says(layer.activate(Some("it")), &["`it`"]);
    says(layer.merge(), &["no adapter"]);
    let (a, b) = (zeros(&[2, 12], DType::F32), zeros(&[6, 3], DType::F32));
    says(Adapter::new(a.clone(), b, 1.0), &["[2, 12]", "[6, 3]"]);
    says(Adapter::new(a.clone(), zeros(&[6, 2], DType::F16), 1.0), &["F32", "F16"]);
    let adapter = Adapter::new(a, zeros(&[6, 2], DType::F32), f32::NAN).unwrap();
    let layer = layer.with_adapter("it", adapter).unwrap();
    says(layer.forward(&zeros(&[3, 12], DType::F32)), &["scale"]);
}
