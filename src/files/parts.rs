//! The tensors of one module, put together: which method they are of, whether they are all there, and what their
//! shapes say. Filled by `state_dict` and by PEFT's `read`, both of which then set the scale.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;

use super::factors::{Factors, Side};
use super::header::Tensor;
use super::suffix::{Layout, Part};
use super::{Factor, Method, Module, factor, shown};

/// What of one module has been met.
pub(super) struct Parts<'a> {
    layout: Layout,
    tensors: BTreeMap<Part, Tensor<'a>>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(layout: Layout) -> Parts<'a> {
        Parts { layout, tensors: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, part: Part, tensor: Tensor<'a>) -> Result<(), String> {
        match self.tensors.contains_key(&part) {
            true => {
                let name = shown(&tensor.name);
                Err(format!("tensor `{name}`: its module has this factor twice"))
            }
            false => {
                self.tensors.insert(part, tensor);
                Ok(())
            }
        }
    }

    /// The tensor `alpha`, taken out; not all that can be saved is a sensible alpha.
    pub(super) fn alpha(&mut self) -> Result<Option<f64>, String> {
        let Some(tensor) = self.tensors.remove(&Part::Alpha) else { return Ok(None) };
        let wrong = |got: String| format!("tensor `{}`: expected {got}", shown(&tensor.name));
        if tensor.shape.dimensions().iter().any(|&size| size != 1) {
            return Err(wrong(format!("one number, got {:?}", tensor.shape.dimensions())));
        }
        let alpha = number(tensor.dtype, tensor.bytes)
            .ok_or_else(|| wrong(format!("a number, got {:?}; convert it", tensor.dtype)))?;
        match alpha.is_finite() {
            true => Ok(Some(alpha)),
            false => Err(wrong(format!("a finite number, got {alpha}"))),
        }
    }

    /// The module, its scale still 0. Errors are reasons.
    pub(super) fn module(mut self, name: &str) -> Result<Module, String> {
        let of = |reason| format!("module `{}`: {reason}", shown(name));
        let method = self.method().map_err(of)?;
        let magnitude = [Part::DoraScale, Part::MagnitudeVector]
            .map(|part| self.tensors.remove(&part).map(|tensor| (part, tensor)));
        let (factors, kernel) = match method {
            Method::Lora => self.lora(),
            Method::Loha => self.loha(),
            Method::Lokr => self.lokr(),
        }
        .map_err(|reason| if reason.starts_with("tensor `") { reason } else { of(reason) })?;
        let mut module = Module { factors, scale: 0.0, magnitude: None, kernel };
        module.check().map_err(of)?;
        match magnitude {
            [Some(_), Some(_)] => {
                return Err(of("dora_scale and lora_magnitude_vector both".into()));
            }
            [one, other] => {
                let magnitude =
                    one.or(other).map(|(part, tensor)| read_magnitude(part, &tensor, &module));
                module.magnitude = magnitude.transpose()?;
            }
        }
        Ok(module)
    }

    /// Of which method the factors are.
    fn method(&self) -> Result<Method, String> {
        let has =
            |parts: core::ops::RangeInclusive<Part>| self.tensors.range(parts).next().is_some();
        let found = [
            (Method::Lora, has(Part::Down..=Part::Mid)),
            (Method::Loha, has(Part::HadaW1a..=Part::HadaT2)),
            (Method::Lokr, has(Part::LokrW1..=Part::LokrT2)),
        ];
        let mut found = found.iter().filter(|(_, has)| *has).map(|(method, _)| *method);
        match (found.next(), found.next()) {
            (Some(method), None) => Ok(method),
            (Some(one), Some(other)) => Err(format!(
                "factors of {one} and of {other}: no method has both; take those of one out"
            )),
            (None, _) => {
                let alone =
                    self.tensors.keys().next().map_or("alpha", |part| part.name(self.layout));
                Err(format!("{alone} without factors: the save left them out, so save again"))
            }
        }
    }

    fn take(&mut self, part: Part) -> Result<Tensor<'a>, String> {
        self.tensors.remove(&part).ok_or_else(|| {
            let name = part.name(self.layout);
            format!("{name} is missing: the save left it out, so save again with all factors")
        })
    }

    fn matrix(&mut self, part: Part) -> Result<Factor, String> {
        Ok(flat(&self.take(part)?, 0)?.0)
    }

    fn lora(mut self) -> Result<(Factors, Vec<usize>), String> {
        let (down, up) = match [Part::Down, Part::Up].map(|part| self.take(part)) {
            [down, up] => (down?, up?),
        };
        let b = flat(&up, 0)?.0;
        match self.tensors.remove(&Part::Mid) {
            Some(mid) => {
                let (core, kernel) = flat(&mid, 2)?;
                Ok((Factors::Lora { a: flat(&down, 0)?.0, b, core: Some(core) }, kernel))
            }
            None => {
                let (a, kernel) = flat(&down, 2)?;
                Ok((Factors::Lora { a, b, core: None }, kernel))
            }
        }
    }

    fn loha(mut self) -> Result<(Factors, Vec<usize>), String> {
        let (w1a, w1b) = (self.matrix(Part::HadaW1a)?, self.matrix(Part::HadaW1b)?);
        let (w2a, w2b) = (self.matrix(Part::HadaW2a)?, self.matrix(Part::HadaW2b)?);
        let cored = [Part::HadaT1, Part::HadaT2].iter().any(|part| self.tensors.contains_key(part));
        let (cores, kernel) = match cored {
            true => {
                let (t1, kernel) = flat(&self.take(Part::HadaT1)?, 2)?;
                let (t2, other) = flat(&self.take(Part::HadaT2)?, 2)?;
                if kernel != other {
                    return Err(format!(
                        "expected two cores of one kernel, got {kernel:?} and {other:?}"
                    ));
                }
                (Some([t1, t2]), kernel)
            }
            false => (None, Vec::new()),
        };
        Ok((Factors::Loha { w1a, w1b, w2a, w2b, cores }, kernel))
    }

    fn lokr(mut self) -> Result<(Factors, Vec<usize>), String> {
        let mut kernel = Vec::new();
        let mut side = |[full, a, b]: [Part; 3], spatial| match self.tensors.remove(&full) {
            Some(whole) => {
                if let Some(both) = [a, b].iter().find(|part| self.tensors.contains_key(part)) {
                    let names = [full, *both].map(|part| part.name(self.layout));
                    return Err(format!("{} and {} both: take one out", names[0], names[1]));
                }
                let (factor, of) = flat(&whole, spatial)?;
                kernel.extend(of);
                Ok(Side::Full(factor))
            }
            None => Ok(Side::Low(self.matrix(a)?, self.matrix(b)?)),
        };
        let w1 = side([Part::LokrW1, Part::LokrW1a, Part::LokrW1b], 0)?;
        let w2 = side([Part::LokrW2, Part::LokrW2a, Part::LokrW2b], 2)?;
        let core = self.tensors.remove(&Part::LokrT2).map(|tensor| flat(&tensor, 2)).transpose()?;
        let core = core.map(|(core, of)| {
            kernel = of;
            core
        });
        Ok((Factors::Lokr { w1, w2, core }, kernel))
    }
}

/// A tensor of two dimensions and at most `spatial` more, as a matrix, and those; more of size 1 are passed over.
fn flat(tensor: &Tensor<'_>, spatial: usize) -> Result<(Factor, Vec<usize>), String> {
    let name = shown(&tensor.name);
    let [rows, cols, ref more @ ..] = *tensor.shape.dimensions() else {
        let got = tensor.shape.dimensions();
        let why = match got.len() {
            1 => {
                ": a part of ZeRO-3 or FSDP that was not gathered before the save: gather, save again"
            }
            _ => "",
        };
        return Err(format!("tensor `{name}`: expected two dimensions, got {got:?}{why}"));
    };
    let kernel = if more.len() <= spatial { more } else { &[] };
    if kernel.is_empty() && more.iter().any(|&size| size != 1) || more.len() > 2 {
        let got = tensor.shape.dimensions();
        let why = match spatial {
            0 => "no factor of this name has a kernel",
            _ => "convolutions in three dimensions are not supported",
        };
        return Err(format!("tensor `{name}`: expected two dimensions, got {got:?}: {why}"));
    }
    // The header was found to have as many elements as the shape.
    let cols = kernel.iter().fold(cols, |cols, size| cols.saturating_mul(*size));
    let dtype = dtype(tensor)?;
    Ok((Factor::from_bytes(rows, cols, dtype, tensor.bytes), kernel.to_vec()))
}

/// DoRA's m as a row of N.
fn read_magnitude(part: Part, tensor: &Tensor<'_>, module: &Module) -> Result<Factor, String> {
    let (n, shape) = (module.out_features(), tensor.shape.dimensions());
    let ones = |of: &[usize]| of.iter().all(|&size| size == 1);
    let fits = match (part, shape) {
        (Part::MagnitudeVector, [rows]) => *rows == n,
        (Part::MagnitudeVector, [1, rows, more @ ..]) if !more.is_empty() => {
            *rows == n && ones(more)
        }
        (_, [rows, more @ ..]) => *rows == n && !more.is_empty() && ones(more),
        _ => false,
    };
    if fits {
        return Ok(Factor::from_bytes(1, n, dtype(tensor)?, tensor.bytes));
    }
    let name = shown(&tensor.name);
    match (part, shape) {
        (Part::DoraScale, [1, ..]) => Err(format!(
            "tensor `{name}`: {shape:?} scales the inputs, not the {n} outputs (wd_on_output false, or an old \
             kohya): not supported; merge it into the base model with the library that wrote it"
        )),
        _ => Err(format!(
            "tensor `{name}`: expected a magnitude for each of {n} outputs, got {shape:?}"
        )),
    }
}

pub(super) fn dtype(tensor: &Tensor<'_>) -> Result<crate::DType, String> {
    factor::loaded(tensor.dtype).ok_or_else(|| {
        let expected = "expected F32, F16 or BF16, got";
        format!("tensor `{}`: {expected} {:?}; convert it", shown(&tensor.name), tensor.dtype)
    })
}

/// One number of any type that a scalar is saved in.
fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    match dtype {
        Dtype::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        Dtype::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?) as f64),
        Dtype::I32 => Some(f64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        dtype => {
            let dtype = factor::loaded(dtype)?;
            let values = Factor::from_bytes(1, 1, dtype, bytes).values();
            values.first().map(|&value| f64::from(value))
        }
    }
}
