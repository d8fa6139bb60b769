//! A product of matrices that are stored row by row, said in BLAS's columns. Pure; called by
//! `cublas/` and by the tests.
//!
//! Rows read as columns are the transpose, so `out = lhs·rhs` becomes `outᵀ = rhsᵀ·lhsᵀ`: the
//! factors change places, and which of them are transposed turns round with their storage.

use super::products::{Form, Product};

/// `C[m, n] = op(A)·op(B)`, all stored column by column; A is the product's rhs, B its lhs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gemm {
    /// Whether A and B are taken transposed.
    pub transposed: [bool; 2],
    /// m, n and the length of the sums.
    pub size: [usize; 3],
    /// Elements from column to column, of A, B and C.
    pub leading: [usize; 3],
}

impl Gemm {
    pub fn of(product: &Product) -> Gemm {
        let [rows, cols, sum] = product.size();
        let transposed = match product.form {
            Form::Nt => [true, false],
            Form::Nn => [false, false],
            Form::Tn => [false, true],
        };
        let leading = [product.rhs, product.lhs, product.out].map(|view| view.stride);
        Gemm { transposed, size: [cols, rows, sum], leading }
    }

    /// Rows and columns of A, B and C as they are stored.
    pub fn stored(&self) -> [[usize; 2]; 3] {
        let [m, n, k] = self.size;
        let of = |rows, cols, transposed| if transposed { [cols, rows] } else { [rows, cols] };
        [of(m, k, self.transposed[0]), of(k, n, self.transposed[1]), [m, n]]
    }
}
