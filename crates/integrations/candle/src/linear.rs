//! The layer that takes the place of `candle_nn::Linear`: a frozen weight, and any number of adapters by
//! name, of which one is active.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{DType, Result, Tensor, Var, bail};
use candle_nn::{Linear, Module, VarBuilder};

use crate::adapter::{Adapter, LoraConfig};
use crate::merge::MergeOp;
use crate::op::Layer;
use crate::store::served;

/// The name of an adapter that was given none.
pub const DEFAULT: &str = "default";

/// `y = x·wᵀ + s·(x·aᵀ)·bᵀ (+ bias)` in one pass, forward and backward.
///
/// ```text
/// forward    y  = x·wᵀ + shrunk·bᵀ (+ bias)      shrunk  = s·x·aᵀ
/// backward   dx = dy·w + dshrunk·a               dshrunk = s·dy·b
///            db = dyᵀ·shrunk    da = dshrunkᵀ·x
/// ```
///
/// `w` and `bias` are frozen, whatever they come from: candle forms no gradient of them. `x` has any
/// dimensions in front of `in_features`, and the weight's type: f32, f16 or bf16, on the CPU too. The adapter is
/// f32 or of the same type. `y` is rounded once. Hu et al., 2021, arXiv:2106.09685, eq. 3.
///
/// Operands are read where they lie: transposed weights, narrowed ones, and inputs whose rows have one
/// stride. Other inputs (broadcast, transposed, narrowed in the middle) are copied once.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use fused_lora_candle::LoraLinear;
///
/// let w = Tensor::randn(0f32, 1., (4, 8), &Device::Cpu)?; // [out_features, in_features]
/// let layer = LoraLinear::new(Linear::new(w, None), 2, 4.0)?;
/// let y = layer.forward(&Tensor::ones((2, 3, 8), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [2, 3, 4]);
///
/// let gradients = y.sqr()?.sum_all()?.backward()?;
/// for var in layer.vars()? {
///     assert!(gradients.get(&var).is_some());
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Clones share all tensors, and have an active adapter and a state of merging each.
#[derive(Debug, Clone)]
pub struct LoraLinear {
    w: Tensor,
    bias: Option<Tensor>,
    adapters: BTreeMap<String, Adapter>,
    active: Option<String>,
    merged: bool,
}

impl LoraLinear {
    /// `linear`, frozen, with a fresh f32 adapter that does nothing yet and is trained. The scale is
    /// alpha / rank.
    ///
    /// # Errors
    /// A weight that is no matrix; a rank of 0.
    pub fn new(linear: Linear, rank: usize, alpha: f64) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        let device = frozen.w.device();
        let config = LoraConfig::new(rank, alpha);
        let adapter = Adapter::init(frozen.features(), config, DType::F32, device)?;
        frozen.with_adapter(DEFAULT, adapter)
    }

    /// `linear`, frozen, with the adapter of `config` at `vb`: see [`Adapter::from_vb`].
    ///
    /// # Errors
    /// As [`LoraLinear::new`], and what `vb` says.
    pub fn from_vb(linear: Linear, config: LoraConfig, vb: &VarBuilder<'_>) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        let adapter = Adapter::from_vb(frozen.features(), config, vb)?;
        frozen.with_adapter(DEFAULT, adapter)
    }

    /// `linear`, frozen, without an adapter: the plain layer, by the same kernels.
    ///
    /// # Errors
    /// A weight that is no matrix; a bias that is not its bias.
    pub fn frozen(linear: Linear) -> Result<LoraLinear> {
        let (w, bias) = (linear.weight(), linear.bias());
        let (out_features, _) = w.dims2()?;
        if let Some(bias) = bias
            && bias.dims() != [out_features]
        {
            bail!("lora: expected a bias of [{out_features}], got {:?}", bias.shape());
        }
        // Detached: nothing is tracked beyond them.
        let w = served(&w.detach(), false)?;
        let bias = bias.map(|of| of.detach().contiguous()).transpose()?;
        Ok(LoraLinear { w, bias, adapters: BTreeMap::new(), active: None, merged: false })
    }

    /// With `adapter` beside the ones that are there, and active.
    ///
    /// # Errors
    /// As [`LoraLinear::insert`] and [`LoraLinear::activate`].
    pub fn with_adapter(mut self, name: &str, adapter: Adapter) -> Result<LoraLinear> {
        self.insert(name, adapter)?;
        self.activate(Some(name))?;
        Ok(self)
    }

    /// Adds `adapter` under `name`, which it takes over if there is one; what is active stays so. Nothing is
    /// copied.
    ///
    /// # Errors
    /// An adapter of another layer, or on another device; one that is merged under this name.
    pub fn insert(&mut self, name: &str, adapter: Adapter) -> Result<Option<Adapter>> {
        if adapter.features() != self.features() {
            let ([k, n], [got_k, got_n]) = (self.features(), adapter.features());
            bail!(
                "lora: `{name}`: expected an adapter of {k} to {n} features, got {got_k} to {got_n}"
            );
        }
        if !adapter.a().device().same_device(self.w.device()) {
            let [of_a, of_w] = [adapter.a(), &self.w].map(|of| of.device().location());
            bail!("lora: `{name}` is on {of_a:?}, the weight on {of_w:?}");
        }
        let (got, of_w) = (adapter.a().dtype(), self.w.dtype());
        if got != DType::F32 && got != of_w {
            bail!("lora: `{name}`: expected an adapter in f32 or {of_w:?}, got {got:?}");
        }
        self.unless_merged(name)?;
        Ok(self.adapters.insert(name.to_owned(), adapter))
    }

    /// Takes the adapter called `name` out.
    ///
    /// # Errors
    /// One that is merged.
    pub fn remove(&mut self, name: &str) -> Result<Option<Adapter>> {
        self.unless_merged(name)?;
        if self.active.as_deref() == Some(name) {
            self.active = None;
        }
        Ok(self.adapters.remove(name))
    }

    /// Makes the adapter called `name` the one that counts, or with `None` no one: the plain layer. Nothing
    /// is copied or computed.
    ///
    /// # Errors
    /// A name that is not there; another one while one is merged.
    pub fn activate(&mut self, name: Option<&str>) -> Result<()> {
        if self.merged && self.active.as_deref() != name {
            bail!(
                "lora: `{}` is merged; unmerge first",
                self.active.as_deref().unwrap_or_default()
            );
        }
        if let Some(name) = name
            && !self.adapters.contains_key(name)
        {
            bail!("lora: no adapter `{name}`, but {:?}", self.adapters.keys().collect::<Vec<_>>());
        }
        self.active = name.map(str::to_owned);
        Ok(())
    }

    /// The adapter that counts.
    pub fn active(&self) -> Option<(&str, &Adapter)> {
        let name = self.active.as_deref()?;
        Some((name, self.adapters.get(name)?))
    }

    /// All of them, by name.
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &Adapter)> {
        self.adapters.iter().map(|(name, adapter)| (name.as_str(), adapter))
    }

    /// What an optimiser trains: the variables of the active adapter.
    ///
    /// # Errors
    /// As [`Adapter::vars`].
    pub fn vars(&self) -> Result<Vec<Var>> {
        self.active().map_or(Ok(Vec::new()), |(_, adapter)| adapter.vars())
    }

    /// Puts the active adapter into the weight: `w + s·b·a`, each element rounded once. The weight becomes a
    /// tensor of this layer's own, so nobody else's changes. In 16 bits a small adapter is lost by that rounding in
    /// part; the unmerged layer loses nothing.
    ///
    /// # Errors
    /// No adapter is active; memory.
    pub fn merge(&mut self) -> Result<()> {
        if !self.merged {
            self.w = self.merged_weight(false)?;
            self.merged = true;
        }
        Ok(())
    }

    /// Takes the adapter out of the weight again, but for rounding.
    ///
    /// # Errors
    /// As [`LoraLinear::merge`].
    pub fn unmerge(&mut self) -> Result<()> {
        if self.merged {
            self.w = self.merged_weight(true)?;
            self.merged = false;
        }
        Ok(())
    }

    /// Whether the active adapter is in the weight.
    pub fn is_merged(&self) -> bool {
        self.merged
    }

    /// `[out_features, in_features]`; with the adapter in it while that is merged.
    pub fn weight(&self) -> &Tensor {
        &self.w
    }

    /// `[out_features]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `[in_features, out_features]`.
    pub fn features(&self) -> [usize; 2] {
        let of = self.w.dims();
        [of[1], of[0]]
    }

    /// The layer as candle's own, with the active adapter merged.
    ///
    /// # Errors
    /// As [`LoraLinear::merge`].
    pub fn into_linear(mut self) -> Result<Linear> {
        if self.active.is_some() {
            self.merge()?;
        }
        Ok(Linear::new(self.w, self.bias))
    }

    /// [`Module::forward`] without a tape: for inference, whatever is trained. Nothing is kept, and no
    /// gradient passes.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn infer(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    fn unless_merged(&self, name: &str) -> Result<()> {
        match self.merged && self.active.as_deref() == Some(name) {
            true => bail!("lora: `{name}` is merged; unmerge first"),
            false => Ok(()),
        }
    }

    fn merged_weight(&self, unmerge: bool) -> Result<Tensor> {
        let Some((_, adapter)) = self.active() else { bail!("lora: no adapter is active") };
        let w = self.w.force_contiguous()?;
        w.inplace_op3(adapter.a(), adapter.b(), &MergeOp { scale: adapter.scale(), unmerge })?;
        Ok(w)
    }

    fn run(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let [in_features, _] = self.features();
        if x.dims().last() != Some(&in_features) {
            bail!("lora: expected x [.., {in_features}], got {:?}", x.shape());
        }
        if x.dtype() != self.w.dtype() {
            bail!("lora: expected x in {:?}, as the weight, got {:?}", self.w.dtype(), x.dtype());
        }
        let x = &served(x, true)?;
        let adapter = self.active().filter(|_| !self.merged).map(|(_, adapter)| adapter);
        let layer = Layer {
            w: self.w.clone(),
            bias: self.bias.clone(),
            scale: adapter.map_or(1.0, Adapter::scale),
            has_adapter: adapter.is_some(),
            keep: train && adapter.is_some_and(|of| of.b().track_op()),
            shrunk: OnceLock::new(),
        };
        let (a, b) = adapter.map_or((x, x), |of| (of.a(), of.b()));
        if train { x.apply_op3(a, b, layer) } else { x.apply_op3_no_bwd(a, b, &layer) }
    }
}

/// With a tape where something is trained.
impl Module for LoraLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }
}
