//! One layer of each method, by LyCORIS and PEFT with autograd (`tests/golden/family`): its factors are read as a file's, and
//! give the package's y, dx and every factor's gradient in f64, from ΔW's definition alone.
//!
//! ΔW is linear in each single element of a factor, so that a difference quotient of it is the derivative itself.

use std::collections::BTreeMap;
use std::path::Path;

use fused_lora::files::{Factor, Factors, Module, Side, StateDict};
use fused_lora::reference::{Dense, Sums, expected};
use fused_lora::{DType, Device, Forward, Operand, Problem};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::delta::{distance, unscaled};

/// A convolution's shape, or a linear layer's as one of 1×1 pixels.
struct Layer {
    images: usize,
    channels: usize,
    /// Of x, and of y.
    size: [usize; 2],
    out: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

impl Layer {
    /// Calls with the places in x (image, channel, pixel), in w (k) and in y (image, pixel) that meet.
    fn each(&self, mut meet: impl FnMut(usize, usize, usize)) {
        let [height, width] = self.size;
        let [rows, cols] = self.out;
        for image in 0..self.images {
            for i in 0..self.channels {
                for u in 0..self.kernel[0] {
                    for v in 0..self.kernel[1] {
                        let k = (i * self.kernel[0] + u) * self.kernel[1] + v;
                        for oy in 0..rows {
                            for ox in 0..cols {
                                let (iy, ix) = (oy * self.stride + u, ox * self.stride + v);
                                let inside = |at: usize, end: usize| {
                                    at.checked_sub(self.padding).filter(|&at| at < end)
                                };
                                let (Some(iy), Some(ix)) = (inside(iy, height), inside(ix, width))
                                else {
                                    continue;
                                };
                                let x = ((image * self.channels + i) * height + iy) * width + ix;
                                meet(x, k, (image * rows + oy) * cols + ox);
                            }
                        }
                    }
                }
            }
        }
    }
}

struct Case {
    name: String,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    module: Module,
    scale: f64,
    layer: Layer,
    /// Of x, w, bias and y.
    dtype: DType,
}

fn values(view: &TensorView<'_>) -> Vec<f64> {
    let chunks = view.data().chunks_exact(view.dtype().bitsize() / 8);
    let value = |of: &[u8]| match view.dtype() {
        Dtype::F64 => f64::from_le_bytes(of.try_into().unwrap()),
        Dtype::F32 => f64::from(f32::from_le_bytes(of.try_into().unwrap())),
        Dtype::BF16 => f64::from(bf16::from_le_bytes(of.try_into().unwrap()).to_f32()),
        other => panic!("{other:?}"),
    };
    chunks.map(value).collect()
}

fn read(path: &Path) -> Case {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    // The factors as a file of LyCORIS' has them.
    let gradient = |name: &str| file.tensor(&format!("d_{name}")).is_ok();
    let alpha = metadata["alpha"].parse::<f32>().unwrap().to_le_bytes();
    let mut parts: Vec<(String, TensorView<'_>)> = file
        .iter()
        .filter(|(name, _)| gradient(name))
        .map(|(name, view)| (format!("case.{name}"), view))
        .collect();
    parts.push(("case.alpha".into(), TensorView::new(Dtype::F32, vec![], &alpha).unwrap()));
    let parts = serialize(parts, None).unwrap();
    let w = file.tensor("w").unwrap();
    let mut module = StateDict::from_bytes(&parts).unwrap().module("case", w.shape()).unwrap();
    let scale: f64 = metadata["scale"].parse().unwrap();
    if name.starts_with("lokr_full_peft") {
        // Of two whole factors a file of LyCORIS' has the scale 1, and PEFT's configuration alpha/r.
        assert_eq!(module.scale, 1.0, "{name}");
        module.scale = scale as f32;
    }
    assert_eq!(module.scale, scale as f32, "{name}");
    let kernel: Vec<usize> = serde_json::from_str(&metadata["kernel"]).unwrap();
    assert_eq!(module.kernel, kernel, "{name}");
    let x = file.tensor("x").unwrap();
    let y = file.tensor("y").unwrap();
    let layer = match (x.shape(), y.shape()) {
        ([m, k], _) => Layer {
            images: *m,
            channels: *k,
            size: [1, 1],
            out: [1, 1],
            kernel: [1, 1],
            stride: 1,
            padding: 0,
        },
        ([images, channels, size @ ..], [_, _, out @ ..]) => Layer {
            images: *images,
            channels: *channels,
            size: size.try_into().unwrap(),
            out: out.try_into().unwrap(),
            kernel: kernel.try_into().unwrap(),
            stride: metadata["stride"].parse().unwrap(),
            padding: metadata["padding"].parse().unwrap(),
        },
        other => panic!("{other:?}"),
    };
    let dtype = if x.dtype() == Dtype::F32 { DType::F32 } else { DType::Bf16 };
    let of = |(name, view): (&str, TensorView<'_>)| {
        (name.to_owned(), (view.shape().to_vec(), values(&view)))
    };
    Case { name, tensors: file.iter().map(of).collect(), module, scale, layer, dtype }
}

/// Each factor, with its name in the file.
fn factors(module: &mut Module) -> Vec<(&'static str, &mut Factor)> {
    let mut all = Vec::new();
    match &mut module.factors {
        Factors::Lora { a, b, core } => {
            all.extend(core.iter_mut().map(|of| ("lora_mid.weight", of)));
            all.extend([("lora_down.weight", a), ("lora_up.weight", b)]);
        }
        Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
            all.extend([
                ("hada_w1_a", w1a),
                ("hada_w1_b", w1b),
                ("hada_w2_a", w2a),
                ("hada_w2_b", w2b),
            ]);
            all.extend(cores.iter_mut().flat_map(|[t1, t2]| [("hada_t1", t1), ("hada_t2", t2)]));
        }
        Factors::Lokr { w1, w2, core } => {
            match w1 {
                Side::Full(of) => all.push(("lokr_w1", of)),
                Side::Low(a, b) => all.extend([("lokr_w1_a", a), ("lokr_w1_b", b)]),
            }
            match w2 {
                Side::Full(of) => all.push(("lokr_w2", of)),
                Side::Low(a, b) => all.extend([("lokr_w2_a", a), ("lokr_w2_b", b)]),
            }
            all.extend(core.iter_mut().map(|of| ("lokr_t2", of)));
        }
        other => panic!("{other:?}"),
    }
    all
}

impl Case {
    fn tensor(&self, name: &str) -> &[f64] {
        let peft = |name: &str| name.replace("lora_down", "lora_A").replace("lora_up", "lora_B");
        let found = self.tensors.get(name).or_else(|| self.tensors.get(&peft(name)));
        &found.unwrap_or_else(|| panic!("{}: {name}", self.name)).1
    }

    /// The largest distance of y, dx and all gradients from the package's in f64.
    fn check(&self) -> f64 {
        let (n, k) = (self.module.out_features(), self.module.in_features());
        let delta = unscaled(&self.module).values;
        let mut w: Vec<f64> =
            self.tensor("w").iter().zip(&delta).map(|(w, delta)| w + self.scale * delta).collect();
        // DoRA: rows at the magnitude's norm; the norm is no variable.
        let mut gain = vec![1.0; n];
        let norms: Vec<f64> =
            w.chunks(k).map(|row| row.iter().map(|w| w * w).sum::<f64>().sqrt()).collect();
        if let Some(m) = &self.module.magnitude {
            gain = m.values().iter().zip(&norms).map(|(m, norm)| f64::from(*m) / norm).collect();
        }
        for (row, gain) in w.chunks_mut(k).zip(&gain) {
            row.iter_mut().for_each(|w| *w *= gain);
        }
        let (x, dy, bias) = (self.tensor("x"), self.tensor("dy"), self.tensor("bias"));
        let pixels = self.layer.out[0] * self.layer.out[1];
        // y and dy as [image, n, pixel].
        let place = |n_of: usize, at: usize| (at / pixels * n + n_of) * pixels + at % pixels;
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        let mut g = vec![0.0; n * k];
        for of in 0..n {
            self.layer.each(|x_at, k_at, at| {
                let at = place(of, at);
                y[at] += x[x_at] * w[of * k + k_at];
                dx[x_at] += dy[at] * w[of * k + k_at];
                g[of * k + k_at] += dy[at] * x[x_at];
            });
        }
        let mut most = 0f64;
        if let Some(m) = &self.module.magnitude {
            let slope = |of: usize| {
                let places = (0..y.len() / n).map(|at| place(of, at));
                places.map(|at| dy[at] * y[at]).sum::<f64>() / f64::from(m.values()[of])
            };
            let got: Vec<f64> = (0..n).map(slope).collect();
            most = most.max(distance(&got, self.tensor("d_lora_magnitude_vector_f64")));
        }
        for (at, y) in y.iter_mut().enumerate() {
            *y += bias[at / pixels % n];
        }
        most =
            most.max(distance(&y, self.tensor("y_f64"))).max(distance(&dx, self.tensor("dx_f64")));
        for (at, g) in g.iter_mut().enumerate() {
            *g *= self.scale * gain[at / k];
        }
        let mut module = self.module.clone();
        let names: Vec<_> = factors(&mut module).iter().map(|(name, _)| *name).collect();
        for (nth, name) in names.iter().enumerate() {
            let wanted = self.tensor(&format!("d_{name}_f64"));
            let mut slopes = Vec::new();
            let own = factors(&mut module)[nth].1.clone();
            for at in 0..own.rows() * own.cols() {
                let mut with = |step: f32| {
                    let mut values = own.values();
                    values[at] += step;
                    let moved = values[at];
                    let moved_factor = Factor::new(own.rows(), own.cols(), DType::F32, &values);
                    *factors(&mut module)[nth].1 = moved_factor.unwrap();
                    let loss =
                        unscaled(&module).values.iter().zip(&g).map(|(w, g)| w * g).sum::<f64>();
                    (loss, f64::from(moved))
                };
                let ((high, up), (low, down)) = (with(1.0), with(-1.0));
                slopes.push((high - low) / (up - down));
            }
            *factors(&mut module)[nth].1 = own;
            let far = distance(&slopes, wanted);
            assert!(far < 1e-12, "{}: {name}: {far}", self.name);
            most = most.max(far);
        }
        most
    }
}

#[test]
fn every_method_has_the_packages_outputs_and_gradients() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/family");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|of| of == "safetensors")).collect();
    paths.sort();
    assert_eq!(paths.len(), 44);
    let mut most = 0f64;
    for path in paths {
        let case = read(&path);
        let far = case.check();
        assert!(far < 1e-12, "{}: {far}", case.name);
        most = most.max(far);
    }
    println!("at most {most:.1e} of the largest element away");
}

/// Linear layers through the executor, as the LoRA that each is: within the tolerance of the truth.
#[test]
fn linear_layers_run_as_the_lora_that_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/family");
    let device = Device::cpu();
    let (mut runs, mut most) = (0, 0f64);
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let linear = path.to_str().unwrap().contains("_linear_");
        if !linear || path.extension().is_none_or(|of| of != "safetensors") {
            continue;
        }
        let case = read(&path);
        let Ok(lora) = case.module.to_lora() else {
            assert!(case.name.starts_with("lokr_full"), "{}", case.name);
            continue;
        };
        if lora.magnitude.is_some() {
            continue;
        }
        let (a, b) = lora.plain().unwrap();
        let (m, k, n) = (case.layer.images, lora.in_features(), lora.out_features());
        let problem = Problem::forward(m, k, n, lora.rank())
            .with_activation(case.dtype)
            .with_scale(lora.scale)
            .with_bias(true)
            .with_keep_shrunk(false);
        let tensor = |rows, cols, dtype, values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            device.tensor(rows, cols, dtype, &values).unwrap()
        };
        let wide = |of: &Factor| of.values().into_iter().map(f64::from).collect::<Vec<f64>>();
        let (a, b) = (wide(a), wide(b));
        let operand = |operand| match operand {
            Operand::X => Dense::new(m, k, case.tensor("x").to_vec()),
            Operand::W => Dense::new(n, k, case.tensor("w").to_vec()),
            Operand::Bias => Dense::new(1, n, case.tensor("bias").to_vec()),
            Operand::A => Dense::new(lora.rank(), k, a.clone()),
            Operand::B => Dense::new(n, lora.rank(), b.clone()),
            other => unreachable!("{other}"),
        };
        let x = tensor(m, k, case.dtype, case.tensor("x"));
        let w = tensor(n, k, case.dtype, case.tensor("w"));
        let bias = tensor(1, n, case.dtype, case.tensor("bias"));
        let (at, bt) =
            (tensor(lora.rank(), k, DType::F32, &a), tensor(n, lora.rank(), DType::F32, &b));
        let mut y = device.zeros(m, n, case.dtype).unwrap();
        let forward = Forward::new(&x, &w, &mut y).bias(&bias).adapter(&at, &bt).scale(lora.scale);
        device.forward(forward).unwrap();
        let results = expected(&problem, Sums::F32, operand);
        let (_, result) = results.iter().find(|(operand, _)| *operand == Operand::Y).unwrap();
        // The composed factors and the scale are rounded to f32, once each.
        let composed = |row: usize, col: usize| {
            let shrunk = |p: usize| {
                (0..k).map(|i| (case.tensor("x")[row * k + i] * a[p * k + i]).abs()).sum::<f64>()
            };
            let all = (0..lora.rank()).map(|p| shrunk(p) * b[col * lora.rank() + p].abs());
            all.sum::<f64>() * f64::from(lora.scale).abs() * 3.0 * 2f64.powi(-24)
        };
        for (nth, (got, truth)) in y.to_f32().unwrap().iter().zip(case.tensor("y_f64")).enumerate()
        {
            let (row, col) = (nth / n, nth % n);
            let bound = result.tolerance.at(row, col) + composed(row, col);
            most = most.max((f64::from(*got) - truth).abs() / bound);
        }
        runs += 1;
    }
    println!("{runs} layers, used {most:.3} of the tolerance");
    assert_eq!(runs, 12);
    assert!(most <= 1.0, "used {most} of the tolerance");
}
