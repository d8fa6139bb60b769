//! One adapter of one layer: lora_A, lora_B and the scale. Made fresh, from a `VarBuilder`, or of tensors
//! that are there; held by `LoraLinear`.

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};

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
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// `y += scale·(x·aᵀ)·bᵀ`. Cheap to clone: clones share their tensors.
///
/// It is trained where `a` and `b` are variables; candle then gives their gradients. Others are frozen.
#[derive(Debug, Clone)]
pub struct Adapter {
    a: Tensor,
    b: Tensor,
    scale: f32,
}

impl Adapter {
    /// Of lora_A `[rank, in_features]` and lora_B `[out_features, rank]`, in f32, f16 or bf16.
    ///
    /// # Errors
    /// Tensors that do not fit each other.
    pub fn new(a: Tensor, b: Tensor, scale: f32) -> Result<Adapter> {
        let ((rank, _), (_, of_b)) = (a.dims2()?, b.dims2()?);
        if rank != of_b || rank == 0 {
            bail!("lora: lora_A {:?} and lora_B {:?} have no rank in common", a.shape(), b.shape());
        }
        if a.dtype() != b.dtype() || !a.device().same_device(b.device()) {
            let of = |of: &Tensor| format!("{:?} on {:?}", of.dtype(), of.device().location());
            bail!("lora: lora_A is {}, lora_B {}; expected the same", of(&a), of(&b));
        }
        let (a, b) = (crate::store::served(&a, false)?, crate::store::served(&b, false)?);
        Ok(Adapter { a, b, scale })
    }

    /// As PEFT begins one: lora_A uniform in ±1/√in_features, lora_B zero, so that it does nothing yet. Both
    /// are variables.
    ///
    /// # Errors
    /// As [`Adapter::new`].
    pub fn init(
        [in_features, out_features]: [usize; 2],
        config: LoraConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Adapter> {
        let [a, b] = shapes(in_features, out_features, config.rank);
        let a = init_a(in_features).var(a, dtype, device)?;
        let b = Init::Const(0.0).var(b, dtype, device)?;
        Adapter::new(a.into_inner(), b.into_inner(), config.scale())
    }

    /// Of `lora_A.weight` and `lora_B.weight` at `vb`. Over a `VarMap` these are its variables, made now
    /// where they are not there; over files they are frozen, until [`Adapter::trainable`].
    ///
    /// # Errors
    /// Tensors of other shapes, and what `vb` says.
    pub fn from_vb(
        [in_features, out_features]: [usize; 2],
        config: LoraConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<Adapter> {
        let [a, b] = shapes(in_features, out_features, config.rank);
        let a = vb.get_with_hints(a, "lora_A.weight", init_a(in_features))?;
        let b = vb.get_with_hints(b, "lora_B.weight", Init::Const(0.0))?;
        Adapter::new(a, b, config.scale())
    }

    /// The same with variables: those that it has, or copies.
    ///
    /// # Errors
    /// What candle says to the copy.
    pub fn trainable(&self) -> Result<Adapter> {
        let var = |of: &Tensor| Ok::<_, candle_core::Error>(Var::from_tensor(of)?.into_inner());
        Ok(Adapter { a: var(&self.a)?, b: var(&self.b)?, scale: self.scale })
    }

    /// What an optimiser trains: nothing of a frozen one.
    ///
    /// # Errors
    /// None that is known: candle's signature has one.
    pub fn vars(&self) -> Result<Vec<Var>> {
        let trained = [&self.a, &self.b].into_iter().filter(|of| of.is_variable());
        trained.map(Var::from_tensor).collect()
    }

    /// lora_A `[rank, in_features]`.
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// lora_B `[out_features, rank]`.
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// s.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// r.
    pub fn rank(&self) -> usize {
        self.a.dims()[0]
    }

    /// `[in_features, out_features]`.
    pub fn features(&self) -> [usize; 2] {
        [self.a.dims()[1], self.b.dims()[0]]
    }
}

fn shapes(in_features: usize, out_features: usize, rank: usize) -> [(usize, usize); 2] {
    [(rank, in_features), (out_features, rank)]
}

fn init_a(in_features: usize) -> Init {
    let bound = 1.0 / (in_features as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}
