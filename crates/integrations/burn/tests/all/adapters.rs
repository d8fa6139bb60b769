//! Several adapters in one layer, records, training with burn's optimiser, merging.

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::store::ModuleRecord;
use burn::tensor::DType;
use fused_lora_burn::{DEFAULT, LoraConfig, LoraLinear};

use crate::case::{Case, apart, bits, devices, tensor, values};

#[test]
fn one_of_several_is_active() {
    for (_, device, _) in devices() {
        let case = Case::f32([3, 4], 20, 28, 5);
        let [one, other] = [case.values(1), Case { rank: 9, scale: 2.0, ..case }.values(2)];
        let x = || tensor::<3>(&one.x, &device);
        let mut layer = LoraLinear::frozen(one.linear(&device)).unwrap();
        let plain = bits(&layer.forward(x()));
        assert!(layer.insert("one", one.adapter(&device)).unwrap().is_none());
        assert_eq!(bits(&layer.forward(x())), plain, "inserted is not active");
        assert!(layer.insert("other", other.adapter(&device)).unwrap().is_none());
        let mut results = Vec::new();
        for name in ["one", "other", "one"] {
            layer.activate(Some(name)).unwrap();
            assert_eq!(layer.active().unwrap().0, name);
            results.push(values(&layer.forward(x())));
        }
        assert_eq!(results[0], results[2]);
        assert!(apart(&results[0], &results[1]) > 1e-2);
        assert_eq!(layer.adapters().map(|(name, _)| name).collect::<Vec<_>>(), ["one", "other"]);
        // What is active stays so when another one goes.
        layer.activate(Some("other")).unwrap();
        assert!(layer.remove("one").unwrap().is_some() && layer.remove("one").unwrap().is_none());
        assert_eq!(layer.active().unwrap().0, "other");
        assert_eq!(values(&layer.forward(x())), results[1]);
        layer.activate(None).unwrap();
        assert_eq!(bits(&layer.forward(x())), plain);
        assert!(layer.activate(Some("one")).is_err());
    }
}

#[test]
fn a_fresh_adapter_does_nothing_and_learns_and_is_recorded() {
    for (name, device, _) in devices() {
        let of = Case::f32([1, 16], 12, 6, 1).values(4);
        let on = device.clone().autodiff();
        let config = LoraConfig::new(4, 16.0).rslora();
        let mut layer = LoraLinear::new(of.linear(&on), config).unwrap();
        let (active, adapter) = layer.active().unwrap();
        assert_eq!((active, adapter.scale), (DEFAULT, 8.0));
        let a = values(&adapter.a.val());
        let bound = 1.0 / 12f64.sqrt();
        assert!(a.iter().all(|of| of.abs() <= bound) && a.iter().any(|of| of.abs() > bound / 2.0));
        let x = || tensor::<3>(&of.x, &on);
        let plain = of.linear(&on).forward(x());
        assert!(apart(&values(&layer.forward(x())), &values(&plain)) < 1e-6, "{name}");

        let loss = |layer: &LoraLinear| (layer.forward(x()) - tensor(&of.dy, &on)).square().mean();
        let before = values(&loss(&layer))[0];
        let mut adam = AdamConfig::new().init();
        for _ in 0..40 {
            let gradients = GradientsParams::from_grads(loss(&layer).backward(), &layer);
            layer = adam.step(0.05, layer, gradients);
        }
        let after = values(&loss(&layer))[0];
        assert!(after < 0.5 * before, "{name}: {before} before, {after} after");
        assert_eq!(values(&layer.weight()), of.w.iter::<f64>().collect::<Vec<_>>());

        // Without autodiff, and out of a record, the same bits.
        let trained = bits(&layer.forward(x()));
        let valid = layer.valid();
        assert_eq!(bits(&valid.forward(tensor::<3>(&of.x, &device))), trained, "{name}");
        let bytes = layer.into_record().into_bytes().unwrap();
        let fresh = LoraLinear::new(of.linear(&device), config).unwrap();
        let loaded = fresh.load_record(ModuleRecord::from_bytes(bytes).unwrap());
        assert_eq!(bits(&loaded.forward(tensor::<3>(&of.x, &device))), trained, "{name}");
    }
}

#[test]
fn merged_is_the_same_layer() {
    for (name, device, types) in devices() {
        for &dtype in types {
            let of = Case::f32([1, 9], 20, 28, 5).of(dtype, DType::F32).values(6);
            let x = || tensor::<3>(&of.x, &device);
            let mut layer = of.layer(&device);
            let other = layer.clone();
            let before = values(&layer.forward(x()));
            let unit = if dtype == DType::F32 { 1e-6 } else { 1e-2 };
            for _ in 0..2 {
                layer.merge().unwrap();
            }
            assert!(layer.is_merged() && !other.is_merged());
            let merged = values(&layer.forward(x()));
            assert!(apart(&merged, &before) <= unit, "{name}, {dtype:?}");
            assert_eq!(values(&other.weight()), of.w.iter::<f64>().collect::<Vec<_>>());
            assert_eq!(layer.weight().dtype(), dtype);
            // What is merged can neither change nor go.
            assert!(layer.activate(None).is_err() && layer.remove("trained").is_err());
            assert!(layer.insert("trained", of.adapter(&device)).is_err());
            layer.insert("new", of.adapter(&device)).unwrap();
            assert!(layer.activate(Some("new")).is_err());
            layer.unmerge().unwrap();
            assert!(apart(&values(&layer.forward(x())), &before) <= unit, "{name}, {dtype:?}");
            layer.activate(Some("new")).unwrap();
            let linear = layer.into_linear().unwrap();
            assert!(apart(&values(&linear.forward(x())), &before) <= unit, "{name}, {dtype:?}");
        }
    }
}
