//! Operands as candle's views make them: transposed, narrowed, broadcast. That none of the served ones is
//! copied stands in `src/store.rs`.

use candle_core::{DType, Tensor};
use candle_nn::Linear;
use fused_lora_candle::{Adapter, LoraLinear};

use crate::case::{Case, Tensors, check};

/// Gives the same values, as they lie in another tensor.
type View = fn(&Tensor) -> Tensor;

/// `of` in the middle of a larger tensor of NaN.
fn narrowed(of: &Tensor) -> Tensor {
    let mut padded = of.clone();
    for (dim, &size) in of.dims().iter().enumerate() {
        let mut shape = padded.dims().to_vec();
        shape[dim] = 1;
        let nan = Tensor::full(f32::NAN, shape, of.device()).unwrap().to_dtype(of.dtype()).unwrap();
        padded = Tensor::cat(&[&nan, &padded, &nan], dim).unwrap();
        assert_eq!(padded.dims()[dim], size + 2);
    }
    for (dim, &size) in of.dims().iter().enumerate() {
        padded = padded.narrow(dim, 1, size).unwrap();
    }
    padded
}

/// The same values, stored with the last two dimensions exchanged.
fn transposed(of: &Tensor) -> Tensor {
    let (one, other) = (of.rank() - 2, of.rank() - 1);
    of.transpose(one, other).unwrap().force_contiguous().unwrap().transpose(one, other).unwrap()
}

/// The same values, stored with the first two dimensions exchanged.
fn permuted(of: &Tensor) -> Tensor {
    of.transpose(0, 1).unwrap().force_contiguous().unwrap().transpose(0, 1).unwrap()
}

/// The same columns only narrowed: rows keep one stride.
fn sliced(of: &Tensor) -> Tensor {
    let last = of.rank() - 1;
    let wide = Tensor::cat(&[of, of], last).unwrap();
    wide.narrow(last, 0, of.dims()[last]).unwrap()
}

#[test]
fn inputs_may_lie_in_any_order() {
    for (dtype, adapter) in [(DType::F32, DType::F32), (DType::BF16, DType::F32)] {
        let views: [(&str, View); 4] = [
            ("sliced", sliced),
            ("narrowed", narrowed),
            ("transposed", transposed),
            ("permuted", permuted),
        ];
        for (name, view) in views {
            let tensors = Case::f32(&[3, 4], 20, 28, 5).of(dtype, adapter).tensors(3);
            let bounds = tensors.bounds();
            let tensors = Tensors { x: view(&tensors.x), ..tensors };
            let layer = tensors.layer();
            // `Var` would copy it: forward over the view itself.
            let y = layer.infer(&tensors.x).unwrap();
            let [_, dx, da, db] = tensors.fused(&layer);
            check(&[y, dx, da, db], &bounds, &format!("{name} {dtype:?}"));
            let y = candle_nn::Module::forward(&layer, &tensors.x).unwrap();
            let gradients = crate::case::weighted(&y, &tensors.dy).backward().unwrap();
            let vars = layer.vars().unwrap();
            let [_, dx, _, _] = tensors.fused(&layer);
            let of = |at: usize| gradients.get(&vars[at]).unwrap().clone();
            check(&[y, dx, of(0), of(1)], &bounds, &format!("{name} {dtype:?}, the view itself"));
        }
    }
}

#[test]
fn one_row_may_stand_for_many() {
    let tensors = Case::f32(&[6], 20, 28, 5).tensors(3);
    let row = tensors.x.narrow(0, 2, 1).unwrap().broadcast_as((6, 20)).unwrap();
    let tensors = Tensors { x: row, ..tensors };
    let y = tensors.layer().infer(&tensors.x).unwrap();
    let whole = Tensors { x: tensors.x.force_contiguous().unwrap(), ..tensors.clone() };
    let [_, dx, da, db] = whole.fused(&whole.layer());
    check(&[y, dx, da, db], &whole.bounds(), "broadcast");
}

#[test]
fn weights_and_factors_may_lie_in_any_order() {
    let views: [View; 3] = [narrowed, transposed, sliced];
    for (dtype, adapter) in [(DType::F32, DType::F32), (DType::F16, DType::F32)] {
        for of_w in views {
            for of_factors in views {
                let tensors = Case::f32(&[5], 33, 18, 7).of(dtype, adapter).tensors(9);
                let bounds = tensors.bounds();
                let [a, b] = [&tensors.a, &tensors.b].map(of_factors);
                let frozen = Adapter::new(a.clone(), b.clone(), tensors.scale).unwrap();
                let w = of_w(&tensors.w);
                let bias = tensors.bias.as_ref().map(narrowed);
                let layer = LoraLinear::frozen(Linear::new(w, bias)).unwrap();
                let layer = layer.with_adapter("views", frozen.clone()).unwrap();
                let y = layer.infer(&tensors.x).unwrap();
                let trained = frozen.trainable().unwrap();
                let layer = layer.with_adapter("trained", trained).unwrap();
                let [again, dx, da, db] = tensors.fused(&layer);
                check(&[y, dx, da, db], &bounds, "views of w, a and b");
                assert!(crate::case::apart(&again, &bounds[0].exact) < 1e-3);
            }
        }
    }
}
