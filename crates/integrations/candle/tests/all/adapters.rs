//! Several adapters in one layer, `VarMap` and `VarBuilder`, merging.

use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module, Optimizer, VarBuilder, VarMap};
use fused_lora_candle::{Adapter, DEFAULT, LoraConfig, LoraLinear};

use crate::case::{CPU, Case, apart, bits, values};

#[test]
fn one_of_several_is_active() {
    let case = Case::f32(&[3, 4], 20, 28, 5);
    let [one, other] = [case.tensors(1), Case { rank: 9, ..case }.tensors(2)];
    let adapter =
        |of: &crate::case::Tensors, scale| Adapter::new(of.a.clone(), of.b.clone(), scale).unwrap();
    let linear = Linear::new(one.w.clone(), one.bias.clone());
    let mut layer = LoraLinear::frozen(linear.clone()).unwrap();
    let plain = layer.infer(&one.x).unwrap();
    assert!(apart(&plain, &linear.forward(&one.x).unwrap()) < 1e-6);

    assert!(layer.insert("one", adapter(&one, 0.5)).unwrap().is_none());
    assert_eq!(bits(&layer.infer(&one.x).unwrap()), bits(&plain), "inserted is not active");
    assert!(layer.insert("other", adapter(&other, 2.0)).unwrap().is_none());
    let mut results = Vec::new();
    for name in ["one", "other", "one"] {
        layer.activate(Some(name)).unwrap();
        let (active, adapter) = layer.active().unwrap();
        assert_eq!(active, name);
        let of = if name == "one" { &one } else { &other };
        // The tensors that were given, not copies of them.
        assert_eq!((adapter.a().id(), adapter.b().id()), (of.a.id(), of.b.id()));
        results.push(layer.infer(&one.x).unwrap());
    }
    assert_eq!(bits(&results[0]), bits(&results[2]));
    assert!(apart(&results[0], &results[1]) > 1e-2);
    layer.activate(None).unwrap();
    assert_eq!(bits(&layer.infer(&one.x).unwrap()), bits(&plain));
    assert_eq!(layer.adapters().map(|(name, _)| name).collect::<Vec<_>>(), ["one", "other"]);
    assert_eq!(layer.remove("one").unwrap().unwrap().rank(), 5);
    assert!(layer.activate(Some("one")).is_err());
}

#[test]
fn a_fresh_adapter_does_nothing_and_learns() {
    let tensors = Case::f32(&[16], 12, 6, 1).tensors(4);
    let linear = Linear::new(tensors.w.clone(), tensors.bias.clone());
    let layer = LoraLinear::new(linear.clone(), 4, 8.0).unwrap();
    let (name, adapter) = layer.active().unwrap();
    assert_eq!((name, adapter.scale(), adapter.rank()), (DEFAULT, 2.0, 4));
    let begin = layer.forward(&tensors.x).unwrap();
    assert!(apart(&begin, &linear.forward(&tensors.x).unwrap()) < 1e-6);
    let bound = 1.0 / 12f64.sqrt();
    let a = values(adapter.a());
    assert!(a.iter().all(|of| of.abs() <= bound) && a.iter().any(|of| of.abs() > bound / 2.0));

    let mut adam = candle_nn::AdamW::new_lr(layer.vars().unwrap(), 0.05).unwrap();
    let loss = |layer: &LoraLinear| {
        let y = layer.forward(&tensors.x).unwrap();
        (y - &tensors.dy).unwrap().sqr().unwrap().mean_all().unwrap()
    };
    let before = values(&loss(&layer))[0];
    for _ in 0..60 {
        adam.backward_step(&loss(&layer)).unwrap();
    }
    let after = values(&loss(&layer))[0];
    assert!(after < 0.5 * before, "{before} before, {after} after");
    assert_eq!(bits(layer.weight()), bits(&tensors.w), "the frozen weight has changed");
}

#[test]
fn var_maps_hold_the_variables() {
    let tensors = Case::f32(&[3], 12, 6, 1).tensors(4);
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let linear = || Linear::new(tensors.w.clone(), None);
    let config = LoraConfig::new(4, 8.0).rslora();
    let layer = LoraLinear::from_vb(linear(), config, &vb.pp("block.fc")).unwrap();
    assert_eq!(layer.active().unwrap().1.scale(), 4.0);
    let mut names: Vec<String> = map.data().lock().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["block.fc.lora_A.weight", "block.fc.lora_B.weight"]);
    let ids = |of: Vec<candle_core::Var>| {
        let mut ids: Vec<_> = of.iter().map(|of| format!("{:?}", of.id())).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(map.all_vars()), ids(layer.vars().unwrap()));
    // What is saved from the map loads into a layer that infers.
    let folder = std::env::temp_dir().join(format!("fused-lora-candle-map-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("lora.safetensors");
    let b = Tensor::ones((6, 4), DType::F32, &CPU).unwrap();
    layer.vars().unwrap()[1].set(&b).unwrap();
    map.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let vb = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &CPU).unwrap();
    let again = LoraLinear::from_vb(linear(), config, &vb.pp("block.fc")).unwrap();
    assert!(again.vars().unwrap().is_empty());
    let [one, other] = [&layer, &again].map(|of| bits(&of.infer(&tensors.x).unwrap()));
    assert_eq!(one, other);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn merged_is_the_same_layer() {
    for dtype in [DType::F32, DType::BF16] {
        let tensors = Case::f32(&[9], 20, 28, 5).of(dtype, DType::F32).tensors(6);
        let mut layer = tensors.layer();
        let other = layer.clone();
        let before = layer.infer(&tensors.x).unwrap();
        let unit = if dtype == DType::F32 { 1e-6 } else { 1e-2 };
        for _ in 0..2 {
            layer.merge().unwrap();
        }
        assert!(layer.is_merged() && !other.is_merged());
        let merged = layer.infer(&tensors.x).unwrap();
        assert!(apart(&merged, &before) <= unit, "{dtype:?}");
        assert_eq!(bits(&tensors.w), bits(other.weight()), "another layer's weight has changed");
        let exact =
            (tensors.a.to_dtype(DType::F64).unwrap(), tensors.b.to_dtype(DType::F64).unwrap());
        let delta = (exact.1.matmul(&exact.0).unwrap() * f64::from(tensors.scale)).unwrap();
        let expected = (tensors.w.to_dtype(DType::F64).unwrap() + delta).unwrap();
        assert!(apart(layer.weight(), &expected) <= unit);
        // What is merged can neither change nor go.
        assert!(layer.activate(None).is_err() && layer.remove("trained").is_err());
        layer.insert("new", layer.active().unwrap().1.clone()).unwrap();
        assert!(layer.activate(Some("new")).is_err());
        layer.unmerge().unwrap();
        assert!(apart(&layer.infer(&tensors.x).unwrap(), &before) <= unit);
        layer.activate(Some("new")).unwrap();
        let linear = layer.into_linear().unwrap();
        assert!(apart(linear.weight(), &expected) <= unit);
    }
}
