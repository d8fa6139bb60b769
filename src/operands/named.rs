//! The operands of each operation as a struct with a field each: what callers write. All of them
//! become [`Operands`].

use super::options::Options;
use super::{Matrix, Operands};
use crate::{Operand, Operation};

/// Operands of [`Operation::Forward`]: `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`; with a gain
/// `y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias)`.
///
/// `x`, `w`, `bias` and `shrunk` have one type, `a` and `b` the same or another; `y` is of `x`'s type or f32, `gain` f32.
/// `shrunk` is `[tokens, shrunk_stride]`, where [`shrunk_stride`](crate::shrunk_stride) is the rank rounded up to 8.
///
/// ```
/// use fused_lora::cpu::Cpu;
/// use fused_lora::{Forward, Matrix};
///
/// let (x, w, a, b) = ([1.0f32; 2 * 8], [0.5f32; 4 * 8], [0.25f32; 8], [2.0f32; 4]);
/// let mut y = [0.0f32; 2 * 4];
/// let forward = Forward::new(Matrix::new(&x, 2, 8), Matrix::new(&w, 4, 8), Matrix::new(&mut y, 2, 4))
///     .adapter(Matrix::new(&a, 1, 8), Matrix::new(&b, 4, 1))
///     .scale(0.5);
/// Cpu::new().forward(forward)?;
/// assert_eq!(y, [8.0 * 0.5 + 0.5 * (8.0 * 0.25) * 2.0; 8]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Forward<I, O> {
    /// `[tokens, in_features]`.
    pub x: Matrix<I>,
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// `[1, out_features]`.
    pub bias: Option<Matrix<I>>,
    /// `[1, out_features]`, in f32: a factor of each output column.
    pub gain: Option<Matrix<I>>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, out_features]`.
    pub y: Matrix<O>,
    /// `[tokens, shrunk_stride]`, where it is kept for the backward pass.
    pub shrunk: Option<Matrix<O>>,
    pub(super) options: Options,
}

/// An adapter by what it stores; [`Method`](crate::Method) has the mathematics and the shapes.
///
/// Of all but LoRA a call first composes `a` and `b` of the inner rank R, in f32 and memory of the executor's
/// own: 4·R·(in_features + out_features) bytes, and as much for their gradients in a backward pass. Of a LoKr whose w2 is
/// whole it composes w1 alone, where that is two factors, and kernels form `w + s·w1 ⊗ w2` in f32 as they read w.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Adapter<I> {
    /// `ΔW = s·b·a`.
    Lora {
        /// lora_A `[rank, in_features]`.
        a: Matrix<I>,
        /// lora_B `[out_features, rank]`.
        b: Matrix<I>,
    },
    /// `ΔW = s·(w1a·w1b) ∘ (w2a·w2b)`, of inner rank rank².
    Loha {
        /// `[out_features, rank]`.
        w1a: Matrix<I>,
        /// `[rank, in_features]`.
        w1b: Matrix<I>,
        /// `[out_features, rank]`.
        w2a: Matrix<I>,
        /// `[rank, in_features]`.
        w2b: Matrix<I>,
    },
    /// `ΔW = s·w1 ⊗ w2`, of inner rank rows of w1 · rank; of a whole w2 of none. On images w2 has
    /// columns in the order of w's: a call that says its convolution, merge and norm among them, has the taps of a w2 before its
    /// channels where channels lie last; without it they are in PyTorch's, `[rows, channels, kernel rows, kernel columns]`.
    Lokr {
        /// `[rows, columns]`, which divide w's.
        w1: Factor<I>,
        /// `[out_features / rows, in_features / columns]`.
        w2: Factor<I>,
    },
    /// LoCon with a Tucker core: `ΔW = s·up·T`, T\[p,(channel,tap)\] = Σ core\[p,(q,tap)\]·down\[q,channel\], of inner rank rank. A
    /// call that says its convolution, merge and norm among them, has w's columns in the order of that; without it they are in
    /// PyTorch's, `[out_features, channels, rows, columns]`.
    Tucker {
        /// lora_down `[rank, channels]`.
        down: Matrix<I>,
        /// lora_mid `[rank, rank · taps]`, as PyTorch stores `[rank, rank, rows, columns]`.
        core: Matrix<I>,
        /// lora_up `[out_features, rank]`.
        up: Matrix<I>,
    },
}

/// A factor of LoKr: a matrix, or two of low rank that multiply to it.
#[derive(Debug, Clone, Copy)]
pub enum Factor<I> {
    /// As it is.
    Whole(Matrix<I>),
    /// `[rows, rank]` and `[rank, columns]`.
    Low(Matrix<I>, Matrix<I>),
}

impl<I> Factor<I> {
    /// Stored as it is.
    pub fn whole(of: impl Into<Matrix<I>>) -> Factor<I> {
        Factor::Whole(of.into())
    }

    /// Stored as `a·b`.
    pub fn low(a: impl Into<Matrix<I>>, b: impl Into<Matrix<I>>) -> Factor<I> {
        Factor::Low(a.into(), b.into())
    }
}

impl<I> Adapter<I> {
    /// LoRA, of its factors.
    pub fn new(a: impl Into<Matrix<I>>, b: impl Into<Matrix<I>>) -> Adapter<I> {
        Adapter::Lora { a: a.into(), b: b.into() }
    }

    /// LoHa, of its factors.
    pub fn loha(
        w1a: impl Into<Matrix<I>>,
        w1b: impl Into<Matrix<I>>,
        w2a: impl Into<Matrix<I>>,
        w2b: impl Into<Matrix<I>>,
    ) -> Adapter<I> {
        Adapter::Loha { w1a: w1a.into(), w1b: w1b.into(), w2a: w2a.into(), w2b: w2b.into() }
    }

    /// LoCon with a Tucker core, of its factors.
    pub fn tucker(
        down: impl Into<Matrix<I>>,
        core: impl Into<Matrix<I>>,
        up: impl Into<Matrix<I>>,
    ) -> Adapter<I> {
        Adapter::Tucker { down: down.into(), core: core.into(), up: up.into() }
    }

    /// LoKr, of its factors.
    pub fn lokr(w1: Factor<I>, w2: Factor<I>) -> Adapter<I> {
        Adapter::Lokr { w1, w2 }
    }
}

/// Operands of a whole backward pass: `dx`, `da` and `db`, each where it is wanted.
///
/// ```text
/// dx = dy·w + dshrunk·a      dshrunk = s·dy·b
/// db = dyᵀ·shrunk            da = dshrunkᵀ·x
/// ```
///
/// `dshrunk` stays inside. Where `shrunk` was not kept it is worked out anew from `x` and `a`. The scale
/// is forward's. What is not asked for is not computed; without `dx`, `da` and `db` nothing is.
///
/// `x`, `w`, `dy` and `shrunk` have one type, `a` and `b` the same or another, `da` and `db` likewise; `dx` is of
/// `x`'s type or f32.
///
/// ```
/// use fused_lora::cpu::Cpu;
/// use fused_lora::{Backward, Matrix};
///
/// let (x, w, a, b) = ([1.0f32; 2 * 8], [0.5f32; 4 * 8], [0.25f32; 8], [2.0f32; 4]);
/// let dy = [1.0f32; 2 * 4];
/// let (mut dx, mut da, mut db) = ([0.0f32; 2 * 8], [0.0f32; 8], [0.0f32; 4]);
/// let backward = Backward::new(Matrix::new(&x, 2, 8), Matrix::new(&w, 4, 8), Matrix::new(&dy, 2, 4))
///     .adapter(Matrix::new(&a, 1, 8), Matrix::new(&b, 4, 1))
///     .scale(0.5)
///     .dx(Matrix::new(&mut dx, 2, 8))
///     .da(Matrix::new(&mut da, 1, 8))
///     .db(Matrix::new(&mut db, 4, 1));
/// Cpu::new().backward(backward)?;
/// assert_eq!(dx, [4.0 * 0.5 + 0.5 * (4.0 * 2.0) * 0.25; 16]);
/// assert_eq!((da, db), ([2.0 * 0.5 * (4.0 * 2.0); 8], [2.0 * 0.5 * (8.0 * 0.25); 4]));
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Backward<I, O> {
    /// `[tokens, in_features]`.
    pub x: Matrix<I>,
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, shrunk_stride]`, as the forward pass left it; `None`: worked out anew.
    pub shrunk: Option<Matrix<I>>,
    /// `[tokens, in_features]`; `None` where no gradient of the input is wanted.
    pub dx: Option<Matrix<O>>,
    /// `[rank, in_features]`; `None` where it is not trained.
    pub da: Option<Matrix<O>>,
    /// `[out_features, rank]`; `None` where it is not trained.
    pub db: Option<Matrix<O>>,
    /// Of the factors of other methods than LoRA, in place of `da` and `db`.
    pub factors: FactorGradients<O>,
    pub(super) options: Options,
}

/// Gradients of the factors of LoHa, LoKr and LoCon with a core, shaped as these are. Those that follow from `da` (LoHa's w1b
/// and w2b, LoKr's w1 and w2b, LoCon's down and core) are wanted together or not at all, and so are those that follow from `db`. Of a LoKr with a whole w2
/// each factor's is wanted or not.
#[derive(Debug)]
#[non_exhaustive]
pub struct FactorGradients<O> {
    /// Of LoKr's w1, where it is stored whole.
    pub dw1: Option<Matrix<O>>,
    /// Of w1a.
    pub dw1a: Option<Matrix<O>>,
    /// Of w1b.
    pub dw1b: Option<Matrix<O>>,
    /// Of LoKr's w2, where it is stored whole.
    pub dw2: Option<Matrix<O>>,
    /// Of w2a.
    pub dw2a: Option<Matrix<O>>,
    /// Of w2b.
    pub dw2b: Option<Matrix<O>>,
    /// Of LoCon's lora_down beside a core.
    pub ddown: Option<Matrix<O>>,
    /// Of the core.
    pub dcore: Option<Matrix<O>>,
    /// Of LoCon's lora_up beside a core.
    pub dup: Option<Matrix<O>>,
}

/// How many there are.
pub(super) const GRADIENTS: usize = 9;

impl<O> Default for FactorGradients<O> {
    fn default() -> FactorGradients<O> {
        let (dw1, dw1a, dw1b, dw2, dw2a, dw2b) = (None, None, None, None, None, None);
        let (ddown, dcore, dup) = (None, None, None);
        FactorGradients { dw1, dw1a, dw1b, dw2, dw2a, dw2b, ddown, dcore, dup }
    }
}

impl<O> FactorGradients<O> {
    /// Each with its name.
    pub(super) fn into_operands(self) -> [(Operand, Option<Matrix<O>>); GRADIENTS] {
        let FactorGradients { dw1, dw1a, dw1b, dw2, dw2a, dw2b, ddown, dcore, dup } = self;
        [
            (Operand::Dw1, dw1),
            (Operand::Dw1a, dw1a),
            (Operand::Dw1b, dw1b),
            (Operand::Dw2, dw2),
            (Operand::Dw2a, dw2a),
            (Operand::Dw2b, dw2b),
            (Operand::Ddown, ddown),
            (Operand::Dcore, dcore),
            (Operand::Dup, dup),
        ]
    }
}

/// Operands of [`Operation::BackwardInput`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BackwardInput<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, in_features]`.
    pub dx: Matrix<O>,
    /// `[tokens, shrunk_stride]`, where the problem keeps it.
    pub dshrunk: Option<Matrix<O>>,
    pub(super) options: Options,
}

/// Operands of [`Operation::BackwardShrink`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BackwardShrink<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
    /// `[tokens, shrunk_stride]`.
    pub dshrunk: Matrix<O>,
    pub(super) options: Options,
}

/// Operands of [`Operation::BackwardAdapter`]: of each pair below both or neither.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackwardAdapter<I, O> {
    /// What `da` needs, and where it goes.
    pub a: Option<GradientA<I, O>>,
    /// What `db` needs, and where it goes.
    pub b: Option<GradientB<I, O>>,
    pub(super) options: Options,
}

/// `da = dshrunkᵀ·x`.
#[derive(Debug)]
pub struct GradientA<I, O> {
    /// `[tokens, in_features]`.
    pub x: Matrix<I>,
    /// `[tokens, shrunk_stride]`, as [`Operation::BackwardInput`] left it.
    pub dshrunk: Matrix<I>,
    /// `[rank, in_features]`.
    pub da: Matrix<O>,
}

/// `db = dyᵀ·shrunk`.
#[derive(Debug)]
pub struct GradientB<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// `[tokens, shrunk_stride]`, as [`Operation::Forward`] left it.
    pub shrunk: Matrix<I>,
    /// `[out_features, rank]`.
    pub db: Matrix<O>,
}

/// Operands of [`Operation::Merge`] and [`Operation::Unmerge`]; who needs the bits of w again keeps a copy.
#[derive(Debug)]
#[non_exhaustive]
pub struct Merge<I, O> {
    /// `[out_features, in_features]`, changed in place.
    pub w: Matrix<O>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    pub(super) options: Options,
}

/// Operands of [`Operation::Norm`]: `gain = magnitude / ‖w + s·b·a‖` for each row, which [`Forward::gain`] takes.
///
/// `magnitude` and `gain` are f32. A row of zeros, or on a GPU a magnitude that is not finite, gives a gain that is not.
///
/// ```
/// use fused_lora::cpu::Cpu;
/// use fused_lora::{Matrix, Norm};
///
/// let (w, a, b) = ([1.0f32; 2 * 4], [2.0f32; 4], [0.5f32, 1.0]);
/// let mut gain = [0.0f32; 2];
/// let norm = Norm::new(Matrix::new(&w, 2, 4), Matrix::vector(&[8.0f32, 12.0], 2), Matrix::vector(&mut gain, 2));
/// Cpu::new().norm(norm.adapter(Matrix::new(&a, 1, 4), Matrix::new(&b, 2, 1)))?;
/// // Rows of w + b·a: four twos, four threes.
/// assert_eq!(gain, [8.0 / 4.0, 12.0 / 6.0]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Norm<I, O> {
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[1, out_features]`: none is 0.
    pub magnitude: Matrix<I>,
    /// `[1, out_features]`.
    pub gain: Matrix<O>,
    pub(super) options: Options,
}

/// Operands of [`Operation::BackwardGain`]: before a backward pass through a layer with a gain, whose `dy` is then
/// `scaled_dy`.
///
/// ```text
/// scaled_dy = gain∘dy      dmagnitude = β·old + Σ over the tokens of dy∘(y − bias) / magnitude
/// ```
///
/// `y` is what forward made with the same gain, before anything else was done with it. `dy`, `bias` and `scaled_dy` have
/// one type, `y` the same or f32; `gain` and `magnitude` are f32. Of (IA)³ on outputs the gain is its own magnitude.
#[derive(Debug)]
#[non_exhaustive]
pub struct BackwardGain<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// `[tokens, out_features]`.
    pub y: Matrix<I>,
    /// `[1, out_features]`, where forward had one.
    pub bias: Option<Matrix<I>>,
    /// `[1, out_features]`, forward's.
    pub gain: Matrix<I>,
    /// `[1, out_features]`.
    pub magnitude: Matrix<I>,
    /// `[tokens, out_features]`.
    pub scaled_dy: Matrix<O>,
    /// `[1, out_features]`.
    pub dmagnitude: Matrix<O>,
    pub(super) options: Options,
}

impl<I, O> From<Norm<I, O>> for Operands<I, O> {
    fn from(of: Norm<I, O>) -> Self {
        let mut operands = Operands::with(Operation::Norm, of.options);
        operands.set_read(Operand::W, Some(of.w));
        operands.set_adapter(of.adapter);
        operands.set_read(Operand::Magnitude, Some(of.magnitude));
        operands.set_written(Operand::Gain, Some(of.gain));
        operands
    }
}

impl<I, O> From<BackwardGain<I, O>> for Operands<I, O> {
    fn from(of: BackwardGain<I, O>) -> Self {
        let mut operands = Operands::with(Operation::BackwardGain, of.options);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::Y, Some(of.y));
        operands.set_read(Operand::Bias, of.bias);
        operands.set_read(Operand::Gain, Some(of.gain));
        operands.set_read(Operand::Magnitude, Some(of.magnitude));
        operands.set_written(Operand::ScaledDy, Some(of.scaled_dy));
        operands.set_written(Operand::Dmagnitude, Some(of.dmagnitude));
        operands
    }
}

impl<I, O> From<Forward<I, O>> for Operands<I, O> {
    fn from(of: Forward<I, O>) -> Self {
        let mut operands = Operands::with(Operation::Forward, of.options);
        operands.set_read(Operand::X, Some(of.x));
        operands.set_read(Operand::W, Some(of.w));
        operands.set_read(Operand::Bias, of.bias);
        operands.set_read(Operand::Gain, of.gain);
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::Y, Some(of.y));
        operands.set_written(Operand::Shrunk, of.shrunk);
        operands
    }
}

impl<I, O> From<BackwardInput<I, O>> for Operands<I, O> {
    fn from(of: BackwardInput<I, O>) -> Self {
        let mut operands = Operands::with(Operation::BackwardInput, of.options);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::W, Some(of.w));
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::Dx, Some(of.dx));
        operands.set_written(Operand::Dshrunk, of.dshrunk);
        operands
    }
}

impl<I, O> From<BackwardShrink<I, O>> for Operands<I, O> {
    fn from(of: BackwardShrink<I, O>) -> Self {
        let mut operands = Operands::with(Operation::BackwardShrink, of.options);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::B, Some(of.b));
        operands.set_written(Operand::Dshrunk, Some(of.dshrunk));
        operands
    }
}

impl<I, O> From<BackwardAdapter<I, O>> for Operands<I, O> {
    fn from(of: BackwardAdapter<I, O>) -> Self {
        let mut operands = Operands::with(Operation::BackwardAdapter, of.options);
        if let Some(GradientA { x, dshrunk, da }) = of.a {
            operands.set_read(Operand::X, Some(x));
            operands.set_read(Operand::Dshrunk, Some(dshrunk));
            operands.set_written(Operand::Da, Some(da));
        }
        if let Some(GradientB { dy, shrunk, db }) = of.b {
            operands.set_read(Operand::Dy, Some(dy));
            operands.set_read(Operand::Shrunk, Some(shrunk));
            operands.set_written(Operand::Db, Some(db));
        }
        operands
    }
}

impl<I, O> From<Merge<I, O>> for Operands<I, O> {
    fn from(of: Merge<I, O>) -> Self {
        let mut operands = Operands::with(Operation::Merge, of.options);
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::W, Some(of.w));
        operands
    }
}
