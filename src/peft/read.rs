//! The way from the bytes of the two files to an adapter, with every reason to refuse them on it.
//! Called by `AdapterFile::read` and `from_bytes`.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::{self, Tensor};
use super::names::{self, Role};
use super::target::{Target, modules_to_save};
use super::work::Work;
use super::{
    AdapterConfig, AdapterFile, CONFIG_FILE, Factor, MODEL_FILE, Module, Weight, at, factor, fits,
    foreign, shown,
};
use crate::Result;

/// Heads that PEFT puts into `modules_to_save` unasked for `task_type` SEQ_CLS, TOKEN_CLS and QUESTION_ANS,
/// whichever of them the model has.
const HEADS: &[&str] = &["classifier", "score", "qa_outputs"];

/// The two factors of a module while they are being collected.
type Pair = [Option<Factor>; 2];

pub(super) fn parse(
    model: &[u8],
    model_path: &Path,
    config: &[u8],
    config_path: &Path,
) -> Result<AdapterFile> {
    let of_config = |reason| at(config_path, reason);
    let of_model = |reason| at(model_path, reason);
    let work = &mut Work::for_bytes(model.len().saturating_add(config.len()));
    let read = AdapterConfig::from_json(config);
    let config = read.map_err(|reason| of_config(known(config, reason, b'{')))?;
    let saved = modules_to_save(config.others()).map_err(of_config)?;
    let tensors = header::tensors(model);
    let tensors = tensors.map_err(|reason| of_model(known(model, reason, 0)))?;
    let Sorted { pairs, whole, saved } = sort(tensors, saved, work).map_err(of_model)?;
    if let Some(why) = left_out(&saved) {
        return Err(of_config(why));
    }
    let modules = modules(pairs).map_err(of_model)?;
    let file = AdapterFile { config, modules, replaced: whole };

    let paths: Vec<&str> = file.modules.keys().map(String::as_str).collect();
    let mut target = Target::new(&file.config, work).map_err(of_config)?;
    for path in &paths {
        if let Some(why) = target.refuses(path, work).map_err(of_config)? {
            let remedy =
                "PEFT would pass over its factors; change the field, or take the tensors out";
            return Err(of_config(format!("{why}: {remedy}")));
        }
    }
    if let Some(why) = target.unmet(work).map_err(of_config)? {
        return Err(of_config(why));
    }
    drop(target);
    let found = file.config.ranks_and_scales(&paths, work).map_err(of_config)?;
    let mut file = file;
    for ((path, module), (rank, scale)) in file.modules.iter_mut().zip(found) {
        if rank != module.rank() {
            return Err(of_model(format!(
                "module `{}`: expected rank {rank} by r and rank_pattern of {CONFIG_FILE}, got {}",
                shown(path),
                module.rank()
            )));
        }
        module.scale = scale;
    }
    Ok(file)
}

/// The reason for a file that could not be read at all, unless it is known by how it begins. `own`: how the
/// right file begins.
fn known(file: &[u8], reason: String, own: u8) -> String {
    foreign::file(file).filter(|_| file.first() != Some(&own)).unwrap_or(reason)
}

/// Every tensor of the file: factors by module, whole weights by name; and what `modules_to_save` names,
/// with whether it was there.
struct Sorted {
    pairs: BTreeMap<String, Pair>,
    whole: BTreeMap<String, Weight>,
    saved: Vec<(String, bool)>,
}

fn sort<'a>(
    tensors: impl Iterator<Item = Tensor<'a>>,
    saved: Vec<String>,
    work: &mut Work,
) -> Result<Sorted, String> {
    let mut saved: Vec<_> = saved.into_iter().map(|name| (name, false)).collect();
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut whole = BTreeMap::new();
    for tensor in tensors {
        let name = &tensor.name;
        match names::role(name, &mut saved, work)? {
            Role::Factor(path, which) => {
                let factor = read_factor(&tensor)?;
                let place = &mut pairs.entry(path.to_owned()).or_default()[which];
                if place.replace(factor).is_some() {
                    return Err(format!(
                        "tensor `{}`: its module has this factor twice",
                        shown(name)
                    ));
                }
            }
            Role::Whole(path) => {
                let weight =
                    Weight::from_bytes(tensor.shape.dimensions(), dtype(&tensor)?, tensor.bytes);
                if whole.insert(path.to_owned(), weight).is_some() {
                    return Err(format!("tensor `{}`: is there twice", shown(name)));
                }
            }
        }
    }
    if pairs.is_empty() {
        return Err("no lora_A or lora_B in it: it would do nothing; save again, with the parts \
                    gathered (ZeRO-3, FSDP) and with PEFT's own state dict (save_pretrained without \
                    state_dict)"
            .into());
    }
    Ok(Sorted { pairs, whole, saved })
}

/// What `modules_to_save` names and the file does not have.
fn left_out(saved: &[(String, bool)]) -> Option<String> {
    // The heads are one name for each kind of model: one of them is enough.
    let head = |name: &str| HEADS.contains(&name);
    let any_head = saved.iter().any(|(name, met)| head(name) && *met);
    let (name, _) = saved.iter().find(|(name, met)| !(*met || any_head && head(name)))?;
    Some(format!(
        "modules_to_save: [\"{}\"] is not in {MODEL_FILE}: the save left it out; or, where the base model \
         has no such module, take the entry out",
        shown(name)
    ))
}

fn modules(pairs: BTreeMap<String, Pair>) -> Result<BTreeMap<String, Module>, String> {
    let mut modules = BTreeMap::new();
    for (path, pair) in pairs {
        let (a, b) = match pair {
            [Some(a), Some(b)] => (a, b),
            [a, _] => {
                let missing = if a.is_none() { "A" } else { "B" };
                return Err(format!(
                    "module `{}`: lora_{missing}.weight is missing: the save left it out, so save \
                     again with both",
                    shown(&path)
                ));
            }
        };
        fits(&path, &a, &b)?;
        modules.insert(path, Module { scale: 0.0, a, b });
    }
    Ok(modules)
}

fn dtype(tensor: &Tensor<'_>) -> Result<crate::DType, String> {
    factor::loaded(tensor.dtype).ok_or_else(|| {
        let expected = "expected F32, F16 or BF16, got";
        format!("tensor `{}`: {expected} {:?}; convert it", shown(&tensor.name), tensor.dtype)
    })
}

fn read_factor(tensor: &Tensor<'_>) -> Result<Factor, String> {
    let dtype = dtype(tensor)?;
    match *tensor.shape.dimensions() {
        [rows, cols] => Ok(Factor::from_bytes(rows, cols, dtype, tensor.bytes)),
        ref other => {
            let what = match other.len() {
                1 => {
                    "a part of ZeRO-3 or FSDP that was not gathered before the save: gather, save again"
                }
                _ => "an adapter of a convolution, which is not supported",
            };
            let name = shown(&tensor.name);
            Err(format!("tensor `{name}`: expected two dimensions, got {other:?}: {what}"))
        }
    }
}

/// Why a folder's tensors would be refused without its configuration: a layout that has none.
pub(super) fn without_config(model: &[u8]) -> Option<String> {
    let mut tensors = header::tensors(model).ok()?.take(1000);
    tensors.find_map(|tensor| foreign::tensor(&tensor.name))
}
