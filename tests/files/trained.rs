//! A module as the adapter of a call: the layer that its ΔW by the definition makes, and a gradient for every factor, which is
//! how ΔW follows that factor. Whole sides of LoKr and LoCon's core train as they are; other cores are taken in first, by name.

use fused_lora::files::{Factor, Factors, Module, Side};
use fused_lora::{Adapter, Backward, DType, Device, Forward, Tensor};

use super::delta::{Random, delta, distance};
use super::sums::{full, modules};

const TOKENS: usize = 5;

/// Every method and shape that there is, with LoKr's whole w2 beside a w1 of either kind, and of a convolution.
fn all() -> Vec<(&'static str, Module)> {
    let random = Random::new(21);
    let of = |rows, cols| random.factor(rows, cols, DType::F32);
    let lokr = |w1, kernel: &[usize]| {
        let factors = Factors::Lokr { w1, w2: Side::Full(of(4, 9)), core: None };
        Module::new(factors, 0.5, kernel).unwrap()
    };
    let mut all = modules(DType::F32);
    all.push(("lokr_full", full()));
    all.push(("lokr_full_w1_low", lokr(Side::Low(of(3, 2), of(2, 2)), &[])));
    all.push(("lokr_full_conv", lokr(Side::Full(of(3, 2)), &[3, 3])));
    all
}

/// The module with another factor of this name.
fn with(module: &Module, name: &str, factor: Factor) -> Module {
    let mut module = module.clone();
    let place = match (&mut module.factors, name) {
        (Factors::Lora { a, .. }, "lora_A") => a,
        (Factors::Lora { b, .. }, "lora_B") => b,
        (Factors::Lora { core: Some(core), .. }, "lora_mid") => core,
        (Factors::Loha { w1a: of, .. }, "w1a") | (Factors::Loha { w1b: of, .. }, "w1b") => of,
        (Factors::Loha { w2a: of, .. }, "w2a") | (Factors::Loha { w2b: of, .. }, "w2b") => of,
        (Factors::Lokr { w1: Side::Full(of), .. }, "w1") => of,
        (Factors::Lokr { w1: Side::Low(of, _), .. }, "w1a") => of,
        (Factors::Lokr { w1: Side::Low(_, of), .. }, "w1b") => of,
        (Factors::Lokr { w2: Side::Full(of), .. }, "w2") => of,
        (Factors::Lokr { w2: Side::Low(of, _), .. }, "w2a") => of,
        (Factors::Lokr { w2: Side::Low(_, of), .. }, "w2b") => of,
        (_, name) => panic!("{name}"),
    };
    *place = factor;
    module
}

fn wide(of: &Tensor) -> Vec<f64> {
    of.to_f32().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn every_factor_trains() {
    let device = Device::cpu();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, module) in all() {
        let is_cored = ["loha_tucker", "lokr_tucker"].contains(&name);
        let module = match is_cored {
            false => module,
            true => {
                let one = device.zeros(1, 1, DType::F32).unwrap();
                let refused = module.to_adapter(|_, _| Ok(&one));
                let refused = refused.map(|_: Adapter<&Tensor>| ()).unwrap_err();
                assert!(refused.to_string().contains("Module::without_cores"), "{refused}");
                let without = module.without_cores().unwrap();
                assert!(distance(&delta(&without), &delta(&module)) < 1e-6, "{name}");
                without
            }
        };
        let (n, k) = (module.out_features(), module.in_features());
        let random = Random::new(5);
        let drawn = |rows: usize, cols: usize| {
            let values: Vec<f32> = (0..rows * cols).map(|_| random.value()).collect();
            device.tensor(rows, cols, DType::F32, &values).unwrap()
        };
        let (x, w, dy) = (drawn(TOKENS, k), drawn(n, k), drawn(TOKENS, n));
        let tensors: Vec<(&str, Tensor)> = module
            .named()
            .into_iter()
            .map(|(name, of)| {
                let of = device.tensor(of.rows(), of.cols(), of.dtype(), &of.values());
                (name, of.unwrap())
            })
            .collect();
        let adapter = module
            .to_adapter(|name, of| {
                let found = &tensors.iter().find(|of| of.0 == name).unwrap().1;
                assert_eq!([found.rows(), found.cols()], [of.rows(), of.cols()]);
                Ok(found)
            })
            .unwrap();

        // ── the layer ────────────────────────────────────────────────────────
        let mut y = device.zeros(TOKENS, n, DType::F32).unwrap();
        let forward = Forward::new(&x, &w, &mut y).with_adapter(Some(adapter));
        device.forward(forward.scale(module.scale)).unwrap();
        let (wide_x, wide_w, wide_dy) = (wide(&x), wide(&w), wide(&dy));
        let of_module = delta(&module);
        let want: Vec<f64> = (0..TOKENS * n)
            .map(|at| {
                let (m, row) = (at / n, at % n);
                let at = |col: usize| wide_w[row * k + col] + of_module[row * k + col];
                (0..k).map(|col| wide_x[m * k + col] * at(col)).sum()
            })
            .collect();
        assert!(distance(&wide(&y), &want) < 1e-6, "{name}: y");

        // ── and its gradients ────────────────────────────────────────────────
        let is_tucker = name == "tucker";
        let mut gradients: Vec<(&str, Tensor)> = tensors
            .iter()
            .map(|(name, of)| (*name, device.zeros(of.rows(), of.cols(), DType::F32).unwrap()))
            .collect();
        let mut call = Backward::new(&x, &w, &dy).with_adapter(Some(adapter)).scale(module.scale);
        for (factor, to) in &mut gradients {
            call = match *factor {
                "lora_A" if is_tucker => call.ddown(to),
                "lora_B" if is_tucker => call.dup(to),
                "lora_mid" => call.dcore(to),
                "lora_A" => call.da(to),
                "lora_B" => call.db(to),
                "w1" => call.dw1(to),
                "w1a" => call.dw1a(to),
                "w1b" => call.dw1b(to),
                "w2" => call.dw2(to),
                "w2a" => call.dw2a(to),
                "w2b" => call.dw2b(to),
                other => panic!("{other}"),
            };
        }
        device.backward(call).unwrap();
        // ΔW is linear in each factor: what a step in one changes is the gradient along the step, exactly.
        let loss = |module: &Module| -> f64 {
            let delta = delta(module);
            let row = |m: usize, n: usize| {
                (0..k).map(|col| wide_x[m * k + col] * delta[n * k + col]).sum::<f64>()
            };
            (0..TOKENS * n).map(|at| wide_dy[at] * row(at / n, at % n)).sum()
        };
        for ((factor, gradient), (_, of)) in gradients.iter().zip(module.named()) {
            let step = random.factor(of.rows(), of.cols(), DType::F32);
            let moved: Vec<f32> =
                of.values().iter().zip(step.values()).map(|(of, step)| of + step).collect();
            let moved = Factor::new(of.rows(), of.cols(), DType::F32, &moved).unwrap();
            let change = loss(&with(&module, factor, moved)) - loss(&module);
            let gradient = wide(gradient);
            let along: Vec<f64> = gradient
                .iter()
                .zip(step.values())
                .map(|(gradient, step)| gradient * f64::from(step))
                .collect();
            let size = along.iter().map(|of| of.abs()).sum::<f64>();
            let along = along.iter().sum::<f64>();
            assert!(size > 1e-3, "{name} {factor}: a gradient of nothing");
            assert!((change - along).abs() < 1e-5 * size, "{name} {factor}: {change} {along}");
            kinds.insert(*factor);
        }
    }
    let names =
        ["lora_A", "lora_B", "lora_mid", "w1", "w1a", "w1b", "w2", "w2a", "w2b"].into_iter();
    assert_eq!(kinds, names.collect());
}
