//! LoRA adapters as [PEFT](https://github.com/huggingface/peft) keeps them: a folder with
//! `adapter_model.safetensors` and `adapter_config.json`. Called by applications; frameworks
//! that have a loader of their own do not need it.
//!
//! `config` is the JSON file (`json` its syntax, `refuse` what it must not say, `pattern`
//! its `rank_pattern` keys), `factor` one tensor, `read` pairs the tensors up; this file has the
//! public type, and reads and writes the folder.
//!
//! Read is what is plain LoRA, `y = x·wᵀ + s·(x·aᵀ)·bᵀ`; whatever changes that formula (DoRA,
//! a bias on lora_B, retrained modules, an initialisation that moves the frozen weight) is
//! refused with [`Error::Adapter`], which names the file and the field or tensor.

mod config;
mod factor;
mod json;
mod pattern;
mod read;
mod refuse;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::tensor::{TensorView, serialize};

pub use config::{AdapterConfig, TargetModules};
pub use factor::Factor;

use crate::{Error, Result};

/// The file of tensors in an adapter's folder.
pub const MODEL_FILE: &str = "adapter_model.safetensors";
/// The file of settings in an adapter's folder.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What PEFT puts before a module's path in the base model.
const PREFIX: &str = "base_model.model.";

/// An adapter: for each adapted layer, by its path in the base model, the two factors.
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
}

/// One adapted layer: `y += s·(x·aᵀ)·bᵀ`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Module {
    /// s: alpha / r, or alpha / √r for rsLoRA, with this layer's own alpha and rank.
    pub scale: f32,
    /// lora_A `[rank, in_features]`.
    pub a: Factor,
    /// lora_B `[out_features, rank]`.
    pub b: Factor,
}

impl Module {
    /// r: the rows of `a`, the columns of `b`.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }

    /// K: the columns of `a`.
    pub fn in_features(&self) -> usize {
        self.a.cols()
    }

    /// N: the rows of `b`.
    pub fn out_features(&self) -> usize {
        self.b.rows()
    }
}

impl AdapterFile {
    /// An adapter of `modules`: path, lora_A, lora_B. Each layer's scale follows from `config`;
    /// layers of another rank than the config's get an entry in `rank_pattern`, and those that
    /// `target_modules` does not name are added to it.
    ///
    /// # Errors
    /// [`Error::Adapter`] where the factors do not fit each other or the config.
    pub fn new(
        config: AdapterConfig,
        modules: impl IntoIterator<Item = (String, Factor, Factor)>,
    ) -> Result<AdapterFile> {
        let refuse = |reason| Error::Adapter { path: "(not yet written)".into(), reason };
        let mut file = AdapterFile { config, modules: BTreeMap::new() };
        for (path, a, b) in modules {
            fits(&path, &a, &b).map_err(refuse)?;
            file.config.target(&path);
            if file.modules.insert(path.clone(), Module { scale: 0.0, a, b }).is_some() {
                return Err(refuse(format!("module `{path}` is given twice")));
            }
        }
        let ranks = file.modules.iter().map(|(path, module)| (path.as_str(), module.rank()));
        file.config.patterns_for(&ranks.collect::<Vec<_>>()).map_err(refuse)?;
        for (path, module) in &mut file.modules {
            (_, module.scale) = file.config.rank_and_scale(path).map_err(refuse)?;
        }
        Ok(file)
    }

    /// Reads the two files in `folder`.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a file that cannot be read, is damaged, or means something other
    /// than plain LoRA.
    pub fn read(folder: impl AsRef<Path>) -> Result<AdapterFile> {
        let [model, config] = [MODEL_FILE, CONFIG_FILE].map(|name| folder.as_ref().join(name));
        let read = |path: &Path| std::fs::read(path).map_err(|error| at(path, error.to_string()));
        read::parse(&read(&model)?, &model, &read(&config)?, &config)
    }

    /// Reads the contents of the two files, for callers who have them from elsewhere.
    ///
    /// # Errors
    /// As [`AdapterFile::read`]; the path is then the bare file name.
    pub fn from_bytes(model: &[u8], config: &[u8]) -> Result<AdapterFile> {
        read::parse(model, Path::new(MODEL_FILE), config, Path::new(CONFIG_FILE))
    }

    /// The contents of the two files, tensors and config. The same adapter gives the same
    /// bytes; PEFT reads them with `PeftModel.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Adapter`] where rank or scale of a module are not those that `config` gives it,
    /// or where PEFT would pass over the module.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let (model, config) = (Path::new(MODEL_FILE), Path::new(CONFIG_FILE));
        let refuse = |reason| at(config, reason);
        let mut tensors = BTreeMap::new();
        for (path, module) in &self.modules {
            fits(path, &module.a, &module.b).map_err(|reason| at(model, reason))?;
            let got = (module.rank(), module.scale);
            let (rank, scale) = self.config.rank_and_scale(path).map_err(refuse)?;
            if got != (rank, scale) {
                let reason = format!(
                    "module `{path}`: expected rank {rank} and scale {scale} by the config, got \
                     rank {} and scale {}",
                    got.0, got.1
                );
                return Err(refuse(reason));
            }
            if !self.config.targets(path) {
                return Err(refuse(format!("target_modules does not name module `{path}`")));
            }
            for (letter, factor) in [("A", &module.a), ("B", &module.b)] {
                let (name, dtype) =
                    (format!("{PREFIX}{path}.lora_{letter}.weight"), factor.dtype());
                let shape = vec![factor.rows(), factor.cols()];
                let view = TensorView::new(factor::stored(dtype), shape, factor.bytes())
                    .map_err(|error| at(model, format!("{name}: {error}")))?;
                tensors.insert(name, view);
            }
        }
        // One entry: a map of several would be written in random order.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let tensors = serialize(tensors, Some(metadata))
            .map_err(|error| at(model, format!("cannot be written: {error}")))?;
        Ok((tensors, self.config.to_json().map_err(refuse)?))
    }

    /// Writes the two files into `folder`, which is made where it does not exist. Each appears
    /// whole or not at all: it is written under another name and then renamed.
    ///
    /// # Errors
    /// As [`AdapterFile::to_bytes`]; [`Error::Adapter`] for what the file system reports.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let (model, config) = self.to_bytes()?;
        std::fs::create_dir_all(folder).map_err(|error| at(folder, error.to_string()))?;
        let model = Pending::write(folder.join(MODEL_FILE), &model)?;
        let config = Pending::write(folder.join(CONFIG_FILE), &config)?;
        model.publish()?;
        config.publish()
    }
}

/// A file that is whole, but not yet under its name. Dropped unpublished, it goes away.
struct Pending {
    temporary: PathBuf,
    path: PathBuf,
}

impl Pending {
    fn write(path: PathBuf, bytes: &[u8]) -> Result<Pending> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.tmp", std::process::id()));
        let pending = Pending { temporary, path };
        std::fs::write(&pending.temporary, bytes)
            .map_err(|error| at(&pending.temporary, error.to_string()))?;
        Ok(pending)
    }

    fn publish(self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|error| at(&self.path, error.to_string()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn at(path: &Path, reason: String) -> Error {
    Error::Adapter { path: path.display().to_string(), reason }
}

/// Whether the factors are those of one layer.
fn fits(path: &str, a: &Factor, b: &Factor) -> Result<(), String> {
    if path.is_empty() {
        return Err("a module's path is empty".into());
    }
    let (down, up) = (a.rows(), b.cols());
    if down == 0 || a.cols() == 0 || b.rows() == 0 {
        let shapes = format!("lora_A [{down}, {}], lora_B [{}, {up}]", a.cols(), b.rows());
        return Err(format!("module `{path}`: expected sizes of at least 1, got {shapes}"));
    }
    if down != up {
        let ranks = format!("lora_A has rank {down}, lora_B rank {up}");
        return Err(format!("module `{path}`: {ranks}; expected one rank"));
    }
    Ok(())
}
