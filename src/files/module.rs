//! One adapted layer as the executors take it: the factors of its method, scale, magnitude and the convolution's
//! kernel. Made by `parts` for a file's tensors, and by callers who write.

use core::fmt;

use super::factors::{Factors, Side, taps};
use super::{Factor, of_module};
use crate::{Convolution, Result};

/// How ΔW is formed from the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Method {
    /// LoRA; on a convolution LoCon.
    Lora,
    /// The Hadamard product of two LoRAs.
    Loha,
    /// The Kronecker product of two matrices.
    Lokr,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Lora => "LoRA",
            Method::Loha => "LoHa",
            Method::Lokr => "LoKr",
        })
    }
}

/// One adapted layer: its ΔW by `factors`, times `scale`.
///
/// `y = x·(w + ΔW)ᵀ`; with a magnitude (DoRA, Liu et al., 2024, arXiv:2402.09353) every row of `w + ΔW` is scaled to the
/// norm that `magnitude` has for it.
///
/// ```
/// use fused_lora::DType;
/// use fused_lora::files::{Factor, Module};
///
/// let a = Factor::new(2, 3, DType::F32, &[0.5; 6])?; // lora_A [rank, in_features]
/// let b = Factor::new(4, 2, DType::F32, &[1.0; 8])?; // lora_B [out_features, rank]
/// let module = Module::lora(a, b, 0.25)?;
/// assert_eq!((module.out_features(), module.in_features(), module.rank()), (4, 3, 2));
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Module {
    /// The factors of its method.
    pub factors: Factors,
    /// s, by the rule of the file's layout: alpha / r, alpha / √r for rsLoRA, 1 for what has no rank.
    pub scale: f32,
    /// DoRA's m: `[1, N]`.
    pub magnitude: Option<Factor>,
    /// The convolution's kernel, `[kh, kw]` or `[k]`; empty for a linear layer, and where the file keeps K flat
    /// and does not say: [`Module::for_weight`] fills it in.
    pub kernel: Vec<usize>,
}

impl Module {
    /// Of a method's factors, for a linear layer, or with `kernel` for a convolution.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where the factors do not fit each other or the kernel.
    pub fn new(factors: Factors, scale: f32, kernel: &[usize]) -> Result<Module> {
        let module = Module { factors, scale, magnitude: None, kernel: kernel.to_vec() };
        module.check().map_err(of_module)?;
        Ok(module)
    }

    /// LoRA: lora_A `[r, K]`, lora_B `[N, r]`.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn lora(a: Factor, b: Factor, scale: f32) -> Result<Module> {
        Module::new(Factors::Lora { a, b, core: None }, scale, &[])
    }

    /// LoHa: `[N, r]`, `[r, K]`, `[N, r]`, `[r, K]`.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn loha(w1: [Factor; 2], w2: [Factor; 2], scale: f32) -> Result<Module> {
        let ([w1a, w1b], [w2a, w2b]) = (w1, w2);
        Module::new(Factors::Loha { w1a, w1b, w2a, w2b, cores: None }, scale, &[])
    }

    /// LoKr: `[a, b]` and `[c, d]` for a layer of `[a·c, b·d]`.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn lokr(w1: Side, w2: Side, scale: f32) -> Result<Module> {
        Module::new(Factors::Lokr { w1, w2, core: None }, scale, &[])
    }

    /// The same with DoRA's magnitude, `[1, N]`.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn with_magnitude(self, magnitude: Factor) -> Result<Module> {
        let module = Module { magnitude: Some(magnitude), ..self };
        module.check().map_err(of_module)?;
        Ok(module)
    }

    /// The method.
    pub fn method(&self) -> Method {
        match self.factors {
            Factors::Lora { .. } => Method::Lora,
            Factors::Loha { .. } => Method::Loha,
            Factors::Lokr { .. } => Method::Lokr,
        }
    }

    /// lora_A `[r, K]` and lora_B `[N, r]`, where that is all there is: for hosts that serve plain LoRA.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) that names what else it is. [`Module::to_lora`] makes plain LoRA of most.
    pub fn plain(&self) -> Result<(&Factor, &Factor)> {
        let reason = match &self.factors {
            _ if self.magnitude.is_some() => "DoRA: its magnitude scales the rows of w + ΔW",
            Factors::Lora { a, b, core: None } => return Ok((a, b)),
            Factors::Lora { .. } => {
                "LoCon with a Tucker core: Module::to_lora makes LoRA of it, Module::to_adapter takes it as it is"
            }
            Factors::Loha { .. } => {
                "LoHa: Module::to_lora makes LoRA of it, Module::to_adapter takes it as it is"
            }
            Factors::Lokr { .. } => {
                "LoKr: Module::to_lora makes LoRA of one with a low-rank w2, Module::to_adapter takes each as it is"
            }
        };
        Err(of_module(format!("expected plain LoRA, got {reason}")))
    }

    /// r; 0 for LoKr of two full factors, which has none.
    pub fn rank(&self) -> usize {
        self.factors.rank()
    }

    /// R, the rank of the LoRA that is exactly this adapter: r; r² for LoHa; a·r for LoKr with a low-rank
    /// w2; 0 where w2 is full.
    pub fn inner_rank(&self) -> usize {
        match &self.factors {
            Factors::Lora { a, .. } => a.rows(),
            Factors::Loha { w1b, w2b, .. } => w1b.rows().saturating_mul(w2b.rows()),
            Factors::Lokr { w1, w2: Side::Low(_, b), .. } => w1.shape()[0].saturating_mul(b.rows()),
            Factors::Lokr { .. } => 0,
        }
    }

    /// K: what a row of the weight has, `I·T` for a convolution.
    pub fn in_features(&self) -> usize {
        self.factors.shape()[1]
    }

    /// N: the rows of the weight.
    pub fn out_features(&self) -> usize {
        self.factors.shape()[0]
    }

    /// For a base weight of this shape, `[N, K]`, `[N, I, k]` or `[N, I, kh, kw]`: checks that the adapter is one of
    /// such a layer, and fills in the kernel where the file does not have it (LoHa and low-rank LoKr keep K flat).
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) with both shapes where they differ.
    ///
    /// ```
    /// # use fused_lora::DType;
    /// # use fused_lora::files::{Factor, Module};
    /// let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]);
    /// let flat = Module::loha([factor(8, 2)?, factor(2, 4 * 9)?], [factor(8, 2)?, factor(2, 4 * 9)?], 1.0)?;
    /// assert_eq!(flat.clone().for_weight(&[8, 4, 3, 3])?.kernel, [3, 3]);
    /// assert!(flat.clone().for_weight(&[8, 36])?.kernel.is_empty());
    /// assert!(flat.for_weight(&[8, 4, 5, 5]).is_err());
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    pub fn for_weight(self, weight: &[usize]) -> Result<Module> {
        let (kernel, features) = match *weight {
            [n, k] => (&[][..], [n, k]),
            [n, i, ref kernel @ ..] if (1..=2).contains(&kernel.len()) => {
                (kernel, [n, kernel.iter().fold(i, |k, size| k.saturating_mul(*size))])
            }
            _ => {
                let expected = "expected a base weight of two dimensions, or of three or four for a convolution";
                return Err(of_module(format!("{expected}, got {weight:?}")));
            }
        };
        // A 1×1 convolution is a linear layer on each pixel and may be stored as one; PEFT's core for [k] says [k, 1].
        let ones = |of: &[usize]| of.iter().all(|&size| size == 1);
        let same = self.kernel.is_empty()
            || self.kernel == kernel
            || ones(&self.kernel) && ones(kernel)
            || self.kernel.len() > kernel.len()
                && !kernel.is_empty()
                && self.kernel.starts_with(kernel)
                && ones(&self.kernel[kernel.len()..]);
        if !same || self.factors.shape() != features {
            let [n, k] = self.factors.shape();
            let own = match self.kernel.is_empty() {
                true => format!("[{n}, {k}]"),
                false => format!("[{n}, {k}] with the kernel {:?}", self.kernel),
            };
            return Err(of_module(format!("expected an adapter of {weight:?}, got one of {own}")));
        }
        let module = Module { kernel: kernel.to_vec(), ..self };
        module.check().map_err(of_module)?;
        Ok(module)
    }

    /// The convolution that the adapter is of, on so many images of `[height, width]`, channels first as its factors are;
    /// stride, padding and dilation are the layer's own, which no file has. `None` for a linear layer.
    ///
    /// ```
    /// # use fused_lora::DType;
    /// # use fused_lora::files::{Factor, Factors, Module};
    /// let factor = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]);
    /// let (a, b) = (factor(2, 4 * 9)?, factor(8, 2)?); // lora_down [2, 4, 3, 3], lora_up [8, 2, 1, 1]
    /// let locon = Module::new(Factors::Lora { a, b, core: None }, 1.0, &[3, 3])?;
    /// let convolution = locon.convolution(1, [64, 64]).unwrap().padding([1, 1]);
    /// assert_eq!(convolution.output(), [64, 64]);
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    pub fn convolution(&self, images: usize, size: [usize; 2]) -> Option<Convolution> {
        let kernel = match *self.kernel {
            [rows, columns] => [rows, columns],
            [columns] => [1, columns],
            _ => return None,
        };
        Some(Convolution::new(images, size, kernel))
    }

    /// Whether all shapes belong to one layer. Errors are reasons.
    pub(super) fn check(&self) -> Result<(), String> {
        self.factors.check()?;
        let [n, k] = self.factors.shape();
        if let Some(m) = &self.magnitude
            && [m.rows(), m.cols()] != [1, n]
        {
            let got = format!("[{}, {}]", m.rows(), m.cols());
            return Err(format!("magnitude: expected [1, {n}], got {got}"));
        }
        if !self.scale.is_finite() {
            return Err(format!("scale: expected a finite number, got {}", self.scale));
        }
        let taps_of = self.kernel.iter().try_fold(1usize, |taps, size| taps.checked_mul(*size));
        let core = self.factors.core().map(taps);
        let (of, depth) = match (&self.factors, core) {
            (_, Some(taps)) => ("a core", taps),
            (Factors::Lokr { w2, .. }, _) => ("a row of w2", w2.shape()[1]),
            _ => ("a row", k),
        };
        let whole = taps_of.is_some_and(|taps| taps > 0 && depth % taps == 0);
        let exact = core.is_none() || taps_of == core;
        match whole && exact && self.kernel.len() <= 2 {
            true => Ok(()),
            false => {
                let why = format!("does not divide {of} of {depth} elements");
                Err(format!("kernel: {:?} {why}", self.kernel))
            }
        }
    }
}
