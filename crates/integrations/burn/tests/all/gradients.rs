//! y, dx, da and db against burn's autodiff in f32, and in every type against plain loops in f64.

use burn::tensor::{DType, Tensor};
use fused_lora_burn::LoraLinear;

use crate::case::{Case, RESULTS, Random, apart, devices, tensor, tolerance, values, weighted};

/// Sizes and ranks drawn at random, bindings of one element among them.
fn drawn_cases() -> Vec<Case> {
    let mut random = Random(11);
    let mut cases = vec![
        Case::f32([1, 1], 9, 5, 3),
        Case::f32([1, 1], 1, 1, 1),
        Case::f32([1, 3], 2, 3, 1),
        Case::f32([8, 8], 96, 80, 16),
    ];
    for _ in 0..3 {
        let mut size = |most| random.size(most);
        let case = Case::f32([size(4), size(5)], size(70), size(70), size(20));
        let bias = random.size(2) == 1;
        cases.push(Case { bias, scale: random.within(-2.0, 2.0), ..case });
    }
    cases
}

#[test]
fn f32_is_what_burn_computes() {
    for (name, device, _) in devices() {
        let mut most = 0.0f64;
        for case in drawn_cases() {
            let tensors = case.values(5);
            let got = tensors.fused(&device);
            let expected = tensors.by_ops(&device, DType::F32);
            for ((got, expected), result) in got.iter().zip(&expected).zip(RESULTS) {
                let error = apart(got, expected);
                assert!(error <= 1e-5, "{name}, {case:?}: {result} is {error:.1e} from burn's");
                most = most.max(error);
            }
        }
        println!("{name}: at most {most:.1e} from burn's own autodiff");
    }
}

#[test]
fn every_type_is_as_exact_as_it_can_be() {
    for (name, device, types) in devices() {
        for &dtype in types {
            for adapter in [DType::F32, dtype] {
                let mut most = 0.0f64;
                for case in drawn_cases() {
                    let case = case.of(dtype, adapter);
                    let tensors = case.values(7);
                    let (got, exact) = (tensors.fused(&device), tensors.exact());
                    for (at, (got, exact)) in got.iter().zip(&exact).enumerate() {
                        // What is stored for the adapter may be finer than shrunk, of which it is made.
                        let used = apart(got, exact) / tolerance(dtype);
                        assert!(used <= 1.0, "{name}, {case:?}: {}: {used}", RESULTS[at]);
                        most = most.max(used);
                    }
                }
                println!("{name}, {dtype:?}, adapter {adapter:?}: {most:.2} of the tolerance");
            }
        }
    }
}

/// What nobody asks for is not there, and what somebody does is the same without it.
#[test]
fn gradients_are_formed_where_they_are_wanted() {
    for (name, device, _) in devices() {
        let tensors = Case::f32([3, 4], 20, 28, 5).values(3);
        let device = device.autodiff();
        let all = tensors.fused(&device);
        for wanted in 0..8u32 {
            let wants = |bit: u32| wanted & (1 << bit) != 0;
            let mut adapter = tensors.adapter(&device);
            adapter.a = adapter.a.set_require_grad(wants(1));
            adapter.b = adapter.b.set_require_grad(wants(2));
            let (a, b) = (adapter.a.val(), adapter.b.val());
            let layer = LoraLinear::frozen(tensors.linear(&device)).unwrap();
            let layer = layer.with_adapter("some", adapter).unwrap();
            let x = tensor::<3>(&tensors.x, &device).set_require_grad(wants(0));
            let y = layer.forward(x.clone());
            assert_eq!(values(&y), all[0], "{name}, {wanted}");
            if wanted == 0 {
                assert!(!y.is_require_grad());
                continue;
            }
            let gradients = weighted(&y, &tensor(&tensors.dy, &device)).backward();
            let got = [
                x.grad(&gradients).as_ref().map(values),
                a.grad(&gradients).as_ref().map(values),
                b.grad(&gradients).as_ref().map(values),
            ];
            for (bit, got) in got.into_iter().enumerate() {
                match got {
                    Some(got) => assert!(apart(&got, &all[bit + 1]) <= 1e-6, "{name}, {wanted}"),
                    None => assert!(!wants(bit as u32), "{name}: {bit} of {wanted} is not there"),
                }
            }
        }
    }
}

/// The plain layer is burn's own, and its weight is frozen there too.
#[test]
fn a_layer_without_an_adapter_is_the_plain_layer() {
    for (name, device, _) in devices() {
        let tensors = Case::f32([2, 5], 17, 9, 1).values(2);
        let device = device.autodiff();
        let layer = LoraLinear::frozen(tensors.linear(&device)).unwrap();
        assert!(!layer.weight().is_require_grad(), "{name}");
        let x = tensor::<3>(&tensors.x, &device).require_grad();
        let y = layer.forward(x.clone());
        assert_eq!(values(&y), values(&tensors.linear(&device).forward(x.clone())), "{name}");
        let gradients = weighted(&y, &tensor(&tensors.dy, &device)).backward();
        assert!(x.grad(&gradients).is_some() && layer.weight().grad(&gradients).is_none());
    }
}

/// Two layers one behind the other, one of them twice, and a gradient that arrives broadcast.
#[test]
fn gradients_pass_through_what_lies_around() {
    for (name, device, _) in devices() {
        let device = device.autodiff();
        let one = Case::f32([4, 3], 12, 20, 4).values(1);
        let two = Case::f32([4, 3], 20, 20, 2).values(2);
        let run = |fused: bool| {
            let x = tensor::<3>(&one.x, &device).require_grad();
            let layers = [one.layer(&device), two.layer(&device)];
            let layer = |at: usize, x: Tensor<3>| {
                let (layer, of) = (&layers[at], [&one, &two][at]);
                let (_, adapter) = layer.active().unwrap();
                let (a, b) = (adapter.a.val(), adapter.b.val());
                match fused {
                    true => layer.forward(x),
                    false => crate::case::by_ops(x, layer.weight(), layer.bias(), a, b, of.scale),
                }
            };
            let hidden = layer(0, x.clone());
            let y = layer(1, layer(1, hidden.clone()).tanh()) + hidden;
            let gradients = y.tanh().sum().backward();
            let of_adapter = layers.each_ref().map(|layer| {
                let (_, adapter) = layer.active().unwrap();
                values(&adapter.a.val().grad(&gradients).unwrap())
            });
            [values(&x.grad(&gradients).unwrap())].into_iter().chain(of_adapter).collect::<Vec<_>>()
        };
        for (got, expected) in run(true).iter().zip(run(false)) {
            let error = apart(got, &expected);
            assert!(error <= 1e-4, "{name}: {error:.1e}");
        }
    }
}
