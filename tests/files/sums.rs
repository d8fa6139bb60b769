//! One LoRA made of other methods and of several adapters: the same ΔW by the definition, and nothing rounded that need
//! not be.

use fused_lora::DType;
use fused_lora::files::{Factor, Factors, Module, Side, concat};

use super::delta::{Random, Wide, delta, distance};

/// One unit in the last place of f32.
const ULP: f64 = 1.0 / (1 << 23) as f64;

/// A module of each method and shape: linear, 3×3, with cores; N = 12, K = 18.
pub(super) fn modules(dtype: DType) -> Vec<(&'static str, Module)> {
    let random = Random::new(7);
    let of = |rows, cols| random.factor(rows, cols, dtype);
    let lora = Factors::Lora { a: of(3, 18), b: of(12, 3), core: None };
    let conv = Factors::Lora { a: of(3, 18), b: of(12, 3), core: None };
    let tucker = Factors::Lora { a: of(3, 2), b: of(12, 3), core: Some(of(3, 27)) };
    let loha = Factors::Loha {
        w1a: of(12, 2),
        w1b: of(2, 18),
        w2a: of(12, 2),
        w2b: of(2, 18),
        cores: None,
    };
    let cores = Some([of(2, 18), of(2, 18)]);
    let loha_tucker =
        Factors::Loha { w1a: of(2, 12), w1b: of(2, 2), w2a: of(2, 12), w2b: of(2, 2), cores };
    let lokr =
        Factors::Lokr { w1: Side::Full(of(3, 2)), w2: Side::Low(of(4, 2), of(2, 9)), core: None };
    let both = Factors::Lokr {
        w1: Side::Low(of(3, 2), of(2, 2)),
        w2: Side::Low(of(4, 2), of(2, 9)),
        core: None,
    };
    let lokr_tucker = Factors::Lokr {
        w1: Side::Full(of(3, 2)),
        w2: Side::Low(of(2, 4), of(2, 1)),
        core: Some(of(2, 18)),
    };
    let named = [
        ("lora", lora, 0),
        ("conv", conv, 3),
        ("tucker", tucker, 3),
        ("loha", loha, 0),
        ("loha_tucker", loha_tucker, 3),
        ("lokr", lokr, 0),
        ("lokr_both", both, 0),
        ("lokr_tucker", lokr_tucker, 3),
    ];
    let module = |(name, factors, kernel): (_, Factors, usize)| {
        let kernel = if kernel == 0 { vec![] } else { vec![3, 3] };
        (name, Module::new(factors, 0.75, &kernel).unwrap())
    };
    named.into_iter().map(module).collect()
}

pub(super) fn full() -> Module {
    let random = Random::new(9);
    let [w1, w2] =
        [(3, 2), (4, 9)].map(|(rows, cols)| Side::Full(random.factor(rows, cols, DType::F32)));
    Module::lokr(w1, w2, 0.3).unwrap()
}

/// `Σ_p |b[n, p]|·|a[p, k]|`, times a factor: what one rounding of each factor is multiplied by.
fn sums(module: &Module, factor: f64) -> Vec<f64> {
    let (a, b) = module.plain().unwrap();
    let (a, b) = (Wide::of(a), Wide::of(b));
    let at = |nth: usize| {
        let (n, k) = (nth / a.cols, nth % a.cols);
        (0..a.rows).map(|p| (b.at(n, p) * a.at(p, k)).abs()).sum::<f64>() * factor.abs()
    };
    (0..b.rows * a.cols).map(at).collect()
}

#[test]
fn to_lora_is_the_same_weight_difference() {
    for dtype in DType::ALL {
        for (name, module) in modules(*dtype) {
            let lora = module.to_lora().unwrap();
            assert_eq!(
                (lora.rank(), lora.kernel.len()),
                (module.inner_rank(), module.kernel.len()),
                "{name}"
            );
            let (a, b) = lora.plain().unwrap();
            assert_eq!([b.rows(), a.cols()], [12, 18], "{name}");
            // Two roundings of f32, of sums in the cores and in w1 of low rank; of products of 8 bits none.
            let sum = name.contains("tucker") || name == "lokr_both";
            let (got, wanted) = (delta(&lora), delta(&module));
            let far = distance(&got, &wanted);
            match sum {
                true => {
                    let bound = sums(&lora, ULP * 0.75);
                    let near =
                        got.iter().zip(&wanted).zip(&bound).all(|((g, w), b)| (g - w).abs() <= *b);
                    assert!(near, "{name} of {dtype}: {far}");
                }
                false => assert!(far < 1e-15, "{name} of {dtype}: {far}"),
            }
        }
    }
    let ranks: Vec<_> =
        modules(DType::F32).iter().map(|(_, module)| module.to_lora().unwrap().rank()).collect();
    assert_eq!(ranks, [3, 3, 3, 4, 4, 6, 6, 6]);
    let error = full().to_lora().unwrap_err().to_string();
    assert!(error.contains("LoKr with a full w2 has no low rank"), "{error}");
}

/// Products of 16-bit factors are exact in f32, bit for bit.
#[test]
fn products_of_16_bit_factors_are_exact() {
    let random = Random::new(11);
    let of = |rows, cols| random.factor(rows, cols, DType::Bf16);
    let [w1, w2] = [[of(5, 3), of(3, 7)], [of(5, 3), of(3, 7)]];
    let lora = Module::loha(w1.clone(), w2.clone(), 1.0).unwrap().to_lora().unwrap();
    let (a, b) = lora.plain().unwrap();
    let (a, b) = (Wide::of(a), Wide::of(b));
    let [w1, w2] = [w1, w2].map(|side| side.map(|of| Wide::of(&of)));
    for pq in 0..9 {
        for k in 0..7 {
            assert_eq!(a.at(pq, k), w1[1].at(pq / 3, k) * w2[1].at(pq % 3, k));
        }
        for n in 0..5 {
            assert_eq!(b.at(n, pq), w1[0].at(n, pq / 3) * w2[0].at(n, pq % 3));
        }
    }
}

#[test]
fn a_folded_scale_is_rounded_once() {
    for (name, module) in modules(DType::F32).into_iter().chain([("full", full())]) {
        for scale in [0.3f32, -1.7, 0.25, 1.0] {
            let mut module = module.clone();
            module.scale = scale;
            let folded = module.fold_scale().unwrap();
            assert_eq!(folded.scale, 1.0, "{name}");
            assert_eq!(folded.method(), module.method(), "{name}");
            let far = distance(&delta(&folded), &delta(&module));
            // Elements within a unit of their own; a power of two moves nothing.
            let most = if [0.25, 1.0].contains(&scale) { 1e-15 } else { 8.0 * ULP };
            assert!(far <= most, "{name}, {scale}: {far}");
        }
    }
    // All in one type, of every factor.
    let (_, module) = modules(DType::Bf16).swap_remove(7);
    let Factors::Lokr { w1: Side::Full(w1), w2: Side::Low(a, b), core: Some(core) } =
        module.fold_scale().unwrap().factors
    else {
        panic!()
    };
    assert!([w1, a, b, core].iter().all(|of| of.dtype() == DType::F32));
}

#[test]
fn concatenated_adapters_add_up() {
    let all = modules(DType::F32);
    let weights = [1.0f32, -0.35, 0.8, 2.0, 0.1, 1.3, -1.0, 0.6];
    let flat = |(nth, (_, module)): (usize, &(&str, Module))| {
        let mut module = module.clone();
        // Linear layers know of no kernel, and LoHa's file says none.
        module.scale = 0.5 + nth as f32 / 7.0;
        module
    };
    let modules: Vec<_> = all.iter().enumerate().map(flat).collect();
    let one = concat(modules.iter().zip(weights)).unwrap();
    assert_eq!(
        (one.rank(), one.scale, &one.kernel[..]),
        (3 + 3 + 3 + 4 + 4 + 6 + 6 + 6, 1.0, &[3, 3][..])
    );
    let mut wanted = vec![0f64; 12 * 18];
    for (module, weight) in modules.iter().zip(weights) {
        for (sum, value) in wanted.iter_mut().zip(delta(module)) {
            *sum += f64::from(weight) * value;
        }
    }
    // Each b is rounded once; composed factors once each before.
    let got = delta(&one);
    for ((got, wanted), bound) in got.iter().zip(&wanted).zip(sums(&one, 2.0 * ULP)) {
        assert!((got - wanted).abs() <= bound, "{got} instead of {wanted}, allowed {bound}");
    }
}

/// Bits of a and b.
fn bits(module: &Module) -> (Vec<u32>, Vec<u32>) {
    let of = |factor: &Factor| factor.values().iter().map(|value| value.to_bits()).collect();
    let (a, b) = module.plain().unwrap();
    (of(a), of(b))
}

#[test]
fn what_need_not_be_rounded_is_not() {
    let random = Random::new(3);
    // All 24 bits in use.
    let of = |rows, cols| {
        let values: Vec<f32> = (0..rows * cols).map(|_| random.value() * 1.234_567_9).collect();
        Factor::new(rows, cols, DType::F32, &values).unwrap()
    };
    let lora = |scale| Module::lora(of(2, 5), of(4, 2), scale).unwrap();
    let (one, other) = (lora(0.3), lora(0.6));
    // Of one factor: it stays the scale.
    let same = concat([(&one, 1.0), (&other, 0.5)]).unwrap();
    assert_eq!(same.scale, 0.3);
    let ((a1, b1), (a2, b2)) = (bits(&one), bits(&other));
    let (a, b) = bits(&same);
    assert_eq!(a, [a1, a2].concat());
    for row in 0..4 {
        assert_eq!(b[row * 4..][..4], [&b1[row * 2..][..2], &b2[row * 2..][..2]].concat());
    }
    // Of powers of two: nothing is lost, the weight difference is exactly the sum.
    let (one, other) = (lora(0.5), lora(2.0));
    let sum = concat([(&one, 0.25), (&other, -1.0)]).unwrap();
    let sums = delta(&one).into_iter().zip(delta(&other)).map(|(one, other)| 0.25 * one - other);
    assert!(distance(&delta(&sum), &sums.collect::<Vec<_>>()) < 1e-15);
    assert_eq!(sum.scale, 1.0);
    // One alone keeps its bits too.
    assert_eq!(bits(&concat([(&one, 3.0)]).unwrap()), bits(&one));
}

#[test]
fn what_does_not_add_up_is_refused() {
    let random = Random::new(5);
    let of = |rows, cols| random.factor(rows, cols, DType::F32);
    let lora = |n, k| Module::lora(of(2, k), of(n, 2), 1.0).unwrap();
    let (good, wide, tall) = (lora(4, 5), lora(4, 6), lora(3, 5));
    let dora =
        lora(4, 5).with_magnitude(Factor::new(1, 4, DType::F32, &[1.0; 4]).unwrap()).unwrap();
    let conv = |kernel: &[usize]| {
        let factors = lora(4, 18).factors;
        Module::new(factors, 1.0, kernel).unwrap()
    };
    let (square, flat) = (conv(&[3, 3]), conv(&[9]));
    let reason = |of: &[(&Module, f32)]| concat(of.iter().copied()).unwrap_err().to_string();
    assert!(reason(&[]).contains("no adapter to concatenate"));
    assert!(
        reason(&[(&good, 1.0), (&wide, 1.0)]).contains("adapter 1: expected [4, 5], got [4, 6]")
    );
    assert!(
        reason(&[(&good, 1.0), (&tall, 1.0)]).contains("adapter 1: expected [4, 5], got [3, 5]")
    );
    assert!(reason(&[(&good, f32::NAN)]).contains("adapter 0: expected a finite weight, got NaN"));
    assert!(reason(&[(&good, 1.0), (&dora, 1.0)]).contains("adapter 1: DoRA"));
    assert!(reason(&[(&full(), 1.0)]).contains("LoKr with a full w2"));
    let error = reason(&[(&square, 1.0), (&flat, 1.0)]);
    assert!(error.contains("adapter 1: expected the kernel [3, 3], got [9]"), "{error}");
    let wide = lora(4, 5);
    let many: Vec<_> = (0..2049).map(|_| (&wide, 1.0)).collect();
    assert!(reason(&many).contains("at most 4096 ranks in all, got 4098"));
}
