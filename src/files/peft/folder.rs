//! The adapter's folder: its two files read, what lies there instead of them told, and both written so
//! that each appears whole or not at all. Called by `AdapterFile::read` and `write`.

use std::io::ErrorKind;
use std::path::Path;

use super::super::{Pending, at};
use super::{CONFIG_FILE, MODEL_FILE, read};
use crate::Result;

/// What may lie there instead, and what to do: the beginning and the end of the name.
const INSTEAD: &[(&str, &str, &str)] = &[
    (
        "adapter_model",
        ".bin",
        "a pickle of torch.save: load it in PEFT and save it again (safe_serialization=True)",
    ),
    ("adapter_model", ".index.json", "an index of several parts: join the parts into one file"),
    ("adapter_model-", ".safetensors", "one of several parts: join the parts into one file"),
    ("adapters", ".safetensors", "MLX' layout, not PEFT's: convert it"),
    ("adapters", ".npz", "MLX' layout, not PEFT's: convert it"),
    (
        "pytorch_lora_weights",
        ".safetensors",
        "diffusers' layout, not PEFT's: read it with files::StateDict",
    ),
    ("pytorch_lora_weights", ".bin", "diffusers' layout, not PEFT's: save it with PEFT"),
    ("lit_model.pth", ".lora", "LitGPT's layout, not PEFT's: convert it"),
    ("model", ".safetensors", "a whole model: an adapter merged into it needs no file of its own"),
    (
        "",
        ".safetensors",
        "not the name that PEFT gives: rename it, if it is PEFT's; else read it with files::StateDict",
    ),
];

/// Names that are looked at to tell what lies there.
const LOOKED_AT: usize = 1000;

/// The contents of the two files: tensors and configuration.
pub(super) fn contents(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let [model, config] = [MODEL_FILE, CONFIG_FILE].map(|name| folder.join(name));
    let tensors = std::fs::read(&model).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => at(&model, instead(folder)),
        _ => at(&model, error.to_string()),
    })?;
    let settings = std::fs::read(&config).map_err(|error| {
        let reason = (error.kind() == ErrorKind::NotFound).then(|| read::without_config(&tensors));
        at(
            &config,
            match reason {
                Some(Some(layout)) => format!("not there; {MODEL_FILE}: {layout}"),
                Some(None) => {
                    "not there: without alpha there is no scale; save it again with PEFT".into()
                }
                None => error.to_string(),
            },
        )
    })?;
    Ok((tensors, settings))
}

/// What there is where no `adapter_model.safetensors` is.
fn instead(folder: &Path) -> String {
    if folder.is_file() {
        return "expected the adapter's folder, got a file".into();
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return "there is no such folder".into() };
    let mut names: Vec<(String, bool)> = Vec::new();
    for entry in entries.flatten().take(LOOKED_AT) {
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path().join(MODEL_FILE).is_file()));
        }
    }
    names.sort();
    for (begin, end, what) in INSTEAD {
        let fits = |name: &str| name.starts_with(begin) && name.ends_with(end);
        if let Some((name, _)) = names.iter().find(|(name, inner)| !inner && fits(name)) {
            return format!("not there, but `{name}`: {what}");
        }
    }
    match names.iter().find(|(_, inner)| *inner) {
        Some((name, _)) => {
            format!(
                "not there, but in the folder `{name}`, as PEFT saves an adapter of that name: read it"
            )
        }
        None => "not there".into(),
    }
}

/// Writes the contents of the two files into `folder`, which is made where it does not exist.
pub(super) fn write(folder: &Path, model: &[u8], config: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| at(folder, error.to_string()))?;
    let model = Pending::write(folder.join(MODEL_FILE), model)?;
    let config = Pending::write(folder.join(CONFIG_FILE), config)?;
    model.publish()?;
    config.publish()
}
