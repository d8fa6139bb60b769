//! A layer as the products that it is made of, over named matrices: what goes without fusion
//! does them one by one. Pure data; `ours.rs` and `cublas/` carry it out, `memory.rs` lays the
//! matrices out.
//!
//! | way | forward | backward |
//! |---|---|---|
//! | plain | `y = x·wᵀ` | `dx = dy·w` |
//! | separate | `y = x·wᵀ`, `t = x·aᵀ`, `y += t·(s·b)ᵀ` | `dx = dy·w`, `t = dy·(s·b)`, `dx += t·a`, `da = tᵀ·x`, `db = dyᵀ·shrunk` |
//! | extended | `t = x·aᵀ` beside x, `y = [x t]·[w s·b]ᵀ` | `t = dy·(s·b)` beside dy, `dx = [dy t]·[w; a]`, `da`, `db` |
//!
//! Nothing here is what a user could not have prepared: s is folded into b, `[w s·b]` and the
//! room beside x are there already, and the rank is rounded up to 8 by zeros, so that every
//! row begins at a multiple of 16 bytes.

use fused_lora::{DType, Operand};

use super::common::shapes::{Cell, Direction};

/// A matrix in memory, stored row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    X,
    Dy,
    W,
    /// `[part, in_features]`; the rows after the rank are zero.
    A,
    /// `[out_features, rank]`, as PEFT stores it.
    B,
    /// s·b, `[out_features, part]`; the columns after the rank are zero.
    ScaledB,
    /// What forward left; backward reads it.
    Shrunk,
    /// x, or dy, with room for `part` columns beside it.
    Beside,
    /// `[w s·b]`, or `[w; a]`.
    Bordered,
    /// y, or dx. Outputs from here on.
    Out,
    /// shrunk, or dshrunk.
    T,
    Da,
    Db,
}

impl Name {
    pub const ALL: [Name; 13] = [
        Name::X,
        Name::Dy,
        Name::W,
        Name::A,
        Name::B,
        Name::ScaledB,
        Name::Shrunk,
        Name::Beside,
        Name::Bordered,
        Name::Out,
        Name::T,
        Name::Da,
        Name::Db,
    ];
}

/// A part of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub name: Name,
    pub rows: usize,
    pub cols: usize,
    /// Elements before the first one.
    pub offset: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl View {
    fn new(name: Name, rows: usize, cols: usize) -> View {
        View { name, rows, cols, offset: 0, stride: cols }
    }

    /// `cols` columns from `first` on.
    fn columns(self, first: usize, cols: usize) -> View {
        View { offset: self.offset + first, cols, ..self }
    }
}

/// Which of the factors are stored as their transposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `lhs·rhsᵀ`: a layer.
    Nt,
    /// `lhs·rhs`: its gradient by the input.
    Nn,
    /// `lhsᵀ·rhs`: its gradient by a weight.
    Tn,
}

/// `out = lhs·rhs`, or `out += lhs·rhs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub form: Form,
    pub lhs: View,
    pub rhs: View,
    pub out: View,
    /// Whether it adds to what is there.
    pub add: bool,
}

impl Product {
    /// Rows and columns of the result, and the length of the sums.
    pub fn size(&self) -> [usize; 3] {
        let sum = if self.form == Form::Tn { self.lhs.rows } else { self.lhs.cols };
        [self.out.rows, self.out.cols, sum]
    }

    #[cfg_attr(not(feature = "cublas"), allow(dead_code))]
    pub fn flops(&self) -> u64 {
        2 * self.size().map(|size| size as u64).iter().product::<u64>()
    }

    /// The least that any kernel moves.
    #[cfg_attr(not(feature = "cublas"), allow(dead_code))]
    pub fn bytes(&self, cell: Cell) -> u64 {
        let bytes = |of: View| (of.rows * of.cols * dtype(cell, of.name).size()) as u64;
        bytes(self.lhs)
            + bytes(self.rhs)
            + bytes(self.out)
            + if self.add { bytes(self.out) } else { 0 }
    }
}

/// A way through a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without its adapter; backward, the gradient of the input alone.
    Plain,
    /// Three products forward, five backward.
    Separate,
    /// Two products forward, four backward: the border is part of a longer sum.
    Extended,
}

/// The rank rounded up to 8: the row length of shrunk.
pub fn part(cell: Cell) -> usize {
    cell.rank.next_multiple_of(8)
}

/// Columns of the layer's input and of its output, in the direction in which it is gone through.
fn widths(cell: Cell) -> [usize; 2] {
    let (k, n) = (cell.shape.in_features, cell.shape.out_features);
    match cell.direction {
        Direction::Forward => [k, n],
        Direction::Backward => [n, k],
    }
}

/// Rows and columns as they are allocated. `None`: this direction has no such matrix.
pub fn allocated(cell: Cell, name: Name) -> Option<[usize; 2]> {
    let (m, r, part) = (cell.tokens, cell.rank, part(cell));
    let (k, n) = (cell.shape.in_features, cell.shape.out_features);
    let [from, to] = widths(cell);
    let backward = cell.direction == Direction::Backward;
    let both = Some(match name {
        Name::X => [m, k],
        Name::W => [n, k],
        Name::A => [part, k],
        Name::B => [n, r],
        Name::ScaledB => [n, part],
        Name::Beside => [m, from + part],
        Name::Bordered if backward => [n + part, k],
        Name::Bordered => [n, k + part],
        Name::Out => [m, to],
        Name::T => [m, part],
        Name::Dy => [m, n],
        Name::Shrunk => [m, part],
        Name::Da => [part, k],
        Name::Db => [n, part],
    });
    both.filter(|_| backward || !matches!(name, Name::Dy | Name::Shrunk | Name::Da | Name::Db))
}

/// Storage: gradients of the adapter are f32, all else is as the cell says.
pub fn dtype(cell: Cell, name: Name) -> DType {
    if matches!(name, Name::Da | Name::Db) { DType::F32 } else { cell.dtype }
}

/// A whole matrix.
fn whole(cell: Cell, name: Name) -> View {
    let [rows, cols] = allocated(cell, name).expect("a matrix of this direction");
    View::new(name, rows, cols)
}

/// The products of one way, in their order.
pub fn products(cell: Cell, way: Way) -> Vec<Product> {
    let whole = |name| whole(cell, name);
    let ([from, _], part) = (widths(cell), part(cell));
    let (form, input, down, up) = match cell.direction {
        Direction::Forward => (Form::Nt, Name::X, Name::A, Name::ScaledB),
        Direction::Backward => (Form::Nn, Name::Dy, Name::ScaledB, Name::A),
    };
    let product = |lhs, rhs, out| Product { form, lhs, rhs, out, add: false };
    let (beside, out) = (whole(Name::Beside), whole(Name::Out));
    let (mut products, input, t) = match way {
        Way::Plain => (vec![product(whole(input), whole(Name::W), out)], None, None),
        Way::Separate => {
            let (input, t) = (whole(input), whole(Name::T));
            let base = product(input, whole(Name::W), out);
            let shrink = product(input, whole(down), t);
            let expand = Product { add: true, ..product(t, whole(up), out) };
            (vec![base, shrink, expand], Some(input), Some(t))
        }
        Way::Extended => {
            let (input, t) = (beside.columns(0, from), beside.columns(from, part));
            let shrink = product(input, whole(down), t);
            let long = product(beside, whole(Name::Bordered), out);
            (vec![shrink, long], Some(input), Some(t))
        }
    };
    if let (Direction::Backward, Some(dy), Some(dshrunk)) = (cell.direction, input, t) {
        let gradient = |lhs, rhs, out| Product { form: Form::Tn, lhs, rhs, out, add: false };
        products.push(gradient(dshrunk, whole(Name::X), whole(Name::Da)));
        products.push(gradient(dy, whole(Name::Shrunk), whole(Name::Db)));
    }
    products
}

/// What a way leaves, without the padding. `part` is the row length of its db.
pub fn outputs(cell: Cell, adapted: bool, part: usize) -> Vec<(Operand, View)> {
    let r = cell.rank;
    match cell.direction {
        Direction::Forward => vec![(Operand::Y, whole(cell, Name::Out))],
        Direction::Backward => {
            let mut all = vec![(Operand::Dx, whole(cell, Name::Out))];
            if adapted {
                all.push((Operand::Da, View { rows: r, ..whole(cell, Name::Da) }));
                let db = View { cols: r, stride: part, ..whole(cell, Name::Db) };
                all.push((Operand::Db, db));
            }
            all
        }
    }
}
