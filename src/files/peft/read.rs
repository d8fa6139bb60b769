//! The way from the bytes of the two files to an adapter, with every reason to refuse them on it.
//! Called by `AdapterFile::read` and `from_bytes`.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::header::{self, Tensor};
use super::super::parts::{self, Parts};
use super::super::refuse::known;
use super::super::suffix::Layout;
use super::super::{Module, Weight, at, shown};
use super::names::{self, Role};
use super::target::{Target, modules_to_save};
use super::work::Work;
use super::{AdapterConfig, AdapterFile, CONFIG_FILE, MODEL_FILE, foreign};
use crate::Result;

/// Heads that PEFT puts into `modules_to_save` unasked for `task_type` SEQ_CLS, TOKEN_CLS and QUESTION_ANS,
/// whichever of them the model has.
const HEADS: &[&str] = &["classifier", "score", "qa_outputs"];

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
    let Sorted { parts, whole, saved } = sort(tensors, saved, work).map_err(of_model)?;
    if let Some(why) = left_out(&saved) {
        return Err(of_config(why));
    }
    let modules = modules(parts, &config).map_err(of_model)?;
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
        // Two full factors of LoKr have no rank of their own.
        if module.rank() != 0 && rank != module.rank() {
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

/// Every tensor of the file: factors by module, whole weights by name; and what `modules_to_save` names,
/// with whether it was there.
struct Sorted<'a> {
    parts: BTreeMap<String, Parts<'a>>,
    whole: BTreeMap<String, Weight>,
    saved: Vec<(String, bool)>,
}

fn sort<'a>(
    tensors: impl Iterator<Item = Tensor<'a>>,
    saved: Vec<String>,
    work: &mut Work,
) -> Result<Sorted<'a>, String> {
    let mut saved: Vec<_> = saved.into_iter().map(|name| (name, false)).collect();
    let mut parts: BTreeMap<String, Parts<'a>> = BTreeMap::new();
    let mut whole = BTreeMap::new();
    for tensor in tensors {
        match names::role(&tensor.name, &mut saved, work)? {
            Role::Factor(path, part) => {
                let path = path.to_owned();
                let of = parts.entry(path).or_insert_with(|| Parts::new(Layout::Peft));
                of.insert(part, tensor)?;
            }
            Role::Whole(path) => {
                let dtype = parts::dtype(&tensor)?;
                let weight = Weight::from_bytes(tensor.shape.dimensions(), dtype, tensor.bytes);
                if whole.insert(path.to_owned(), weight).is_some() {
                    return Err(format!("tensor `{}`: is there twice", shown(&tensor.name)));
                }
            }
        }
    }
    if parts.is_empty() {
        return Err("no factor of an adapter in it: it would do nothing; save again, with the parts \
                    gathered (ZeRO-3, FSDP) and with PEFT's own state dict (save_pretrained without \
                    state_dict)"
            .into());
    }
    Ok(Sorted { parts, whole, saved })
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

fn modules(
    parts: BTreeMap<String, Parts<'_>>,
    config: &AdapterConfig,
) -> Result<BTreeMap<String, Module>, String> {
    let mut modules = BTreeMap::new();
    for (path, parts) in parts {
        let module = parts.module(&path)?;
        if let Some(why) = config.differs(&module) {
            return Err(format!("module `{}`: {why}", shown(&path)));
        }
        modules.insert(path, module);
    }
    Ok(modules)
}

/// Why a folder's tensors would be refused without its configuration: a layout that has none.
pub(super) fn without_config(model: &[u8]) -> Option<String> {
    let mut tensors = header::tensors(model).ok()?.take(1000);
    tensors.find_map(|tensor| foreign::tensor(&tensor.name))
}
