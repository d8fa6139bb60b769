//! The operands of each operation as a struct with a field each: what callers write. All of them
//! become [`Operands`].

use super::{Matrix, Operands};
use crate::{Operand, Operation};

/// Operands of [`Operation::Forward`].
#[derive(Debug)]
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
    /// `[tokens, shrunk_stride]`, where the problem keeps it.
    pub shrunk: Option<Matrix<O>>,
}

/// The two factors of an adapter.
#[derive(Debug, Clone, Copy)]
pub struct Adapter<I> {
    /// lora_A `[rank, in_features]`.
    pub a: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
}

/// Operands of [`Operation::BackwardInput`].
#[derive(Debug)]
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
}

/// Operands of [`Operation::BackwardShrink`].
#[derive(Debug)]
pub struct BackwardShrink<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
    /// `[tokens, shrunk_stride]`.
    pub dshrunk: Matrix<O>,
}

/// Operands of [`Operation::BackwardAdapter`]: of each pair below both or neither.
#[derive(Debug)]
pub struct BackwardAdapter<I, O> {
    /// What `da` needs, and where it goes.
    pub a: Option<GradientA<I, O>>,
    /// What `db` needs, and where it goes.
    pub b: Option<GradientB<I, O>>,
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
pub struct Merge<I, O> {
    /// `[out_features, in_features]`, changed in place.
    pub w: Matrix<O>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
}

impl<I, O> From<Forward<I, O>> for Operands<I, O> {
    fn from(of: Forward<I, O>) -> Self {
        let mut operands = Operands::new(Operation::Forward);
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
        let mut operands = Operands::new(Operation::BackwardInput);
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
        let mut operands = Operands::new(Operation::BackwardShrink);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::B, Some(of.b));
        operands.set_written(Operand::Dshrunk, Some(of.dshrunk));
        operands
    }
}

impl<I, O> From<BackwardAdapter<I, O>> for Operands<I, O> {
    fn from(of: BackwardAdapter<I, O>) -> Self {
        let mut operands = Operands::new(Operation::BackwardAdapter);
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
        let mut operands = Operands::new(Operation::Merge);
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::W, Some(of.w));
        operands
    }
}
