//! Operands as burn's views make them: transposed, narrowed, permuted, broadcast.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor};
use fused_lora_burn::{LoraAdapter, LoraLinear};

use crate::case::{Case, RESULTS, Values, apart, devices, tensor, tolerance};

fn check(got: &[Vec<f64>; 4], exact: &[Vec<f64>; 4], dtype: DType, what: &str) {
    for ((got, exact), result) in got.iter().zip(exact).zip(RESULTS) {
        let used = apart(got, exact) / tolerance(dtype);
        assert!(used <= 1.0, "{what}: {result}: {used}");
    }
}

/// The same values, in the middle of a larger tensor of NaN.
fn narrowed<const D: usize>(of: Tensor<D>) -> Tensor<D> {
    let dims = of.dims();
    let mut padded = of;
    for dim in 0..D {
        let mut shape = padded.dims();
        shape[dim] = 1;
        let nan = Tensor::full(shape, f32::NAN, (&padded.device(), padded.dtype()));
        padded = Tensor::cat(vec![nan.clone(), padded, nan], dim);
    }
    padded.slice(dims.map(|size| 1..size + 1))
}

/// The same values, stored with two dimensions exchanged.
fn stored<const D: usize>(of: Tensor<D>, one: usize, other: usize, on: &Device) -> Tensor<D> {
    let data = of.swap_dims(one, other).into_data();
    tensor::<D>(&data, on).swap_dims(one, other)
}

type View = fn(Tensor<3>, &Device) -> Tensor<3>;

#[test]
fn inputs_may_lie_in_any_order() {
    let views: [(&str, View); 3] = [
        ("narrowed", |of, _| narrowed(of)),
        ("transposed", |of, on| stored(of, 1, 2, on)),
        ("permuted", |of, on| stored(of, 0, 1, on)),
    ];
    for (backend, device, types) in devices() {
        for &dtype in types {
            for (name, view) in views {
                let values = Case::f32([3, 4], 20, 28, 5).of(dtype, DType::F32).values(3);
                let on = device.clone().autodiff();
                let layer = values.layer(&on);
                let x = view(tensor(&values.x, &on), &on).detach().require_grad();
                let got = values.fused_of(&layer, x.clone(), x);
                check(&got, &values.exact(), dtype, &format!("{backend}, {name}, {dtype:?}"));
            }
        }
    }
}

/// One dimension of tokens: a matrix as it lies, with its columns contiguous, which activations may not be.
#[test]
fn columns_of_an_input_may_be_contiguous() {
    for (backend, device, _) in devices() {
        let values = Case::f32([1, 6], 20, 28, 5).values(4);
        let on = device.autodiff();
        let x = stored(tensor::<3>(&values.x, &on), 1, 2, &on).detach().require_grad();
        let got = values.fused_of(&values.layer(&on), x.clone(), x);
        check(&got, &values.exact(), DType::F32, backend);
    }
}

#[test]
fn one_row_may_stand_for_many() {
    for (backend, device, _) in devices() {
        let values = Case::f32([1, 6], 20, 28, 5).values(3);
        let on = device.autodiff();
        let row = tensor::<3>(&values.x, &on).slice([0..1, 2..3, 0..20]).expand([1, 6, 20]);
        let values = Values { x: row.to_data(), ..values };
        let x = row.detach().require_grad();
        let got = values.fused_of(&values.layer(&on), x.clone(), x);
        check(&got, &values.exact(), DType::F32, backend);
    }
}

#[test]
fn weights_and_factors_may_lie_in_any_order() {
    type View = fn(Tensor<2>, &Device) -> Tensor<2>;
    let views: [View; 3] = [|of, _| of, |of, _| narrowed(of), |of, on| stored(of, 0, 1, on)];
    for (backend, device, types) in devices() {
        for &dtype in types {
            for (at, of_w) in views.into_iter().enumerate() {
                for of_factors in [of_w, views[(at + 1) % 3]] {
                    let values = Case::f32([1, 5], 33, 18, 7).of(dtype, DType::F32).values(9);
                    let on = device.clone().autodiff();
                    let param = |of: Tensor<2>| Param::from_tensor(of.detach());
                    let bias = values.bias.as_ref().map(|of| narrowed(tensor::<1>(of, &on)));
                    let weight = param(of_w(tensor(&values.w, &on), &on));
                    let linear = Linear { weight, bias: bias.map(Param::from_tensor) };
                    let [a, b] =
                        [&values.a, &values.b].map(|of| param(of_factors(tensor(of, &on), &on)));
                    let adapter = LoraAdapter { a, b, scale: values.scale };
                    let layer = LoraLinear::frozen(linear).unwrap();
                    let layer = layer.with_adapter("views", adapter).unwrap();
                    let x = tensor::<3>(&values.x, &on).require_grad();
                    let got = values.fused_of(&layer, x.clone(), x);
                    let what = format!("{backend}, {dtype:?}, w in order {at}");
                    check(&got, &values.exact(), dtype, &what);
                }
            }
        }
    }
}
