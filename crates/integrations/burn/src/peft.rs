//! Adapters of [PEFT](https://github.com/huggingface/peft) on the layers of a model, by the layers' paths; and from
//! the layers back into a folder.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{LoraAdapter, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
pub use fused_lora::peft::{AdapterConfig, AdapterFile, TargetModules};
use fused_lora::peft::{Claims, Factor, Module};

use crate::error::Result;
use crate::linear::{DEFAULT, LoraLinear};

/// A folder that PEFT wrote, to be put on the layers of a model.
///
/// ```no_run
/// # use burn::nn::LinearConfig;
/// # use burn::tensor::Device;
/// use fused_lora_burn::PeftAdapter;
///
/// # fn main() -> fused_lora_burn::Result<()> {
/// # let (device, q_proj) = (Device::default(), LinearConfig::new(64, 64).init(&Device::default()));
/// let adapter = PeftAdapter::read("my-adapter", &device)?;
/// // For each layer of the model:
/// let q_proj = adapter.layer(q_proj, "model.layers.0.self_attn.q_proj")?;
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
    /// Files that are damaged, or that no method of the core is: what it is, and what to do. What is read and is
    /// not plain LoRA (DoRA, LoHa, LoKr) is an error where its layer is asked for.
    pub fn read(folder: impl AsRef<Path>, device: &Device) -> Result<PeftAdapter> {
        Ok(PeftAdapter::new(AdapterFile::read(folder)?, device))
    }

    /// Of a file that was read already.
    pub fn new(file: AdapterFile, device: &Device) -> PeftAdapter {
        PeftAdapter { claims: Claims::new(file), device: device.clone(), trainable: false }
    }

    /// With factors that are trained.
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
    /// As [`LoraLinear::frozen`] and [`LoraLinear::insert`].
    pub fn layer(&self, linear: Linear, path: &str) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        match self.adapter(path)? {
            Some(adapter) => frozen.with_adapter(DEFAULT, adapter),
            None => Ok(frozen),
        }
    }

    /// The adapter at `path`, in f32 as PEFT itself loads it: for layers that have another one already.
    ///
    /// # Errors
    /// Another method than LoRA.
    pub fn adapter(&self, path: &str) -> Result<Option<LoraAdapter>> {
        self.claims.claim(path).map(|module| self.of_module(module)).transpose()
    }

    /// Whether every adapter of the file has found its layer.
    ///
    /// # Errors
    /// Those that have not, by path: the model is another one, or calls its layers otherwise.
    pub fn finish(&self) -> Result<()> {
        Ok(self.claims.finish()?)
    }

    /// Weights of the file that take the place of the base model's, by name there (`lm_head.weight`), in PEFT's
    /// order: new heads and resized embeddings. Without them the base is not the model that was trained.
    pub fn replaced(&self) -> BTreeMap<String, TensorData> {
        let data =
            |of: &fused_lora::peft::Weight| TensorData::new(of.values(), of.shape().to_vec());
        self.claims.file().replaced.iter().map(|(name, of)| (name.clone(), data(of))).collect()
    }

    fn of_module(&self, module: &Module) -> Result<LoraAdapter> {
        let (a, b) = module.plain()?;
        let param = |of: &Factor| {
            let data = TensorData::new(turned(&of.values(), of.cols()), [of.cols(), of.rows()]);
            let tensor = Tensor::<2>::from_data(data, (&self.device, DType::F32));
            Param::from_tensor(tensor).set_require_grad(self.trainable)
        };
        Ok(LoraAdapter { a: param(a), b: param(b), scale: module.scale.into() })
    }
}

/// The transpose of rows of `cols` values: PEFT stores `[out, in]`, burn `[in, out]`.
fn turned(of: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|at| of.iter().skip(at).step_by(cols)).copied().collect()
}

/// Writes the active adapters of `layers`, each with its path in the model, into `folder`, as PEFT would:
/// `PeftModel.from_pretrained` reads it. Layers without an active adapter are passed over.
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
        .map(|(path, LoraAdapter { a, b, scale })| {
            Ok((path.to_owned(), factor(&a.val())?, factor(&b.val())?, *scale as f32))
        })
        .collect();
    let file = AdapterFile::of_layers(config, layers?)?;
    Ok(file.write(folder)?)
}

fn factor(of: &Tensor<2>) -> Result<Factor> {
    let [rows, cols] = of.dims();
    let dtype = match of.dtype() {
        DType::F16 => fused_lora::DType::F16,
        DType::BF16 => fused_lora::DType::Bf16,
        _ => fused_lora::DType::F32,
    };
    let values: Vec<f32> = of.to_data().iter::<f32>().collect();
    Ok(Factor::new(cols, rows, dtype, &turned(&values, cols))?)
}
