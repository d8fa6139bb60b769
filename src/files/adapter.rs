//! A module as the [`Adapter`] of a call: its factors as they are stored, so that a backward pass trains each of them. Called
//! through [`Module`].

use super::factors::{Factors, Side};
use super::lora::Wide;
use super::{Factor, Module, of_module};
use crate::operands::Factor as OfCall;
use crate::{Adapter, Matrix, Result};

impl Module {
    /// The factors by LyCORIS' names, in the order of [`Factors`]: `lora_A`, `lora_B`, `lora_mid`; `w1a`, …, `t2`.
    pub fn named(&self) -> Vec<(&'static str, &Factor)> {
        self.factors.named()
    }

    /// The adapter that `Forward`, `Backward`, `Merge` and `Norm` take, of the buffers that `of` has for each factor, which
    /// it gets by the names of [`Module::named`]: every method as it is, whole sides of LoKr and LoCon's Tucker core among
    /// them, so that [`Backward`](crate::Backward) gives the gradient of every factor. The call's scale is [`Module::scale`]; on
    /// a convolution it takes [`Module::convolution`], too. A magnitude is no part of it:
    /// [`Norm`](crate::Norm) takes that.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for LoHa and LoKr with a Tucker core, which no call takes as they are:
    /// [`Module::without_cores`] makes the same ΔW without; or what `of` returns.
    ///
    /// ```
    /// use fused_lora::files::{Factor, Module, Side};
    /// use fused_lora::{DType, Device, Forward};
    ///
    /// let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]);
    /// let module = Module::lokr(Side::Full(factor(2, 2)?), Side::Full(factor(4, 8)?), 1.0)?;
    /// let device = Device::cpu();
    /// let tensors = module.named().into_iter().map(|(name, of)| {
    ///     Ok((name, device.tensor(of.rows(), of.cols(), of.dtype(), &of.values())?))
    /// });
    /// let tensors = tensors.collect::<Result<Vec<_>, fused_lora::Error>>()?;
    /// let named = |name| &tensors.iter().find(|of| of.0 == name).unwrap().1;
    /// let (x, w) = (device.tensor(1, 16, DType::F32, &[1.0; 16])?, device.zeros(8, 16, DType::F32)?);
    /// let mut y = device.zeros(1, 8, DType::F32)?;
    /// let adapter = module.to_adapter(|name, _| Ok(named(name)))?;
    /// device.forward(Forward::new(&x, &w, &mut y).with_adapter(Some(adapter)).scale(module.scale))?;
    /// assert_eq!(y.to_f32()?, [4.0; 8]);
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    pub fn to_adapter<I, B: Into<Matrix<I>>>(
        &self,
        mut of: impl FnMut(&'static str, &Factor) -> Result<B>,
    ) -> Result<Adapter<I>> {
        self.check().map_err(of_module)?;
        let mut bind = |name, factor: &Factor| of(name, factor).map(Into::into);
        let cored = |method| {
            let why =
                "no call takes its Tucker core: Module::without_cores makes the same of it without";
            Err(of_module(format!("{method}: {why}")))
        };
        Ok(match &self.factors {
            Factors::Lora { a, b, core: None } => {
                Adapter::Lora { a: bind("lora_A", a)?, b: bind("lora_B", b)? }
            }
            Factors::Lora { a, b, core: Some(core) } => Adapter::Tucker {
                down: bind("lora_A", a)?,
                core: bind("lora_mid", core)?,
                up: bind("lora_B", b)?,
            },
            Factors::Loha { w1a, w1b, w2a, w2b, cores: None } => Adapter::Loha {
                w1a: bind("w1a", w1a)?,
                w1b: bind("w1b", w1b)?,
                w2a: bind("w2a", w2a)?,
                w2b: bind("w2b", w2b)?,
            },
            Factors::Lokr { w1, w2, core: None } => {
                let mut side = |side: &Side, [whole, a, b]: [&'static str; 3]| {
                    Ok::<_, crate::Error>(match side {
                        Side::Full(of) => OfCall::Whole(bind(whole, of)?),
                        Side::Low(of_a, of_b) => OfCall::Low(bind(a, of_a)?, bind(b, of_b)?),
                    })
                };
                let w1 = side(w1, ["w1", "w1a", "w1b"])?;
                Adapter::Lokr { w1, w2: side(w2, ["w2", "w2a", "w2b"])? }
            }
            Factors::Loha { .. } | Factors::Lokr { .. } => return cored(self.method()),
        })
    }

    /// The same ΔW with LoHa's and LoKr's Tucker cores taken into the factors beside them (`w1b`, `w2b`), which become
    /// `[r, K]`, in f64 and rounded to f32 once; the others become f32, too, so that all stay of one type. What has no such
    /// core, LoCon among it, is returned as it is.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where the factors do not fit each other.
    pub fn without_cores(&self) -> Result<Module> {
        self.check().map_err(of_module)?;
        let turned = |of: &Factor| Wide::of(of).transposed().rounded();
        let through = |of: &Factor, core| Wide::of(of).through(Some(core)).rounded();
        let factors = match &self.factors {
            Factors::Loha { w1a, w1b, w2a, w2b, cores: Some([t1, t2]) } => Factors::Loha {
                w1a: turned(w1a)?,
                w1b: through(w1b, t1)?,
                w2a: turned(w2a)?,
                w2b: through(w2b, t2)?,
                cores: None,
            },
            Factors::Lokr { w1, w2: Side::Low(a, b), core: Some(core) } => {
                let wide = |of: &Factor| Wide::of(of).rounded();
                let w1 = match w1 {
                    Side::Full(of) => Side::Full(wide(of)?),
                    Side::Low(a, b) => Side::Low(wide(a)?, wide(b)?),
                };
                Factors::Lokr { w1, w2: Side::Low(turned(a)?, through(b, core)?), core: None }
            }
            _ => return Ok(self.clone()),
        };
        Ok(Module { factors, ..self.clone() })
    }
}
