//! Adapters of [PEFT](https://github.com/huggingface/peft) on the layers of a model, by the paths that the
//! model's `VarBuilder` has anyway; and from the layers back into a folder.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Error, Result, Shape, Tensor, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, Linear, VarBuilder};
pub use fused_lora::peft::{AdapterConfig, AdapterFile, TargetModules};
use fused_lora::peft::{Claims, Factor, Module};

use crate::adapter::Adapter;
use crate::linear::{DEFAULT, LoraLinear};
use crate::merge::MergeOp;
use crate::store::core_dtype;

/// A folder that PEFT wrote, to be put on the layers of a model.
///
/// ```no_run
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, linear};
/// use fused_lora_candle::PeftAdapter;
///
/// # fn main() -> candle_core::Result<()> {
/// # let device = Device::Cpu;
/// # let vb = VarBuilder::zeros(DType::F32, &device);
/// let adapter = PeftAdapter::read("my-adapter", &device)?;
/// // Where the model makes its layers, for each of them:
/// let vb = vb.pp("model.layers.0.self_attn.q_proj");
/// let q_proj = adapter.layer(linear(64, 64, vb.clone())?, &vb.prefix())?;
/// // And when all are made:
/// adapter.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PeftAdapter {
    claims: Claims,
    device: Device,
    trainable: bool,
}

impl PeftAdapter {
    /// Of `adapter_model.safetensors` and `adapter_config.json` in `folder`, on `device`.
    ///
    /// # Errors
    /// Files that are damaged, or that no method of the core is: what it is, and what to do. What is read and is not
    /// plain LoRA (DoRA, LoHa, LoKr) is an error where its layer is asked for.
    pub fn read(folder: impl AsRef<Path>, device: &Device) -> Result<PeftAdapter> {
        Ok(PeftAdapter::new(AdapterFile::read(folder).map_err(Error::wrap)?, device))
    }

    /// Of a file that was read already.
    pub fn new(file: AdapterFile, device: &Device) -> PeftAdapter {
        PeftAdapter { claims: Claims::new(file), device: device.clone(), trainable: false }
    }

    /// With variables, to be trained on.
    pub fn trainable(self) -> PeftAdapter {
        PeftAdapter { trainable: true, ..self }
    }

    /// The settings: rank, alpha, targets.
    pub fn config(&self) -> &AdapterConfig {
        &self.claims.file().config
    }

    /// `linear` with its adapter active, or frozen without one where the file has none at `path`.
    ///
    /// # Errors
    /// An adapter of another layer.
    pub fn layer(&self, linear: Linear, path: &str) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        match self.adapter(path)? {
            Some(adapter) => frozen
                .with_adapter(DEFAULT, adapter)
                .map_err(|error| Error::msg(format!("{path}: {error}"))),
            None => Ok(frozen),
        }
    }

    /// The adapter at `path`, in the type that the file has: for layers that have another one already.
    ///
    /// # Errors
    /// What the device says.
    pub fn adapter(&self, path: &str) -> Result<Option<Adapter>> {
        let Some(module) = self.claims.claim(path) else { return Ok(None) };
        let adapter = of_module(module, &self.device)?;
        Ok(Some(if self.trainable { adapter.trainable()? } else { adapter }))
    }

    /// Whether every adapter of the file has found its layer.
    ///
    /// # Errors
    /// Those that have not, by path: the model is another one, or calls its layers otherwise.
    pub fn finish(&self) -> Result<()> {
        self.claims.finish().map_err(Error::wrap)
    }

    /// Weights of the file that take the place of the base model's, by name there (`lm_head.weight`): new
    /// heads and resized embeddings. Without them the base is not the model that was trained.
    ///
    /// # Errors
    /// What the device says.
    pub fn replaced(&self) -> Result<HashMap<String, Tensor>> {
        let tensor = |(name, of): (&String, &fused_lora::peft::Weight)| {
            let tensor = tensor(of.bytes(), of.shape(), of.dtype(), &self.device)?;
            Ok((name.clone(), tensor))
        };
        self.claims.file().replaced.iter().map(tensor).collect()
    }

    /// `vb` with the adapters merged into the weights as they are loaded, and the replaced weights in place
    /// of the base's: for models whose layers are private, as candle-transformers' are. In 16 bits a merged
    /// adapter is lost by rounding in part, which [`PeftAdapter::layer`] does not do.
    pub fn merged<'a>(&'a self, vb: VarBuilder<'a>) -> VarBuilder<'a> {
        let (dtype, device) = (vb.dtype(), vb.device().clone());
        VarBuilder::from_backend(Box::new(Merged { base: vb, adapter: self }), dtype, device)
    }
}

impl LoraLinear {
    /// `linear`, frozen, with the factors at `vb`, whose prefix is the layer's path, and the scale that `config` gives
    /// that path: for who has PEFT's tensors in a `VarBuilder`. [`PeftAdapter`] reads whole folders, and
    /// sees what was left over.
    ///
    /// # Errors
    /// Factors that are not there, or of another rank than the configuration's.
    pub fn from_peft(
        linear: Linear,
        config: &AdapterConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        let (rank, scale) = config.rank_and_scale(&vb.prefix()).map_err(Error::wrap)?;
        let [in_features, out_features] = frozen.features();
        let a = vb.get((rank, in_features), "lora_A.weight")?;
        let b = vb.get((out_features, rank), "lora_B.weight")?;
        frozen.with_adapter(DEFAULT, Adapter::new(a, b, scale)?)
    }
}

/// A `VarBuilder`'s backend over another one.
struct Merged<'a> {
    base: VarBuilder<'a>,
    adapter: &'a PeftAdapter,
}

impl Merged<'_> {
    fn merged(&self, w: Tensor, name: &str, device: &Device) -> Result<Tensor> {
        let (w, adapter) = (w.to_device(device)?, self.adapter);
        if let Some(of) = adapter.claims.file().replaced.get(name) {
            return tensor(of.bytes(), of.shape(), of.dtype(), device)?.to_dtype(w.dtype());
        }
        let Some(module) = name.strip_suffix(".weight").and_then(|path| adapter.claims.claim(path))
        else {
            return Ok(w);
        };
        let of = of_module(module, device)?;
        if w.dims() != [module.out_features(), module.in_features()] {
            bail!("lora: {name}: the adapter is of another layer than one of {:?}", w.shape());
        }
        let w = w.force_contiguous()?;
        w.inplace_op3(of.a(), of.b(), &MergeOp { scale: of.scale(), unmerge: false })?;
        Ok(w)
    }
}

impl SimpleBackend for Merged<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        hints: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.merged(self.base.get_with_hints_dtype(shape, name, hints, dtype)?, name, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.merged(self.base.get_unchecked_dtype(name, dtype)?, name, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.base.contains_tensor(name)
    }
}

/// Writes the active adapters of `layers`, each with its path in the model, into `folder`, as PEFT would:
/// `PeftModel.from_pretrained` reads it. Layers without an active adapter are passed over.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// # use candle_nn::Linear;
/// use fused_lora_candle::{AdapterConfig, LoraLinear, PeftAdapter, save_peft};
///
/// # let w = Tensor::zeros((4, 8), candle_core::DType::F32, &Device::Cpu)?;
/// let layer = LoraLinear::new(Linear::new(w, None), 2, 4.0)?;
/// let folder = std::env::temp_dir().join(format!("fused-lora-candle-{}", std::process::id()));
/// save_peft(&folder, AdapterConfig::new(2, 4.0), [("layers.0.fc", &layer)])?;
///
/// let again = PeftAdapter::read(&folder, &Device::Cpu)?;
/// assert_eq!(again.adapter("layers.0.fc")?.unwrap().scale(), 2.0);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// A scale that is not the one that `config` gives the layer; what the file system says.
pub fn save_peft<'a>(
    folder: impl AsRef<Path>,
    config: AdapterConfig,
    layers: impl IntoIterator<Item = (&'a str, &'a LoraLinear)>,
) -> Result<()> {
    let layers: Result<Vec<_>> = layers
        .into_iter()
        .filter_map(|(path, layer)| Some((path, layer.active()?.1)))
        .map(|(path, of)| Ok((path.to_owned(), factor(of.a())?, factor(of.b())?, of.scale())))
        .collect();
    let file = AdapterFile::of_layers(config, layers?).map_err(Error::wrap)?;
    file.write(folder).map_err(Error::wrap)
}

fn factor(of: &Tensor) -> Result<Factor> {
    let (rows, cols) = of.dims2()?;
    let values = of.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Factor::new(rows, cols, core_dtype(of.dtype())?, &values).map_err(Error::wrap)
}

fn of_module(module: &Module, device: &Device) -> Result<Adapter> {
    let tensor = |of: &Factor| tensor(of.bytes(), &[of.rows(), of.cols()], of.dtype(), device);
    let (a, b) = module.plain().map_err(Error::wrap)?;
    Adapter::new(tensor(a)?, tensor(b)?, module.scale)
}

fn tensor(
    bytes: &[u8],
    shape: &[usize],
    dtype: fused_lora::DType,
    device: &Device,
) -> Result<Tensor> {
    let dtype = match dtype {
        fused_lora::DType::F32 => DType::F32,
        fused_lora::DType::F16 => DType::F16,
        fused_lora::DType::Bf16 => DType::BF16,
    };
    Tensor::from_raw_buffer(bytes, dtype, shape, device)
}
