//! LoRA adapters as [PEFT](https://github.com/huggingface/peft) keeps them: a folder with
//! `adapter_model.safetensors` and `adapter_config.json`. Called by applications; frameworks
//! that have a loader of their own do not need it.
//!
//! `folder` has the two files, `read` the way from their bytes to an adapter: `header` finds the tensors,
//! `names` says what each is, `foreign` what strangers wrote instead. `config` is the JSON file
//! (`json` its syntax, `refuse` what it must not say); `target` says which modules it means and
//! `keys` which rank and alpha they have, both in PEFT's patterns (`pattern`, `python`,
//! `suffixes`; `work` ends what would take too long). This file has the public type.
//!
//! Read is what is plain LoRA, `y = x·wᵀ + s·(x·aᵀ)·bᵀ`; whatever changes that formula (DoRA,
//! a bias on lora_B, an initialisation that moves the frozen weight), and whatever would make the
//! file do less than it says (a factor, a part or a target left out, tensors of a module that is no
//! target) is refused with [`Error::Adapter`], which names the file, the field or tensor, and what
//! to do. The time to read is linear in the files, and so is the memory.

mod config;
mod factor;
mod folder;
mod foreign;
mod header;
mod json;
mod keys;
mod names;
mod pattern;
mod python;
mod read;
mod refuse;
mod suffixes;
mod target;
mod work;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{TensorView, serialize};

pub use config::{AdapterConfig, TargetModules};
pub use factor::{Factor, Weight};

use target::Target;
use work::Work;

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
    /// Weights that take the place of the base model's, by name there (`model.embed_tokens.weight`): a new
    /// head of `modules_to_save`, embeddings and output layers that were resized, or that PEFT
    /// saved because they are targets. Without them the base is not the model that was trained.
    pub replaced: BTreeMap<String, Weight>,
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
        let mut file = AdapterFile { config, modules: BTreeMap::new(), replaced: BTreeMap::new() };
        for (path, a, b) in modules {
            fits(&path, &a, &b).map_err(refuse)?;
            if file.modules.insert(path.clone(), Module { scale: 0.0, a, b }).is_some() {
                return Err(refuse(format!("module `{}` is given twice", shown(&path))));
            }
        }
        let paths: Vec<&str> = file.modules.keys().map(String::as_str).collect();
        file.config.target(&paths).map_err(refuse)?;
        let ranks = file.modules.iter().map(|(path, module)| (path.as_str(), module.rank()));
        file.config.patterns_for(&ranks.collect::<Vec<_>>()).map_err(refuse)?;
        let found = file.config.ranks_and_scales(&paths, &mut Work::unlimited()).map_err(refuse)?;
        for (module, (_, scale)) in file.modules.values_mut().zip(found) {
            module.scale = scale;
        }
        Ok(file)
    }

    /// Reads the two files in `folder`.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a file that cannot be read, is damaged, or means something other
    /// than plain LoRA.
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

    /// The contents of the two files, tensors and config. The same adapter gives the same
    /// bytes; PEFT reads them with `PeftModel.from_pretrained`.
    ///
    /// # Errors
    /// [`Error::Adapter`] where rank or scale of a module are not those that `config` gives it,
    /// or where PEFT would pass over the module.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let (model, config) = (Path::new(MODEL_FILE), Path::new(CONFIG_FILE));
        let refuse = |reason| at(config, reason);
        let work = &mut Work::unlimited();
        if self.modules.is_empty() {
            return Err(at(model, "no module in it: the file would do nothing".into()));
        }
        let paths: Vec<&str> = self.modules.keys().map(String::as_str).collect();
        let found = self.config.ranks_and_scales(&paths, work).map_err(refuse)?;
        let mut target = Target::new(&self.config, work).map_err(refuse)?;
        let mut tensors = BTreeMap::new();
        for ((path, module), (rank, scale)) in self.modules.iter().zip(found) {
            fits(path, &module.a, &module.b).map_err(|reason| at(model, reason))?;
            let got = (module.rank(), module.scale);
            if got != (rank, scale) {
                let reason = format!(
                    "module `{}`: expected rank {rank} and scale {scale} by the config, got rank {} and \
                     scale {}",
                    shown(path),
                    got.0,
                    got.1
                );
                return Err(refuse(reason));
            }
            if let Some(why) = target.refuses(path, work).map_err(refuse)? {
                return Err(refuse(format!("{why}: PEFT would pass over its factors")));
            }
            for (letter, factor) in [("A", &module.a), ("B", &module.b)] {
                let name = format!("{PREFIX}{path}.lora_{letter}.weight");
                let shape = vec![factor.rows(), factor.cols()];
                tensors.insert(name, (factor.dtype(), shape, factor.bytes()));
            }
        }
        for (name, of) in &self.replaced {
            let weight = (of.dtype(), of.shape().to_vec(), of.bytes());
            tensors.insert(format!("{PREFIX}{name}"), weight);
        }
        let mut views = BTreeMap::new();
        for (name, (dtype, shape, bytes)) in tensors {
            let view = TensorView::new(factor::stored(dtype), shape, bytes)
                .map_err(|error| at(model, format!("{name}: {error}")))?;
            views.insert(name, view);
        }
        // One entry: a map of several would be written in random order.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let tensors = serialize(views, Some(metadata))
            .map_err(|error| at(model, format!("cannot be written: {error}")))?;
        Ok((tensors, self.config.to_json().map_err(refuse)?))
    }

    /// Writes the two files into `folder`, which is made where it does not exist. Each appears
    /// whole or not at all: it is written under another name and then renamed.
    ///
    /// # Errors
    /// As [`AdapterFile::to_bytes`]; [`Error::Adapter`] for what the file system reports.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let (model, config) = self.to_bytes()?;
        folder::write(folder.as_ref(), &model, &config)
    }
}

fn at(path: &Path, reason: String) -> Error {
    Error::Adapter { path: path.display().to_string(), reason }
}

/// A name in a message: strangers' names may be as long as their files.
fn shown(name: &str) -> Cow<'_, str> {
    let (most, kept) = (240, 100);
    if name.chars().nth(most).is_none() {
        return Cow::Borrowed(name);
    }
    let begin: String = name.chars().take(kept).collect();
    let mut end: Vec<char> = name.chars().rev().take(kept).collect();
    end.reverse();
    Cow::Owned(format!("{begin}…{}", end.into_iter().collect::<String>()))
}

/// Whether the factors are those of one layer.
fn fits(path: &str, a: &Factor, b: &Factor) -> Result<(), String> {
    if path.is_empty() {
        return Err("a module's path is empty".into());
    }
    if path.contains('\n') {
        return Err(format!("module `{}`: a line break in its path", shown(path)));
    }
    let path = shown(path);
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
