//! Adapters as [PEFT](https://github.com/huggingface/peft) keeps them: a folder with
//! `adapter_model.safetensors` and `adapter_config.json`. Called by applications; frameworks
//! that have a loader of their own do not need it.
//!
//! `claims` hands an adapter's modules out to the layers of a model. `folder` has the two files, `read` the way from their bytes to an adapter, `write` the way back; `names` says
//! what a tensor is, `foreign` what strangers wrote instead. `config` is the JSON file
//! (`json` its syntax, `refuse` what it must not say); `target` says which modules it means and
//! `keys` which rank and alpha they have, both in PEFT's patterns (`pattern`, `python`,
//! `suffixes`; `work` ends what would take too long); `metadata` reads the same settings where diffusers keep them. `lokr` chooses the settings from which PEFT builds LoKr's
//! factors. This file has the public type.
//!
//! Read are LoRA, DoRA, LoHa and LoKr, on linear layers and convolutions; whatever else changes the formula
//! (a bias on lora_B, an initialisation that moves the frozen weight), and whatever would make the
//! file do less than it says (a factor, a part or a target left out, tensors of a module that is no
//! target) is refused with [`Error::Adapter`](crate::Error::Adapter), which names the file, the field or tensor, and what
//! to do. The time to read is linear in the files, and so is the memory.

mod claims;
mod config;
mod folder;
mod foreign;
mod json;
mod keys;
mod lokr;
pub(super) mod metadata;
mod names;
mod pattern;
mod python;
mod read;
mod refuse;
mod suffixes;
mod target;
mod work;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

pub use claims::Claims;
pub use config::{AdapterConfig, TargetModules};

pub use super::{Factor, Module, Weight};
use crate::Result;

/// The file of tensors in an adapter's folder.
pub const MODEL_FILE: &str = "adapter_model.safetensors";
/// The file of settings in an adapter's folder.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What PEFT puts before a module's path in the base model.
pub(super) const PREFIX: &str = "base_model.model.";

/// A module's path in the base model.
fn in_base(path: &str) -> &str {
    path.strip_prefix(PREFIX).unwrap_or(path)
}

/// An adapter: for each adapted layer, by its path in the base model, the factors and the scale.
///
/// The scale is alpha / r with the layer's own alpha and rank, alpha / √r for rsLoRA; of LoKr too where both factors are
/// full (LyCORIS and ComfyUI take 1 there).
///
/// ```
/// use fused_lora::DType;
/// use fused_lora::peft::{AdapterConfig, AdapterFile, Factor};
///
/// let a = Factor::new(2, 3, DType::F32, &[0.5; 6])?; // lora_A [rank, in_features]
/// let b = Factor::new(4, 2, DType::F32, &[0.0; 8])?; // lora_B [out_features, rank]
/// let file = AdapterFile::new(AdapterConfig::new(2, 4.0), [("layers.0.fc".into(), a, b)])?;
///
/// let folder = std::env::temp_dir().join(format!("fused-lora-doc-{}", std::process::id()));
/// file.write(&folder)?;
/// let again = AdapterFile::read(&folder)?;
/// assert_eq!(again.modules, file.modules);
/// assert_eq!(again.modules["layers.0.fc"].scale, 4.0 / 2.0);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterFile {
    /// The settings.
    pub config: AdapterConfig,
    /// The adapted layers, by path in the base model (`model.layers.0.self_attn.q_proj`).
    pub modules: BTreeMap<String, Module>,
    /// Weights that take the place of the base model's, by name there (`model.embed_tokens.weight`): a new
    /// head of `modules_to_save`, embeddings and output layers that were resized, or that PEFT
    /// saved because they are targets. Without them the base is not the model that was trained.
    pub replaced: BTreeMap<String, Weight>,
}

impl AdapterFile {
    /// An adapter of `modules`: path, lora_A, lora_B. Each layer's scale follows from `config`;
    /// layers of another rank than the config's get an entry in `rank_pattern`, and those that
    /// `target_modules` does not name are added to it.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where the factors do not fit each other or the config.
    pub fn new(
        config: AdapterConfig,
        modules: impl IntoIterator<Item = (String, Factor, Factor)>,
    ) -> Result<AdapterFile> {
        let modules = modules.into_iter();
        write::of_config(config, modules.map(|(path, a, b)| (path, Module::lora(a, b, 1.0))))
    }

    /// [`AdapterFile::new`] of a model's layers, each with the scale that it runs with: path (with or without PEFT's
    /// `base_model.model.` in front), lora_A, lora_B, scale.
    ///
    /// # Errors
    /// As [`AdapterFile::new`]; [`Error::Adapter`](crate::Error::Adapter) for a scale that is not the one that `config` gives
    /// the layer: read again, it would run with another one.
    pub fn of_layers(
        config: AdapterConfig,
        layers: impl IntoIterator<Item = (String, Factor, Factor, f32)>,
    ) -> Result<AdapterFile> {
        write::of_layers(config, layers)
    }

    /// An adapter of modules that have their scale, read from another layout, say: the config follows from them, with an
    /// entry in `rank_pattern` and `alpha_pattern` for each that differs from the first.
    ///
    /// Of convolutions PEFT must be told the kernel: where the file did not have it, [`Module::for_weight`] first.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for what one folder of PEFT cannot hold: several methods, DoRA on some modules or on
    /// another method than LoRA, a Tucker core of LoRA, LoKr whose shapes PEFT's factorisation does not give.
    pub fn from_modules(
        modules: impl IntoIterator<Item = (String, Module)>,
    ) -> Result<AdapterFile> {
        write::of_modules(modules)
    }

    /// Reads the two files in `folder`.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for a file that cannot be read, is damaged, or means something that no method here is.
    pub fn read(folder: impl AsRef<Path>) -> Result<AdapterFile> {
        let folder = folder.as_ref();
        let (model, config) = folder::contents(folder)?;
        read::parse(&model, &folder.join(MODEL_FILE), &config, &folder.join(CONFIG_FILE))
    }

    /// Reads the contents of the two files, for callers who have them from elsewhere.
    ///
    /// # Errors
    /// As [`AdapterFile::read`]; the path is then the bare file name.
    pub fn from_bytes(model: &[u8], config: &[u8]) -> Result<AdapterFile> {
        read::parse(model, Path::new(MODEL_FILE), config, Path::new(CONFIG_FILE))
    }

    /// The module at `path` in the base model, with or without PEFT's `base_model.model.` in front.
    pub fn module(&self, path: &str) -> Option<&Module> {
        self.modules.get(in_base(path))
    }

    /// The contents of the two files, tensors and config. The same adapter gives the same
    /// bytes; PEFT reads them with `PeftModel.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where rank or scale of a module are not those that `config` gives it,
    /// or where PEFT would pass over the module.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        write::bytes(self)
    }

    /// Writes the two files into `folder`, which is made where it does not exist. Each appears
    /// whole or not at all: it is written under another name and then renamed.
    ///
    /// # Errors
    /// As [`AdapterFile::to_bytes`]; [`Error::Adapter`](crate::Error::Adapter) for what the file system reports.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let (model, config) = self.to_bytes()?;
        folder::write(folder.as_ref(), &model, &config)
    }
}
