//! The way from the bytes of the two files to an adapter, with every reason to refuse them on it.
//! Called by `AdapterFile::read` and `from_bytes`.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::{AdapterConfig, AdapterFile, CONFIG_FILE, Factor, Module, PREFIX, at, factor, fits};
use crate::Result;

/// The two factors of a module while they are being collected.
type Pair = [Option<Factor>; 2];

pub(super) fn parse(
    model: &[u8],
    model_path: &Path,
    config: &[u8],
    config_path: &Path,
) -> Result<AdapterFile> {
    let config = AdapterConfig::from_json(config).map_err(|reason| at(config_path, reason))?;
    let pairs = pairs(model).map_err(|reason| at(model_path, reason))?;
    let mut modules = BTreeMap::new();
    for (path, pair) in pairs {
        let (a, b) = match pair {
            [Some(a), Some(b)] => (a, b),
            [a, _] => {
                let missing = if a.is_none() { "A" } else { "B" };
                let reason = format!("module `{path}`: lora_{missing}.weight is missing");
                return Err(at(model_path, reason));
            }
        };
        fits(&path, &a, &b).map_err(|reason| at(model_path, reason))?;
        let (rank, scale) =
            config.rank_and_scale(&path).map_err(|reason| at(config_path, reason))?;
        if rank != a.rows() {
            let reason = format!(
                "module `{path}`: expected rank {rank} by r and rank_pattern of {CONFIG_FILE}, \
                 got {}",
                a.rows()
            );
            return Err(at(model_path, reason));
        }
        modules.insert(path, Module { scale, a, b });
    }
    Ok(AdapterFile { config, modules })
}

/// Every tensor of the file, by module.
fn pairs(file: &[u8]) -> Result<BTreeMap<String, Pair>, String> {
    let (metadata, data) = split(file)?;
    // In the order of the file, so that the first fault reported is always the same one.
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (path, which) = module_of(&name)?;
        let factor = factor(&name, info, data)?;
        let place = &mut pairs.entry(path.to_owned()).or_default()[which];
        if place.replace(factor).is_some() {
            return Err(format!("tensor `{name}`: its module has this factor twice"));
        }
    }
    Ok(pairs)
}

/// Header and data. By hand, because `SafeTensors::deserialize` adds sizes unchecked.
fn split(file: &[u8]) -> Result<(Metadata, &[u8]), String> {
    let damaged = |what: &str| format!("not a safetensors file, or cut off: {what}");
    let (len, rest) =
        file.split_first_chunk::<8>().ok_or_else(|| damaged("shorter than its first 8 bytes"))?;
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let (header, data) = rest
        .split_at_checked(len)
        .ok_or_else(|| damaged(&format!("a header of {len} bytes in a file of {}", file.len())))?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| damaged(&format!("header: {error}")))?;
    if metadata.data_len() != data.len() {
        let sizes = format!("expected {} bytes of data, got {}", metadata.data_len(), data.len());
        return Err(damaged(&sizes));
    }
    Ok((metadata, data))
}

/// The module that a tensor belongs to, and whether it is lora_A (0) or lora_B (1).
fn module_of(name: &str) -> Result<(&str, usize), String> {
    let unknown = |why: &str| Err(format!("tensor `{name}`: {why}"));
    // With the adapter's name in it the tensor comes from a raw state dict.
    let suffixes =
        [("A.weight", 0), ("A.default.weight", 0), ("B.weight", 1), ("B.default.weight", 1)];
    let (path, suffix) = match (name.strip_prefix(PREFIX), name.rsplit_once(".lora_")) {
        (Some(_), Some((path, suffix))) => (path.get(PREFIX.len()..).unwrap_or(""), suffix),
        (None, _) => return unknown("expected a name that begins with `base_model.model.`"),
        (Some(_), None) => return unknown("belongs to no lora_A or lora_B (a retrained module?)"),
    };
    if path.is_empty() {
        return unknown("names no module");
    }
    if let Some((_, which)) = suffixes.into_iter().find(|(of, _)| *of == suffix) {
        return Ok((path, which));
    }
    match suffix.split('.').next() {
        Some("magnitude_vector") => unknown("DoRA's magnitude is not supported"),
        Some("embedding_A" | "embedding_B") => unknown("adapters of embeddings are not supported"),
        Some("B") if suffix.ends_with("bias") => unknown("a bias on lora_B is not supported"),
        _ => unknown("expected lora_A.weight or lora_B.weight"),
    }
}

fn factor(name: &str, info: &TensorInfo, data: &[u8]) -> Result<Factor, String> {
    let dtype = factor::loaded(info.dtype).ok_or_else(|| {
        format!("tensor `{name}`: expected F32, F16 or BF16, got {:?}", info.dtype)
    })?;
    let [rows, cols] = info.shape[..] else {
        return Err(format!("tensor `{name}`: expected two dimensions, got {:?}", info.shape));
    };
    let (begin, end) = info.data_offsets;
    let bytes = data.get(begin..end).ok_or_else(|| format!("tensor `{name}`: cut off"))?;
    Ok(Factor::from_bytes(rows, cols, dtype, bytes))
}
