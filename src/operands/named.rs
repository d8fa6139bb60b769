//! The operands of each operation as a struct with a field each: what callers write. All of them
//! become [`Operands`].

use super::options::Options;
use super::{Matrix, Operands};
use crate::{Operand, Operation};

/// Operands of [`Operation::Forward`]: `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`.
///
/// `x`, `w`, `bias` and `shrunk` have one type, `a` and `b` the same or another; `y` is of `x`'s type or f32.
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
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, out_features]`.
    pub y: Matrix<O>,
    /// `[tokens, shrunk_stride]`, where it is kept for the backward pass.
    pub shrunk: Option<Matrix<O>>,
    pub(super) options: Options,
}

/// The two factors of an adapter.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Adapter<I> {
    /// lora_A `[rank, in_features]`.
    pub a: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
}

impl<I> Adapter<I> {
    /// Of its factors.
    pub fn new(a: impl Into<Matrix<I>>, b: impl Into<Matrix<I>>) -> Adapter<I> {
        Adapter { a: a.into(), b: b.into() }
    }
}

/// Operands of a whole backward pass: `dx`, `da` and `db`, each where it is wanted.
///
/// ```text
/// dx = dy·w + dshrunk·a      dshrunk = s·dy·b
/// db = dyᵀ·shrunk            da = dshrunkᵀ·x
/// ```
///
/// `dshrunk` stays inside. Where `shrunk` was not kept it is worked out anew from `x` and `a`. The scale is
/// forward's. What is not asked for is not computed; without `dx`, `da` and `db` nothing is.
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
    pub(super) options: Options,
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

impl<I, O> From<Forward<I, O>> for Operands<I, O> {
    fn from(of: Forward<I, O>) -> Self {
        let mut operands = Operands::with(Operation::Forward, of.options);
        operands.set_read(Operand::X, Some(of.x));
        operands.set_read(Operand::W, Some(of.w));
        operands.set_read(Operand::Bias, of.bias);
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
