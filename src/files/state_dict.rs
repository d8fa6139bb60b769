//! An adapter in one safetensors file, each module's tensors under the module's name: the layout of kohya, LyCORIS,
//! ComfyUI and diffusers. Read with the rules of those for alpha; written as LyCORIS and kohya save.

use std::collections::BTreeMap;
use std::path::Path;

use super::factors::{Factors, Side};
use super::parts::Parts;
use super::peft::{self, metadata};
use super::suffix::Layout;
use super::{Module, Pending, at, header, refuse, shown, suffix, tensors};
use crate::Result;

/// What stands for the path where there is none.
const NO_PATH: &str = "(in memory)";

/// An adapter file of kohya (sd-scripts), LyCORIS, ComfyUI or diffusers: its modules by the names that they have there.
///
/// Names are the file's own but for what `torch.compile` puts into them (`_orig_mod`); which layer of a model
/// each is, the host knows: kohya writes `lora_unet_…`, `lora_te1_…`, with dots as underscores, LyCORIS
/// `lycoris_…`, ComfyUI and diffusers the path itself behind `diffusion_model.`, `transformer.`, `unet.`.
///
/// The scale of a module of rank r and its tensor `alpha`, of any float type (saved in bf16 it has lost bits in the
/// file already):
///
/// | | s |
/// |---|---|
/// | alpha | alpha / r; for rsLoRA these files hold an alpha that makes it right |
/// | no alpha | 1, unless diffusers' `lora_adapter_metadata` has it |
/// | alpha = 0 | refused: kohya and LyCORIS take it for r, ComfyUI for 0 |
/// | LoKr, both factors full | 1 whatever alpha is, as in LyCORIS and ComfyUI (PEFT takes alpha / r) |
///
/// ```
/// use fused_lora::DType;
/// use fused_lora::files::{Factor, Module, StateDict};
///
/// let (down, up) = (Factor::new(2, 3, DType::F32, &[0.5; 6])?, Factor::new(4, 2, DType::F32, &[1.0; 8])?);
/// let file = StateDict::new([("lora_unet_mid_fc".into(), Module::lora(down, up, 0.5)?)])?;
/// let again = StateDict::from_bytes(&file.to_bytes()?)?;
/// let module = again.module("lora_unet_mid_fc", &[4, 3])?; // of a base weight [out_features, in_features]
/// assert_eq!((module.rank(), module.scale), (2, 0.5));
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StateDict {
    /// The adapted layers, by the file's names for them.
    pub modules: BTreeMap<String, Module>,
}

impl StateDict {
    /// A file of these modules.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for a name that is empty or given twice.
    pub fn new(modules: impl IntoIterator<Item = (String, Module)>) -> Result<StateDict> {
        let mut file = StateDict { modules: BTreeMap::new() };
        for (name, module) in modules {
            if name.is_empty() || file.modules.contains_key(&name) {
                let why = if name.is_empty() { "is no name" } else { "is given twice" };
                return Err(at(Path::new(NO_PATH), format!("module `{}` {why}", shown(&name))));
            }
            file.modules.insert(name, module);
        }
        Ok(file)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for a file that cannot be read, is damaged, has another layout, or holds what no
    /// method here is.
    pub fn read(path: impl AsRef<Path>) -> Result<StateDict> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| at(path, error.to_string()))?;
        parse(&bytes).map_err(|reason| at(path, reason))
    }

    /// Reads the file's contents, for callers who have them from elsewhere.
    ///
    /// # Errors
    /// As [`StateDict::read`].
    pub fn from_bytes(file: &[u8]) -> Result<StateDict> {
        parse(file).map_err(|reason| at(Path::new(NO_PATH), reason))
    }

    /// The module of this name, for a base weight of this shape, `[N, K]`, `[N, I, k]` or `[N, I, kh, kw]`: the file does not
    /// always say whether it is a convolution ([`Module::for_weight`]).
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where there is none of the name, or it is of another shape.
    pub fn module(&self, name: &str, weight: &[usize]) -> Result<Module> {
        let of = |reason| at(Path::new(NO_PATH), format!("module `{}`: {reason}", shown(name)));
        let Some(module) = self.modules.get(name) else {
            return Err(of(format!("not one of the file's {}", self.modules.len())));
        };
        module.clone().for_weight(weight).map_err(|error| match error {
            crate::Error::Adapter { reason, .. } => of(reason),
            other => other,
        })
    }

    /// The contents of the file, in the names and shapes of kohya and LyCORIS. The same adapter gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where there is no module; where the parts of one do not fit each other; and for
    /// LoKr of two full factors with a scale, which this layout cannot say ([`Module::fold_scale`]).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.bytes().map_err(|reason| at(Path::new(NO_PATH), reason))
    }

    /// Writes the file. It appears whole or not at all: it is written under another name and then renamed.
    ///
    /// # Errors
    /// As [`StateDict::to_bytes`]; [`Error::Adapter`](crate::Error::Adapter) for what the file system reports.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.bytes().map_err(|reason| at(path, reason))?;
        Pending::write(path.to_owned(), &bytes)?.publish()
    }

    fn bytes(&self) -> std::result::Result<Vec<u8>, String> {
        if self.modules.is_empty() {
            return Err("no module in it: the file would do nothing".into());
        }
        let mut all = Vec::new();
        for (name, module) in &self.modules {
            let of = |reason| format!("module `{}`: {reason}", shown(name));
            module.check().map_err(of)?;
            let parts = tensors::of(module, Layout::Lycoris).map_err(of)?;
            let alpha = tensors::alpha(module).map_err(of)?;
            all.extend(
                parts.into_iter().chain(alpha).map(|tensor| tensor.under(&format!("{name}."))),
            );
        }
        tensors::serialize(all)
    }
}

/// Whether LyCORIS and ComfyUI pass over alpha.
pub(super) fn has_no_alpha(module: &Module) -> bool {
    matches!(&module.factors, Factors::Lokr { w1: Side::Full(_), w2: Side::Full(_), .. })
}

fn parse(file: &[u8]) -> std::result::Result<StateDict, String> {
    let read = header::tensors_and_settings(file);
    let (tensors, settings) = read.map_err(|reason| refuse::known(file, reason, 0))?;
    let mut parts: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    for tensor in tensors {
        let refuse = |why: &str| Err(format!("tensor `{}`: {why}", shown(&tensor.name)));
        match suffix::part(&tensor.name) {
            _ if tensor.name.starts_with(peft::PREFIX) => {
                return refuse(&refuse::state_dict(&tensor.name));
            }
            None => return refuse(&refuse::state_dict(&tensor.name)),
            Some((name, _)) if name.is_empty() => return refuse("names no module"),
            Some((name, part)) => {
                let of = parts.entry(name).or_insert_with(|| Parts::new(Layout::Lycoris));
                of.insert(part, tensor)?;
            }
        }
    }
    if parts.is_empty() {
        return Err("no tensor in it: it would do nothing; save it again".into());
    }
    let (mut modules, mut without) = (BTreeMap::new(), Vec::new());
    for (name, mut of) in parts {
        let alpha = of.alpha()?;
        let mut module = of.module(&name)?;
        match alpha {
            _ if has_no_alpha(&module) => module.scale = 1.0,
            None => {
                module.scale = 1.0;
                without.push(name.clone());
            }
            Some(0.0) => {
                return Err(format!(
                    "module `{}`: alpha is 0, which kohya and LyCORIS take for the rank and ComfyUI for \
                     nothing: write the one that is meant",
                    shown(&name)
                ));
            }
            Some(alpha) => module.scale = (alpha / module.rank() as f64) as f32,
        }
        module.check().map_err(|reason| format!("module `{}`: {reason}", shown(&name)))?;
        modules.insert(name, module);
    }
    if let Some(settings) = settings {
        metadata::scales(&settings, &without, &mut modules, file.len())?;
    }
    Ok(StateDict { modules })
}
