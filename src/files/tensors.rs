//! A module as the tensors of a file: names, shapes and alpha as LyCORIS and kohya, or as PEFT, save them. Called by
//! `state_dict` and by PEFT's writer.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::factors::{Factors, Side};
use super::suffix::{Layout, Part};
use super::{Factor, Module, factor, state_dict};

/// A tensor to be written.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl Tensor<'_> {
    pub(super) fn under(self, prefix: &str) -> Self {
        Tensor { name: format!("{prefix}{}", self.name), ..self }
    }
}

/// The factors and the magnitude. Errors are reasons: what the layout does not have.
pub(super) fn of(module: &Module, layout: Layout) -> Result<Vec<Tensor<'_>>, String> {
    let peft = layout == Layout::Peft;
    let kernel = &*module.kernel;
    let taps: usize = kernel.iter().product();
    let flat = |of: &Factor| vec![of.rows(), of.cols()];
    // What has no kernel of its own has ones in its place.
    let ones = |of: &Factor| [flat(of), vec![1; kernel.len()]].concat();
    let spatial = |of: &Factor| [&[of.rows(), of.cols() / taps], kernel].concat();
    // PEFT's core for a kernel of one dimension has two.
    let core = |of: &Factor| {
        let more = &[1][..usize::from(peft && kernel.len() == 1)];
        [&[of.rows(), of.rows()], kernel, more].concat()
    };
    let mut parts: Vec<(Part, Vec<usize>, &Factor)> = Vec::new();
    match &module.factors {
        Factors::Lora { a, b, core: None } => {
            parts.extend([(Part::Down, spatial(a), a), (Part::Up, ones(b), b)]);
        }
        Factors::Lora { .. } if peft => {
            return Err("PEFT has no Tucker core for LoRA: Module::to_lora takes it in".into());
        }
        Factors::Lora { a, b, core: Some(mid) } => {
            parts.extend([(Part::Down, ones(a), a), (Part::Up, ones(b), b)]);
            parts.push((Part::Mid, core(mid), mid));
        }
        Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
            parts.extend([(Part::HadaW1a, flat(w1a), w1a), (Part::HadaW1b, flat(w1b), w1b)]);
            parts.extend([(Part::HadaW2a, flat(w2a), w2a), (Part::HadaW2b, flat(w2b), w2b)]);
            if let Some([t1, t2]) = cores {
                parts.extend([(Part::HadaT1, core(t1), t1), (Part::HadaT2, core(t2), t2)]);
            }
        }
        Factors::Lokr { w1, w2, core: t2 } => {
            match w1 {
                Side::Full(w1) => parts.push((Part::LokrW1, flat(w1), w1)),
                Side::Low(a, b) => {
                    parts.extend([(Part::LokrW1a, flat(a), a), (Part::LokrW1b, flat(b), b)]);
                }
            }
            match w2 {
                Side::Full(w2) => parts.push((Part::LokrW2, spatial(w2), w2)),
                Side::Low(a, b) => {
                    parts.extend([(Part::LokrW2a, flat(a), a), (Part::LokrW2b, flat(b), b)]);
                }
            }
            parts.extend(t2.iter().map(|t2| (Part::LokrT2, core(t2), t2)));
        }
    }
    if let Some(m) = &module.magnitude {
        let ones = vec![1; kernel.len()];
        parts.push(match (layout, &module.factors) {
            (Layout::Lycoris, _) => (Part::DoraScale, [vec![m.cols(), 1], ones].concat(), m),
            (Layout::Peft, Factors::Lora { .. }) => {
                let first = if kernel.is_empty() { vec![m.cols()] } else { vec![1, m.cols()] };
                (Part::MagnitudeVector, [first, ones].concat(), m)
            }
            _ => return Err(format!("PEFT has no DoRA on {}", module.method())),
        });
    }
    let tensors = parts.into_iter().map(|(part, shape, of)| Tensor {
        name: part.name(layout).to_owned(),
        dtype: factor::stored(of.dtype()),
        shape,
        bytes: Cow::Borrowed(of.bytes()),
    });
    Ok(tensors.collect())
}

/// The tensor `alpha` that gives the module's scale again to the last bit: in f32 where one does, else in f64.
pub(super) fn alpha(module: &Module) -> Result<Option<Tensor<'static>>, String> {
    let rank = module.rank() as f64;
    if state_dict::has_no_alpha(module) {
        let expected = "LyCORIS' layout has no scale for LoKr of two full factors";
        return match module.scale == 1.0 {
            // LyCORIS' reader wants one, and passes over it.
            true => Ok(Some(scalar(1.0))),
            false => Err(format!("{expected}, got {}: Module::fold_scale", module.scale)),
        };
    }
    if module.scale == 0.0 {
        return Err(
            "a scale of 0, which the layouts of one file do not agree about: leave the module out"
                .into(),
        );
    }
    // Exact: 24 bits of the scale times a rank of fewer than 29.
    let wide = f64::from(module.scale) * rank;
    let narrow = wide as f32;
    let again = (f64::from(narrow) / rank) as f32;
    Ok(Some(if again == module.scale { scalar(narrow) } else { wide_scalar(wide) }))
}

fn scalar(value: f32) -> Tensor<'static> {
    of_alpha(Dtype::F32, value.to_le_bytes().to_vec())
}

fn wide_scalar(value: f64) -> Tensor<'static> {
    of_alpha(Dtype::F64, value.to_le_bytes().to_vec())
}

fn of_alpha(dtype: Dtype, bytes: Vec<u8>) -> Tensor<'static> {
    let name = Part::Alpha.name(Layout::Lycoris).into();
    Tensor { name, dtype, shape: Vec::new(), bytes: bytes.into() }
}

/// The contents of a safetensors file of these.
pub(super) fn serialize(tensors: Vec<Tensor<'_>>) -> Result<Vec<u8>, String> {
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
            .map_err(|error| format!("{}: {error}", tensor.name))?;
        views.push((&*tensor.name, view));
    }
    // One entry: a map of several would be written in random order.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| format!("cannot be written: {error}"))
}
