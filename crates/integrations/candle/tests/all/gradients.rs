//! y, dx, da and db against candle's autograd: in f32 within 1e-5 of what it computes in f32, and in every type
//! within the tolerance around what it computes in f64 of the same operands.

use candle_core::{DType, Tensor, Var};
use candle_nn::{Linear, Module};
use fused_lora_candle::{Adapter, LoraLinear};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::case::{Case, Tensors, apart, bits, check, values, weighted};

/// Each type of activations with each type of adapters beside it.
const TYPES: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::F16, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];

/// Sizes, ranks and dimensions drawn at random, each in each type.
fn drawn_cases() -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(11);
    let mut cases = vec![
        Case::f32(&[], 9, 5, 3),
        Case::f32(&[1], 1, 1, 1),
        Case::f32(&[64], 96, 80, 16),
        Case::f32(&[2, 2, 2, 3], 24, 40, 8),
    ];
    for _ in 0..16 {
        let dims = random.random_range(1..=4);
        let front: Vec<usize> = (0..dims).map(|_| random.random_range(1..=5)).collect();
        let mut size = || random.random_range(1..=70);
        let case = Case::f32(&front, size(), size(), 1);
        let (rank, bias) = (random.random_range(1..=20), random.random_bool(0.5));
        cases.push(Case { rank, bias, scale: random.random_range(-2.0..2.0), ..case });
    }
    cases
}

#[test]
fn f32_is_what_candle_computes() {
    let mut most = 0.0f64;
    for case in drawn_cases() {
        let tensors = case.tensors(5);
        let got = tensors.fused(&tensors.layer());
        let expected = tensors.autograd(DType::F32);
        for ((got, expected), name) in got.iter().zip(&expected).zip(["y", "dx", "da", "db"]) {
            let error = apart(got, expected);
            assert!(error <= 1e-5, "{case:?}: {name} is {error:.1e} from candle's");
            most = most.max(error);
        }
    }
    println!("f32: at most {most:.1e} from candle's own autograd");
}

#[test]
fn every_type_is_within_the_tolerance() {
    for (dtype, adapter) in TYPES {
        let mut most = 0.0f64;
        for case in drawn_cases() {
            let case = case.of(dtype, adapter);
            let tensors = case.tensors(7);
            let got = tensors.fused(&tensors.layer());
            let types = got.each_ref().map(Tensor::dtype);
            assert_eq!(types, [dtype, dtype, adapter, adapter], "{case:?}");
            most = most.max(check(&got, &tensors.bounds(), &format!("{case:?}")));
        }
        println!("{dtype:?}, adapter {adapter:?}: {most:.2} of the tolerance used");
    }
}

/// What nobody asks for is not there, and what somebody does is the same without it.
#[test]
fn gradients_are_formed_where_they_are_wanted() {
    let tensors = Case::f32(&[3, 4], 20, 28, 5).tensors(3);
    let [y, dx, da, db] = tensors.fused(&tensors.layer());
    for wanted in 0..8u32 {
        let wants = |bit: u32| wanted & (1 << bit) != 0;
        let of = |bit, of: &Tensor| match wants(bit) {
            true => Var::from_tensor(of).unwrap().into_inner(),
            false => of.clone(),
        };
        let (x, a, b) = (of(0, &tensors.x), of(1, &tensors.a), of(2, &tensors.b));
        let linear = Linear::new(tensors.w.clone(), tensors.bias.clone());
        let adapter = Adapter::new(a.clone(), b.clone(), tensors.scale).unwrap();
        assert_eq!(adapter.vars().unwrap().len(), usize::from(wants(1)) + usize::from(wants(2)));
        let layer = LoraLinear::frozen(linear).unwrap().with_adapter("some", adapter).unwrap();
        let got = layer.forward(&x).unwrap();
        assert_eq!(got.track_op(), wanted != 0);
        assert_eq!(bits(&got), bits(&y));
        let gradients = weighted(&got, &tensors.dy).backward().unwrap();
        for (bit, tensor, expected) in [(0, &x, &dx), (1, &a, &da), (2, &b, &db)] {
            match gradients.get(tensor).filter(|_| wants(bit)) {
                Some(got) => assert!(apart(got, expected) <= 1e-6, "{bit} of {wanted}"),
                None => assert!(!wants(bit), "{bit} of {wanted} is not there"),
            }
        }
        assert!(gradients.get(layer.weight()).is_none(), "the frozen weight has a gradient");
    }
}

/// The frozen weight passes the gradient on, and forms none, also where it comes from a `VarMap`.
#[test]
fn a_layer_without_an_adapter_is_the_plain_layer() {
    let tensors = Case::f32(&[2, 5], 17, 9, 1).tensors(2);
    let w = Var::from_tensor(&tensors.w).unwrap();
    let x = Var::from_tensor(&tensors.x).unwrap();
    let linear = Linear::new(w.as_tensor().clone(), tensors.bias.clone());
    let [got, expected] = [true, false].map(|fused| {
        let layer = LoraLinear::frozen(linear.clone()).unwrap();
        assert!(!layer.weight().track_op() && w.track_op());
        let y = if fused { layer.forward(&x) } else { linear.forward(&x) }.unwrap();
        let gradients = weighted(&y, &tensors.dy).backward().unwrap();
        assert_eq!(gradients.get(&w).is_none(), fused);
        [y, gradients.get(&x).unwrap().clone()]
    });
    for (got, expected) in got.iter().zip(&expected) {
        assert!(apart(got, expected) <= 1e-6);
    }
}

/// A second layer, a gradient that arrives broadcast, and one that arrives transposed.
#[test]
fn gradients_pass_through_what_lies_around() {
    let [first, second] = [Case::f32(&[4, 3], 12, 20, 4), Case::f32(&[4, 3], 20, 8, 2)];
    let [first, second] = [first.tensors(1), second.tensors(2)];
    let [layer, next] = [first.layer(), second.layer()];
    let losses: [fn(&Tensor) -> Tensor; 2] = [
        |y| y.sum_all().unwrap(),
        |y| {
            let turned = y.transpose(0, 1).unwrap();
            let weights = Tensor::arange(0f32, 12.0, y.device()).unwrap();
            let weights = weights.reshape((3, 4, 1)).unwrap();
            turned.broadcast_mul(&weights).unwrap().sum_all().unwrap()
        },
    ];
    for loss in losses {
        let hidden = layer.forward(&first.x).unwrap().relu().unwrap();
        let fused = loss(&next.forward(&hidden).unwrap()).backward().unwrap();
        let vars = |of: &Tensors| [&of.a, &of.b].map(|of| Var::from_tensor(of).unwrap());
        let (of_first, of_second) = (vars(&first), vars(&second));
        let by_ops = |x: &Tensor, of: &Tensors, [a, b]: &[Var; 2]| {
            let y = crate::case::by_ops(
                &crate::case::rows(x),
                &of.w,
                of.bias.as_ref(),
                [a, b].map(Var::as_tensor),
                of.scale,
            );
            y.unwrap().reshape(of.dy.dims()).unwrap()
        };
        let hidden = by_ops(&first.x, &first, &of_first).relu().unwrap();
        let ops = loss(&by_ops(&hidden, &second, &of_second)).backward().unwrap();
        let ours = [layer.vars().unwrap(), next.vars().unwrap()].concat();
        for (ours, theirs) in ours.iter().zip(of_first.iter().chain(&of_second)) {
            let (got, expected) = (fused.get(ours).unwrap(), ops.get(theirs).unwrap());
            assert!(apart(got, expected) <= 1e-5);
        }
    }
}

/// Nothing to do is legal: no tokens, and gradients of zero.
#[test]
fn no_tokens_is_legal() {
    let tensors = Case::f32(&[2, 0], 12, 20, 4).tensors(1);
    let [y, dx, da, db] = tensors.fused(&tensors.layer());
    assert_eq!((y.dims(), dx.dims()), (&[2, 0, 20][..], &[2, 0, 12][..]));
    assert!(values(&da).into_iter().chain(values(&db)).all(|of| of == 0.0));
}

/// Without a tape the same bits, and nothing to go back on.
#[test]
fn inference_gives_the_same_bits() {
    let tensors = Case::f32(&[3, 4], 20, 28, 5).of(DType::BF16, DType::F32).tensors(3);
    let layer = tensors.layer();
    let (trained, inferred) =
        (layer.forward(&tensors.x).unwrap(), layer.infer(&tensors.x).unwrap());
    assert_eq!(bits(&trained), bits(&inferred));
    assert!(trained.track_op() && !inferred.track_op());
}
