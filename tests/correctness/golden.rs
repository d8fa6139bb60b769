//! What the real PEFT and torch autograd computed (`tests/golden`, made by `make.py`), against
//! every strategy that serves it: forward, backward_input and backward_adapter, through `Device`
//! and, with strides and transposed storage, through `Cpu`.
//!
//! Two comparisons for each result: with PEFT in double precision, within our tolerance; and with
//! PEFT in its own storage types, within ours plus PEFT's.

mod run;
mod tolerance;

use std::collections::BTreeMap;
use std::path::Path;

use fused_lora::reference::{Dense, Expected, Sums, shrunk_value};
use fused_lora::{DType, Operand, Operation, Problem};
use half::{bf16, f16};
use run::{Way, choices, run, sums};
use safetensors::{Dtype, SafeTensors};
use tolerance::{ours, scaled, sum, theirs};

/// As many as `make.py` lists: a file that is missing must not go unnoticed.
const CASES: usize = 18;
const RESULTS: [(Operand, &str); 4] =
    [(Operand::Y, "y"), (Operand::Dx, "dx"), (Operand::Da, "da"), (Operand::Db, "db")];

struct Case {
    name: String,
    tensors: BTreeMap<String, Dense>,
    scale: f64,
    problem: Problem,
}

impl Case {
    fn read(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().as_ref().unwrap();
        let scale: f64 = metadata["scale"].parse().unwrap();
        let dtype = |name| match file.tensor(name).unwrap().dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(dtype("a"), dtype("da"));
        let tensors: BTreeMap<_, _> =
            file.iter().map(|(name, view)| (name.to_owned(), dense(&view))).collect();
        let (x, w, a) = (&tensors["x"], &tensors["w"], &tensors["a"]);
        let problem = Problem::forward(x.rows(), x.cols(), w.rows(), a.rows())
            .with_activation(dtype("x"))
            .with_adapter(dtype("a"))
            .with_gradient(dtype("da"))
            .with_scale(scale as f32)
            .with_bias(tensors.contains_key("bias"));
        // The tolerances allow for this much, so it must not hide a wrong scale.
        assert!((f64::from(scale as f32) / scale - 1.0).abs() <= DType::F32.roundoff());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Case { name, tensors, scale, problem }
    }

    fn operand(&self, operand: Operand) -> Dense {
        self.tensors[&operand.to_string()].clone()
    }

    /// Relative error of the scale, which the files have in f64 and the problem in f32.
    fn scale_error(&self) -> f64 {
        ((f64::from(self.problem.scale()) - self.scale) / self.scale).abs()
    }
}

fn cases() -> Vec<Case> {
    // Where cargo runs tests, and where the bundle does, this is a folder.
    let folder = std::fs::read_dir("tests/golden").expect("tests/golden in the current folder");
    let mut paths: Vec<_> = folder.map(|of| of.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|of| of == "safetensors"));
    paths.sort();
    assert_eq!(paths.len(), CASES, "cases in tests/golden");
    paths.iter().map(|path| Case::read(path)).collect()
}

pub(super) fn dense(view: &safetensors::tensor::TensorView<'_>) -> Dense {
    let (rows, cols) = match view.shape() {
        [cols] => (1, *cols),
        [rows, cols @ ..] => (*rows, cols.iter().product()),
        other => panic!("{other:?}"),
    };
    let values =
        view.data().chunks_exact(view.dtype().bitsize() / 8).map(|of| match view.dtype() {
            Dtype::F64 => f64::from_le_bytes(of.try_into().unwrap()),
            Dtype::F32 => f32::from_le_bytes(of.try_into().unwrap()).into(),
            Dtype::F16 => f16::from_le_bytes(of.try_into().unwrap()).into(),
            Dtype::BF16 => bf16::from_le_bytes(of.try_into().unwrap()).into(),
            other => panic!("{other:?}"),
        });
    Dense::new(rows, cols, values.collect())
}

/// The largest part of `tolerance` by which `got` and `value` differ.
fn used(got: &Dense, value: &Dense, tolerance: &Dense) -> f64 {
    assert_eq!((got.rows(), got.cols()), (value.rows(), value.cols()));
    let parts = got.values().iter().zip(value.values()).zip(tolerance.values());
    let part = |((&got, &value), &tolerance): ((&f64, &f64), &f64)| match (got - value).abs()
        / tolerance
    {
        _ if got == value => 0.0,
        part if part.is_nan() => f64::INFINITY,
        part => part,
    };
    parts.map(part).fold(0.0, f64::max)
}

/// The definition itself agrees with PEFT's in f64, but for the scale's f32.
#[test]
fn the_reference_is_what_peft_computes() {
    let mut most = 0f64;
    for case in cases() {
        let exact = ours(&case, &case.problem, Sums::F32);
        let f64_sums = 2f64.powi(-29); // of tolerances whose smallest part is a few f32 roundoffs
        for (operand, name) in RESULTS {
            let Expected { value, tolerance, .. } = &exact[&operand];
            let truth = &case.tensors[&format!("{name}_f64")];
            let narrow = sum(&[
                (f64_sums, tolerance),
                (1.001 * case.scale_error(), &scaled(&case, operand)),
            ]);
            most = most.max(used(value, truth, &narrow));
        }
    }
    println!("used {most:.3} of the tolerance");
    assert!(most <= 1.0, "used {most}");
}

#[test]
fn every_strategy_gives_what_peft_gives() {
    let mut most: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut runs = 0;
    let mut failures = Vec::new();
    for case in cases() {
        let theirs = theirs(&case);
        for precise in [false, true] {
            let problem = case.problem.with_precise(precise);
            let of = |operation| problem.with_operation(operation);
            let adapter = of(Operation::BackwardAdapter);
            for way in [Way::Device, Way::Strided, Way::Transposed] {
                let ours = ours(&case, &problem, sums(&problem, way));
                // One kernel serves both, where both lie as it wants them.
                let back = choices(&of(Operation::BackwardInput), way);
                let mut both = choices(&of(Operation::Forward), way);
                both.retain(|choice| back.contains(choice));
                for choice in both {
                    let forward = of(Operation::Forward);
                    let mut got = run(&forward, &choice, way, |operand| case.operand(operand));
                    let backward = of(Operation::BackwardInput);
                    got.extend(run(&backward, &choice, way, |operand| case.operand(operand)));
                    for gradient in choices(&adapter, way) {
                        let kept = got.clone();
                        got.extend(run(&adapter, &gradient, way, |operand| match operand {
                            Operand::Shrunk | Operand::Dshrunk => kept[&operand].clone(),
                            other => case.operand(other),
                        }));
                    }
                    let mut check = |of, name, got: &Dense, value: &Dense, tolerance: &Dense| {
                        let part = used(got, value, tolerance);
                        let most = most.entry((of, name)).or_default();
                        *most = most.max(part);
                        if part > 1.0 {
                            let what = format!("{} {choice} {way:?} precise {precise}", case.name);
                            failures.push(format!("{what}: {name} uses {part:.2} of {of}"));
                        }
                    };
                    for operand in [Operand::Shrunk, Operand::Dshrunk] {
                        let Expected { value, tolerance, .. } = &ours[&operand];
                        let got = shrunk_value(&problem, &got[&operand]);
                        check("ours", "shrunk, dshrunk", &got, value, tolerance);
                    }
                    for (operand, name) in RESULTS {
                        let (got, own) = (&got[&operand], &ours[&operand].tolerance);
                        check("ours", name, got, &case.tensors[&format!("{name}_f64")], own);
                        let both = sum(&[(1.0, own), (1.0, &theirs[&operand])]);
                        check("ours and PEFT's", name, got, &case.tensors[name], &both);
                    }
                    // The same distance for PEFT itself: a bound that is far too wide shows here.
                    for (operand, name) in RESULTS {
                        let truth = &case.tensors[&format!("{name}_f64")];
                        check("PEFT's", name, &case.tensors[name], truth, &theirs[&operand]);
                    }
                    runs += 1;
                }
            }
        }
    }
    for ((of, name), part) in &most {
        println!("{name:15} uses {part:.3} of {of} tolerance");
    }
    println!("{runs} runs");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(runs >= CASES * 2 * 3 * 2, "{runs} runs: every case has two strategies at least");
}
