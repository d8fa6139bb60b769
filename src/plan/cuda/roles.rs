//! Which operand plays which part in the kernels, and how it lies: forward and backward_input
//! are one product with the roles turned (x → dy, w → wᵀ, a → bᵀ, b → aᵀ).

use super::params::Address;
use super::{Refusal, VECTOR, reason};
use crate::problem::Spec;
use crate::{DType, Error, Major, Operand, Operation, Problem};

/// One matrix of the adapter, `[rows, cols]` by its part: down `[rank, depth]`, up `[columns, rank]`.
pub(super) struct Factor {
    pub(super) operand: Operand,
    pub(super) place: Address,
    pub(super) rows: usize,
    cols: usize,
    stride: usize,
    /// Stored as `[rows, cols]`: the sum runs along stored rows.
    pub(super) k_major: bool,
    /// Another storage type than the activations'.
    pub(super) converts: bool,
    /// Bytes of an activation.
    pub(super) size: usize,
    pub(super) aligned: bool,
    /// Promised alignment in bytes; 0: that of every allocation.
    align: usize,
}

impl Factor {
    /// Whether four elements at a time can be loaded where it lies.
    pub(super) fn in_fours(&self, dtype: DType) -> bool {
        let bytes = 4 * dtype.size();
        self.align.is_multiple_of(bytes) && (self.place.stride as usize).is_multiple_of(bytes)
    }

    /// Takes two parts in the activations' type; f32 holds every adapter in one.
    pub(super) fn is_pair(&self) -> bool {
        self.converts && self.size == 2
    }

    /// Stored rows and columns if it lay along the sum, or not.
    pub(super) fn shape(&self, k_major: bool) -> [usize; 2] {
        if k_major { [self.rows, self.cols] } else { [self.cols, self.rows] }
    }

    /// Elements from one to the next along each of [`Factor::shape`], where it lies.
    pub(super) fn strides(&self, k_major: bool) -> [usize; 2] {
        let [row, col] = if self.k_major { [self.stride, 1] } else { [1, self.stride] };
        if k_major { [row, col] } else { [col, row] }
    }
}

/// Where an operand lies, if the problem has it.
pub(super) fn place(
    problem: &Problem,
    operand: Operand,
) -> Result<Option<(Address, Spec)>, Refusal> {
    let Some(spec) = problem.spec(operand) else { return Ok(None) };
    let bytes = spec.stride.checked_mul(spec.dtype.size());
    // No second row: its distance is free, and what is never read lies aligned like the first.
    let bytes = match spec.stored().0 {
        0 | 1 => bytes.and_then(|bytes| bytes.checked_next_multiple_of(VECTOR)),
        _ => bytes,
    };
    let got = bytes.unwrap_or(usize::MAX) as u64;
    let (what, limit) = ("bytes from row to row", u64::from(u32::MAX));
    let stride = u32::try_from(got)
        .map_err(|_| Refusal::Limit(Error::Limit { operand, what, limit, got }))?;
    Ok(Some((Address { operand: Some(operand), offset: 0, stride }, spec)))
}

/// Whether rows can be loaded 16 bytes at a time.
pub(super) fn aligned((place, spec): &(Address, Spec)) -> bool {
    spec.align.is_multiple_of(VECTOR) && (place.stride as usize).is_multiple_of(VECTOR)
}

fn side(
    problem: &Problem,
    operand: Operand,
    [rows, cols]: [usize; 2],
    k_major: impl Fn(&Spec) -> bool,
) -> Result<Option<Factor>, Refusal> {
    let found = place(problem, operand)?;
    let aligned = found.as_ref().is_none_or(aligned);
    Ok(found.map(|(place, spec)| Factor {
        operand,
        place,
        rows,
        cols,
        stride: spec.stride,
        k_major: k_major(&spec),
        converts: problem.adapter() != problem.activation(),
        size: problem.activation().size(),
        aligned,
        align: spec.align,
    }))
}

/// The parts of merge: `y += s·left·rightᵀ`, y being w or, stored by columns, wᵀ.
pub(super) struct Merge {
    pub(super) y: Address,
    pub(super) y_aligned: bool,
    pub(super) left: Factor,
    pub(super) right: Factor,
}

pub(super) fn merge(problem: &Problem) -> Result<Merge, Refusal> {
    let (n, k, r) = (problem.out_features(), problem.in_features(), problem.rank());
    let missing = || reason("merge without its operands".to_owned());
    let w = place(problem, Operand::W)?;
    let y_aligned = w.as_ref().is_none_or(aligned);
    let (y, spec) = w.ok_or_else(missing)?;
    // b is [n, r], as its part wants it; a is [r, k], whose part is the transpose.
    let b = side(problem, Operand::B, [n, r], |spec| spec.major == Major::Row)?;
    let a = side(problem, Operand::A, [k, r], |spec| spec.major == Major::Col)?;
    let (a, b) = a.zip(b).ok_or_else(missing)?;
    let (left, right) = if spec.major == Major::Row { (b, a) } else { (a, b) };
    Ok(Merge { y, y_aligned, left, right })
}

/// The operands by their parts.
pub(super) struct Roles {
    pub(super) x_operand: Operand,
    pub(super) y_operand: Operand,
    pub(super) bias: Option<Operand>,
    /// Length of the sum, and columns of the result.
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) x: Address,
    pub(super) x_aligned: bool,
    /// `[columns, depth]`, or stored as `[depth, columns]`. Not there on backward_shrink.
    pub(super) w: Option<Address>,
    pub(super) w_k_major: bool,
    w_aligned: bool,
    pub(super) y: Option<Address>,
    pub(super) y_aligned: bool,
    /// shrunk, where the caller keeps it.
    pub(super) kept: Option<Address>,
    kept_aligned: bool,
    /// The adapter, where there is a rank.
    pub(super) down: Option<Factor>,
    pub(super) up: Option<Factor>,
}

impl Roles {
    pub(super) fn new(problem: &Problem) -> Result<Roles, Refusal> {
        let forward = problem.operation() == Operation::Forward;
        let [x_operand, y_operand, kept, down, up] = match forward {
            true => [Operand::X, Operand::Y, Operand::Shrunk, Operand::A, Operand::B],
            false => [Operand::Dy, Operand::Dx, Operand::Dshrunk, Operand::B, Operand::A],
        };
        let (depth, columns) = match forward {
            true => (problem.in_features(), problem.out_features()),
            false => (problem.out_features(), problem.in_features()),
        };
        // Backwards the roles want the transpose of what the operand is.
        let k_major = |spec: &Spec| (spec.major == Major::Row) == forward;
        let side = |operand: Operand, shape: [usize; 2]| side(problem, operand, shape, k_major);
        let place = |operand: Operand| place(problem, operand);
        let (w, y, kept, x) =
            (place(Operand::W)?, place(y_operand)?, place(kept)?, place(x_operand)?);
        let alone = problem.operation() == Operation::BackwardShrink;
        Ok(Roles {
            x_operand,
            y_operand,
            bias: problem.spec(Operand::Bias).map(|_| Operand::Bias),
            depth,
            columns,
            x_aligned: x.as_ref().is_none_or(aligned),
            x: x.map(|(place, _)| place).ok_or_else(|| reason(format!("no {x_operand}")))?,
            w_k_major: w.as_ref().is_none_or(|(_, spec)| k_major(spec)),
            w_aligned: w.as_ref().is_none_or(aligned),
            w: w.map(|(place, _)| place),
            y_aligned: y.as_ref().is_none_or(aligned),
            y: y.map(|(place, _)| place),
            kept_aligned: kept.as_ref().is_none_or(aligned),
            kept: kept.map(|(place, _)| place),
            down: side(down, [problem.rank(), depth])?,
            up: if alone { None } else { side(up, [columns, problem.rank()])? },
        })
    }

    /// The first operand that cannot be loaded 16 bytes at a time.
    pub(super) fn unaligned(&self) -> Option<&'static str> {
        let all = [
            (self.x_aligned, "x or dy"),
            (self.w_aligned, "w"),
            (self.kept_aligned, "shrunk or dshrunk"),
        ];
        all.into_iter().find_map(|(aligned, name)| (!aligned).then_some(name))
    }

    /// shrunk can be stored 16 bytes at a time.
    pub(super) fn kept_aligned(&self) -> bool {
        self.kept_aligned
    }
}
