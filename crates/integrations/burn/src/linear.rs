//! The layer that takes the place of `burn::nn::Linear`: a frozen weight, and any number of adapters by name, of
//! which one is active.

use burn::module::{LoraAdapter, Module, Param};
use burn::nn::Linear;
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::device;
use crate::error::{Error, Result};
use crate::op;

/// The name of an adapter that was given none.
pub const DEFAULT: &str = "default";

/// Rank and alpha of an adapter, as PEFT has them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LoraConfig {
    /// r.
    pub rank: usize,
    /// alpha.
    pub alpha: f64,
    /// Whether the scale is alpha / √r instead of alpha / r.
    pub rslora: bool,
}

impl LoraConfig {
    /// With the scale alpha / r.
    pub fn new(rank: usize, alpha: f64) -> LoraConfig {
        LoraConfig { rank, alpha, rslora: false }
    }

    /// With the scale alpha / √r.
    pub fn rslora(self) -> LoraConfig {
        LoraConfig { rslora: true, ..self }
    }

    /// s.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// As PEFT begins one: a uniform in ±1/√in_features, b zero, so that it does nothing yet; in f32, trained.
    pub fn init(&self, [in_features, out_features]: [usize; 2], device: &Device) -> LoraAdapter {
        let bound = 1.0 / (in_features as f64).sqrt();
        let uniform = Distribution::Uniform(-bound, bound);
        let a = Tensor::random([in_features, self.rank], uniform, (device, DType::F32));
        let b = Tensor::zeros([self.rank, out_features], (device, DType::F32));
        LoraAdapter { a: Param::from_tensor(a), b: Param::from_tensor(b), scale: self.scale() }
    }
}

/// `y = x·w + s·(x·a)·b (+ bias)` in one pass, forward and backward; in burn's storage order, so `w` is
/// `[in_features, out_features]`.
///
/// ```text
/// forward    y  = x·w + shrunk·b (+ bias)       shrunk  = s·x·a
/// backward   dx = dy·wᵀ + dshrunk·aᵀ            dshrunk = s·dy·bᵀ
///            db = shrunkᵀ·dy    da = xᵀ·dshrunk
/// ```
///
/// `w` and `bias` are frozen: no gradient of them is formed. `x` has any dimensions in front of `in_features`, and
/// the weight's type: f32, f16 or bf16 where burn's backend has them. An adapter is f32 or of the same type;
/// it is burn's own [`LoraAdapter`], so its record is burn's too. `y` is rounded once. Hu et al., 2021,
/// arXiv:2106.09685, eq. 3.
///
/// Operands are read where they lie: transposed weights, narrowed ones, and inputs whose rows have one stride.
/// Other inputs (broadcast, transposed, narrowed in the middle) are copied once.
#[derive(Module, Debug)]
pub struct LoraLinear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
    adapters: Vec<LoraAdapter>,
    names: Vec<String>,
    active: Option<usize>,
    merged: bool,
}

impl LoraLinear {
    /// `linear`, frozen, with a fresh f32 adapter that does nothing yet and is trained.
    ///
    /// # Errors
    /// As [`LoraLinear::frozen`]; a rank of 0.
    pub fn new(linear: Linear, config: LoraConfig) -> Result<LoraLinear> {
        let frozen = LoraLinear::frozen(linear)?;
        let adapter = config.init(frozen.features(), &frozen.weight.val().device());
        frozen.with_adapter(DEFAULT, adapter)
    }

    /// `linear`, frozen, without an adapter: the plain layer, by burn's own operation.
    ///
    /// # Errors
    /// A device that the kernels do not run on, by name: burn's SPIR-V, Metal and CUDA compilers take no
    /// WGSL. A weight of another type than f32, f16 and bf16; a bias that is not its bias.
    pub fn frozen(linear: Linear) -> Result<LoraLinear> {
        let Linear { weight, bias } = linear;
        let w = weight.val();
        device::served(&w.device())?;
        if !matches!(w.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            let expected = "f32, f16 or bf16".to_owned();
            return Err(Error::DType { what: "weight".into(), expected, got: w.dtype() });
        }
        if let Some(bias) = bias.as_ref().map(Param::val) {
            let [_, out_features] = w.dims();
            shaped("bias", &[out_features], &bias.dims())?;
            typed("bias", &[w.dtype()], bias.dtype())?;
            placed("bias", &w.device(), &bias.device())?;
        }
        Ok(LoraLinear {
            weight: weight.set_require_grad(false),
            bias: bias.map(|of| of.set_require_grad(false)),
            adapters: Vec::new(),
            names: Vec::new(),
            active: None,
            merged: false,
        })
    }

    /// With `adapter` beside the ones that are there, and active.
    ///
    /// # Errors
    /// As [`LoraLinear::insert`] and [`LoraLinear::activate`].
    pub fn with_adapter(mut self, name: &str, adapter: LoraAdapter) -> Result<LoraLinear> {
        self.insert(name, adapter)?;
        self.activate(Some(name))?;
        Ok(self)
    }

    /// Adds `adapter` under `name`, which it takes over if there is one; what is active stays so.
    ///
    /// # Errors
    /// An adapter of another layer, of another type or on another device; one that is merged under this name.
    pub fn insert(&mut self, name: &str, adapter: LoraAdapter) -> Result<Option<LoraAdapter>> {
        self.fits(name, &adapter)?;
        match self.names.iter().position(|of| of == name) {
            Some(at) if self.merged && self.active == Some(at) => Err(Error::Merged(name.into())),
            Some(at) => Ok(Some(std::mem::replace(&mut self.adapters[at], adapter))),
            None => {
                self.names.push(name.to_owned());
                self.adapters.push(adapter);
                Ok(None)
            }
        }
    }

    /// Takes the adapter called `name` out.
    ///
    /// # Errors
    /// One that is merged.
    pub fn remove(&mut self, name: &str) -> Result<Option<LoraAdapter>> {
        let Some(at) = self.names.iter().position(|of| of == name) else { return Ok(None) };
        self.active = match self.active {
            Some(active) if active == at && self.merged => return Err(Error::Merged(name.into())),
            Some(active) if active == at => None,
            Some(active) => Some(active - usize::from(active > at)),
            None => None,
        };
        self.names.remove(at);
        Ok(Some(self.adapters.remove(at)))
    }

    /// Makes the adapter called `name` the one that counts, or with `None` no one: the plain layer. Nothing is
    /// copied or computed.
    ///
    /// # Errors
    /// A name that is not there; another one while one is merged.
    pub fn activate(&mut self, name: Option<&str>) -> Result<()> {
        let unknown = |name: &str| Error::Name { name: name.into(), there: self.names.clone() };
        let at = |name: &str| self.names.iter().position(|of| of == name);
        let chosen = name.map(|name| at(name).ok_or_else(|| unknown(name))).transpose()?;
        if self.merged && self.active != chosen {
            return Err(Error::Merged(self.active_name().unwrap_or_default().to_owned()));
        }
        self.active = chosen;
        Ok(())
    }

    /// The adapter that counts.
    pub fn active(&self) -> Option<(&str, &LoraAdapter)> {
        Some((self.active_name()?, self.adapters.get(self.active?)?))
    }

    /// All of them, by name.
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &LoraAdapter)> {
        self.names.iter().map(String::as_str).zip(&self.adapters)
    }

    /// Puts the active adapter into the weight: `w + s·a·b`, each element rounded once. In 16 bits a small adapter is
    /// lost by that rounding in part; the unmerged layer loses nothing.
    ///
    /// # Errors
    /// No adapter is active.
    pub fn merge(&mut self) -> Result<()> {
        if !self.merged {
            self.add_to_weight(1.0)?;
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
            self.add_to_weight(-1.0)?;
            self.merged = false;
        }
        Ok(())
    }

    /// Whether the active adapter is in the weight.
    pub fn is_merged(&self) -> bool {
        self.merged
    }

    /// `[in_features, out_features]`; with the adapter in it while that is merged.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// `[out_features]`.
    pub fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(Param::val)
    }

    /// `[in_features, out_features]`.
    pub fn features(&self) -> [usize; 2] {
        self.weight.val().dims()
    }

    /// The layer as burn's own, with the active adapter merged.
    ///
    /// # Errors
    /// As [`LoraLinear::merge`].
    pub fn into_linear(mut self) -> Result<Linear> {
        if self.active.is_some() {
            self.merge()?;
        }
        Ok(Linear { weight: self.weight, bias: self.bias })
    }

    /// x `[.., in_features]`; y `[.., out_features]`.
    ///
    /// # Panics
    /// As burn's own layers do, where [`LoraLinear::try_forward`] has an error.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`LoraLinear::forward`] for who does not know what comes.
    ///
    /// # Errors
    /// An x of other features, of another type than the weight, or on another device. Parameters that were put in
    /// behind the layer's back (by a record, or moved) and do not fit.
    pub fn try_forward<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>> {
        let (w, bias) = (self.weight.val().detach(), self.bias().map(Tensor::detach));
        let [in_features, out_features] = w.dims();
        let dims = x.dims();
        if dims.last() != Some(&in_features) {
            let (what, expected) = ("x [.., in_features]".to_owned(), vec![in_features]);
            return Err(Error::Shape { what, expected, got: dims.to_vec() });
        }
        typed("x", &[w.dtype()], x.dtype())?;
        placed("x", &w.device(), &x.device())?;
        let Some((name, adapter)) = self.active().filter(|_| !self.merged) else {
            return Ok(linear(x, w, bias));
        };
        self.fits(name, adapter)?;
        if let Some(bias) = &bias {
            shaped("bias", &[out_features], &bias.dims())?;
            typed("bias", &[w.dtype()], bias.dtype())?;
        }
        device::served(&w.device())?;
        let scale = adapter.scale as f32;
        Ok(op::linear(x, w, adapter.a.val(), adapter.b.val(), bias, scale))
    }

    fn active_name(&self) -> Option<&str> {
        self.names.get(self.active?).map(String::as_str)
    }

    fn fits(&self, name: &str, adapter: &LoraAdapter) -> Result<()> {
        let (w, a, b) = (self.weight.val(), adapter.a.val(), adapter.b.val());
        let ([in_features, out_features], [_, rank]) = (w.dims(), a.dims());
        let [of_a, of_b] = ["a", "b"].map(|of| format!("`{name}`.{of}"));
        shaped(&of_a, &[in_features, rank.max(1)], &a.dims())?;
        shaped(&of_b, &[rank, out_features], &b.dims())?;
        typed(&of_a, &[DType::F32, w.dtype()], a.dtype())?;
        typed(&of_b, &[a.dtype()], b.dtype())?;
        placed(&of_a, &w.device(), &a.device())?;
        placed(&of_b, &w.device(), &b.device())?;
        match (adapter.scale as f32).is_finite() {
            true => Ok(()),
            false => Err(Error::Scale(adapter.scale)),
        }
    }

    fn add_to_weight(&mut self, sign: f64) -> Result<()> {
        let (_, adapter) = self.active().ok_or(Error::NoAdapter)?;
        let [a, b] = [&adapter.a, &adapter.b].map(|of| of.val().detach().cast(DType::F32));
        let delta = a.matmul(b).mul_scalar(sign * adapter.scale);
        let sum = |w: Tensor<2>| {
            let dtype = w.dtype();
            (w.detach().cast(DType::F32) + delta).cast(dtype)
        };
        self.weight = self.weight.clone().map(sum).set_require_grad(false);
        Ok(())
    }
}

fn shaped(what: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let (what, expected, got) = (what.to_owned(), expected.to_vec(), got.to_vec());
    Err(Error::Shape { what, expected, got })
}

fn typed(what: &str, served: &[DType], got: DType) -> Result<()> {
    if served.contains(&got) {
        return Ok(());
    }
    let names: Vec<_> = served.iter().map(|of| format!("{of:?}")).collect();
    Err(Error::DType { what: what.to_owned(), expected: names.join(" or "), got })
}

fn placed(what: &str, expected: &Device, got: &Device) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let [expected, got] = [expected, got].map(|of| format!("{of:?}"));
    Err(Error::OtherDevice { what: what.to_owned(), expected, got })
}
