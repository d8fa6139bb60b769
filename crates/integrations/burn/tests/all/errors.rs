//! What does not fit is an error that says what was expected and what came; nothing panics.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor};
use fused_lora_burn::{LoraAdapter, LoraConfig, LoraLinear, Result};

use crate::case::{Case, devices};

fn zeros<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::zeros(shape, (device, dtype))
}

fn says<T>(of: Result<T>, words: &[&str]) {
    let error = of.err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "expected `{word}` in: {error}");
    }
}

#[test]
fn inputs_that_do_not_fit() {
    for (_, device, types) in devices() {
        let layer = Case::f32([1, 3], 12, 6, 2).values(1).layer(&device);
        says(layer.try_forward(zeros([3, 11], DType::F32, &device)), &["x", "12", "11"]);
        if types.contains(&DType::F16) {
            says(layer.try_forward(zeros([3, 12], DType::F16, &device)), &["x", "F32", "F16"]);
        }
    }
    let all = devices();
    if let [(_, one, _), (_, other, _), ..] = &all[..] {
        let layer = Case::f32([1, 3], 12, 6, 2).values(1).layer(one);
        says(layer.try_forward(zeros([3, 12], DType::F32, other)), &["x is on", "the weight on"]);
    }
}

#[test]
fn layers_that_do_not_fit() {
    for (_, device, types) in devices() {
        let f32 = DType::F32;
        let linear = |bias: Option<usize>| Linear {
            weight: Param::from_tensor(zeros([12, 6], f32, &device)),
            bias: bias.map(|len| Param::from_tensor(zeros([len], f32, &device))),
        };
        says(LoraLinear::frozen(linear(Some(5))), &["bias", "[6]", "[5]"]);
        says(LoraLinear::new(linear(None), LoraConfig::new(0, 1.0)), &["default", "[12, 1]"]);
        let adapter = |[k, r, of_b, n]: [usize; 4], types: [DType; 2], scale| LoraAdapter {
            a: Param::from_tensor(zeros([k, r], types[0], &device)),
            b: Param::from_tensor(zeros([of_b, n], types[1], &device)),
            scale,
        };
        let mut layer = LoraLinear::frozen(linear(None)).unwrap();
        let mut insert = |of| layer.insert("it", of);
        says(insert(adapter([11, 2, 2, 6], [f32; 2], 1.0)), &["`it`.a", "[12, 2]", "[11, 2]"]);
        says(insert(adapter([12, 2, 3, 6], [f32; 2], 1.0)), &["`it`.b", "[2, 6]", "[3, 6]"]);
        says(insert(adapter([12, 2, 2, 6], [f32; 2], f64::NAN)), &["scale", "NaN"]);
        if types.contains(&DType::F16) {
            let of = [f32, DType::F16];
            says(insert(adapter([12, 2, 2, 6], of, 1.0)), &["`it`.b", "F32", "F16"]);
        }
        says(layer.activate(Some("it")), &["`it`"]);
        says(layer.merge(), &["no adapter"]);
    }
}
