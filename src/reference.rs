//! The definition, in f64 and plain loops: what every executor is tested against, and how
//! far from it f32 sums and one rounding may lie. Never fast; used by tests and examples.
//!
//! ```
//! use fused_lora::reference::{Dense, Sums, expected};
//! use fused_lora::{Operand, Problem};
//!
//! let problem = Problem::forward(1, 2, 1, 1).with_scale(0.5);
//! let results = expected(&problem, Sums::F32, |operand| match operand {
//!     Operand::X => Dense::new(1, 2, vec![1.0, 2.0]),
//!     Operand::W => Dense::new(1, 2, vec![3.0, 4.0]),
//!     Operand::A => Dense::new(1, 2, vec![1.0, 1.0]),
//!     Operand::B => Dense::new(1, 1, vec![10.0]),
//!     other => unreachable!("{other} is no operand of this problem"),
//! });
//! let y = &results.iter().find(|(operand, _)| *operand == Operand::Y).unwrap().1;
//! assert_eq!(y.value.at(0, 0), 11.0 + 0.5 * 3.0 * 10.0);
//! ```

mod convolution;
mod factors;
mod gain;

pub use factors::{delta_w, gradients_of_delta_w};

use crate::{Access, DType, Element, Major, Matrix, Operand, Operation, Problem};

/// A matrix in f64, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Dense {
    /// `values` row by row. Panics where there are not `rows · cols` of them.
    pub fn new(rows: usize, cols: usize, values: Vec<f64>) -> Dense {
        assert_eq!(values.len(), rows * cols, "a {rows} × {cols} matrix");
        Dense { rows, cols, values }
    }

    /// `value(row, col)` everywhere.
    pub fn from_fn(rows: usize, cols: usize, value: impl Fn(usize, usize) -> f64) -> Dense {
        let values = (0..rows * cols).map(|at| value(at / cols, at % cols)).collect();
        Dense { rows, cols, values }
    }

    /// What `matrix` holds, whatever its layout.
    pub fn read<E: Element>(matrix: &Matrix<&[E]>) -> Dense {
        Dense::from_fn(matrix.rows, matrix.cols, |row, col| {
            let (outer, inner) = match matrix.major {
                Major::Row => (row, col),
                Major::Col => (col, row),
            };
            f64::from(matrix.buffer[matrix.offset + outer * matrix.stride + inner].to_f32())
        })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The element in row `row` and column `col`.
    pub fn at(&self, row: usize, col: usize) -> f64 {
        self.values[row * self.cols + col]
    }

    /// All elements, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Rows and columns exchanged.
    pub fn transposed(&self) -> Dense {
        Dense::from_fn(self.cols, self.rows, |row, col| self.at(col, row))
    }

    /// `f` of every element.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Dense {
        let values = self.values.iter().map(|&value| f(value)).collect();
        Dense { values, ..*self }
    }

    /// `self·otherᵀ`: the product that every formula here is written with.
    pub fn times_transposed(&self, other: &Dense) -> Dense {
        assert_eq!(self.cols, other.cols, "the depth of a product");
        Dense::from_fn(self.rows, other.rows, |row, col| {
            (0..self.cols).map(|k| self.at(row, k) * other.at(col, k)).sum()
        })
    }

    fn plus(&self, other: &Dense) -> Dense {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "the shape of a sum");
        Dense::from_fn(self.rows, self.cols, |row, col| self.at(row, col) + other.at(row, col))
    }

    fn abs(&self) -> Dense {
        self.map(f64::abs)
    }
}

/// How an executor forms sums: what γ(n) of the tolerance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sums {
    /// f32 multiply-adds, rounded to nearest, on random data: `8·√n·2⁻²⁴`.
    F32,
    /// f32 multiply-adds on any data: `n·2⁻²⁴`.
    F32AnyData,
    /// 16-bit products summed by tensor cores, which truncate: `(n/8 + 8)·2⁻²³`.
    TensorCore,
    /// The same of f32 whose factors are first rounded to tf32: `(n/8 + 8)·2⁻²³ + 2·2⁻¹¹`.
    Tf32,
}

impl Sums {
    /// γ(n) of a sum of `n` products.
    pub fn gamma(self, n: usize) -> f64 {
        let u = DType::F32.roundoff();
        match self {
            Sums::F32 => 8.0 * (n as f64).sqrt() * u,
            Sums::F32AnyData => n as f64 * u,
            Sums::TensorCore => (n as f64 / 8.0 + 8.0) * 2.0 * u,
            Sums::Tf32 => Sums::TensorCore.gamma(n) + 2.0 * 2f64.powi(-11),
        }
    }
}

/// An output as it should be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Expected {
    /// The exact value. `shrunk` and `dshrunk` have `rank` columns here, see [`shrunk_value`].
    pub value: Dense,
    /// How far each element may lie from it.
    pub tolerance: Dense,
}

/// Every output of `problem`, exactly, with its tolerance. `operand` gives the inputs and,
/// where β ≠ 0 or on merge, the old values of the outputs; `shrunk` and `dshrunk` as stored.
///
/// With u and η the roundoff and half the smallest subnormal of an operand's storage:
///
/// ```text
/// tol(y) = u_y·|y| + η_y + |b|·(u_s·|shrunk| + η_s)
///        + 2·γ(K)·(|x||w|ᵀ + |s||x||a|ᵀ|b|ᵀ) + 2·γ(r)·|shrunk||b|ᵀ + 2⁻²⁴·(|bias| + 2·|β·old|)
/// tol(gain∘y) = u_y·|y| + η_y + |gain|∘(what the sums may lose) + 2⁻²⁴·(|gain∘sums| + |bias| + 2·|β·old|)
/// tol(shrunk) = u_s·|shrunk| + η_s + 2·γ(K)·|s||x||a|ᵀ
/// tol(da) = u_g·|da| + η_g + 2·γ(M)·|dshrunk|ᵀ|x| + 2⁻²³·|β·old|,  db alike
/// tol(w ± s·w1 ⊗ w2) = u_w·|w ± s·w1 ⊗ w2| + η_w + 3·2⁻²⁴·(|w| + |s·w1 ⊗ w2|)
/// tol(w ± s·b·a) = u_w·|w ± s·b·a| + η_w + 2·γ(r)·|s||b||a| + 2⁻²⁴·|w|
/// ```
///
/// Of LoKr with a whole w2, w + s·w1 ⊗ w2 stands for w, and |w| + |s·w1 ⊗ w2| for |w|; forming the sum adds
/// `3·2⁻²⁴·|x|(|w| + |s·w1 ⊗ w2|)ᵀ`.
///
/// Tensor cores take an adapter of another storage type than the activations in two parts of
/// theirs, v = high + low. Of v they lose δ = ½·u²·|v| + η (2⁻¹⁷·|v| in bf16, 2⁻²³·|v| in f16):
/// what high leaves is at most u·2ᵉ where 2ᵉ ≤ |v|; it is u·2ᵉ itself, which low holds, or lies
/// in a binade below that, whose half unit is ½·u²·2ᵉ; or low is subnormal, and half a unit is η.
/// So `shrunk` adds `|s||x|δ(a)ᵀ`, y adds `|s||x|δ(a)ᵀ|b|ᵀ + |shrunk|δ(b)ᵀ`, and merge adds
/// `|s|·(δ(b)|a| + |b|δ(a))`; of LoKr with a whole w2 y adds `|s||x|(|w1| ⊗ δ(w2))ᵀ`. Where low parts could meet on both sides (y if `precise`, merge),
/// their product is left out: with ρ = u·|v| + η, the most that low holds, y adds
/// `ρ(shrunk)ρ(b)ᵀ` and merge `|s|ρ(b)ρ(a)`.
pub fn expected(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    match problem.operation() {
        Operation::Forward | Operation::BackwardInput => linear(problem, sums, operand),
        Operation::BackwardShrink => shrink(problem, sums, operand),
        Operation::BackwardAdapter if problem.method().kronecker().is_some() => {
            factors::gradients(problem, sums, operand)
        }
        Operation::BackwardAdapter => gradients(problem, sums, operand),
        Operation::Merge | Operation::Unmerge => merge(problem, sums, operand),
        Operation::Compose => factors::compose(problem, sums, operand),
        Operation::Chain => factors::chain(problem, sums, operand),
        Operation::Norm => gain::norm(problem, sums, operand),
        Operation::BackwardGain => gain::gradient(problem, sums, operand),
    }
}

/// `shrunk` or `dshrunk` as a number per rank: the high part and, if there is one, the low.
pub fn shrunk_value(problem: &Problem, stored: &Dense) -> Dense {
    Dense::from_fn(stored.rows(), problem.rank(), |row, rank| {
        let high = stored.at(row, rank);
        match problem.is_precise() {
            true => high + stored.at(row, problem.padded_rank() + rank),
            false => high,
        }
    })
}

/// Roundoff of `shrunk` as stored.
fn shrunk_roundoff(problem: &Problem) -> f64 {
    match (problem.is_precise(), problem.activation()) {
        (true, DType::Bf16) => 2f64.powi(-16),
        (true, DType::F16) => 2f64.powi(-21),
        (_, dtype) => dtype.roundoff(),
    }
}

fn linear(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    let window = problem.window();
    // backward_input is forward with the roles turned: x → dy, w → wᵀ, a → bᵀ, b → aᵀ.
    let forward = problem.operation() == Operation::Forward;
    let (x, output, kept) = match forward {
        true => (input(problem, operand(Operand::X)), Operand::Y, Operand::Shrunk),
        false => (output_of(problem, operand(Operand::Dy)), Operand::Dx, Operand::Dshrunk),
    };
    let w = match forward {
        true => operand(Operand::W),
        false => operand(Operand::W).transposed(),
    };
    let (a, b) = match (problem.rank(), forward) {
        (0, _) => (Dense::new(0, x.cols(), vec![]), Dense::new(w.rows(), 0, vec![])),
        (_, true) => (operand(Operand::A), operand(Operand::B)),
        (_, false) => (operand(Operand::B).transposed(), operand(Operand::A).transposed()),
    };
    let scale = f64::from(problem.scale());
    let dtype = problem.output();
    // Of a convolution's input each element is reached by every tap.
    let taps = if forward { 1 } else { window.map_or(1, |of| of.taps()) };
    let (gamma_k, gamma_r) = (sums.gamma(taps * x.cols()), sums.gamma(taps * a.rows()));

    let shrunk = x.times_transposed(&a).map(|value| scale * value);
    // What LoKr with a whole w2 adds to w, and what forming the sum in f32 may lose: three roundings.
    let (whole, sizes) = match factors::summand(problem, &operand) {
        None => (w.clone(), w.abs()),
        Some(of) => {
            let of = if forward { of } else { of.transposed() };
            (w.plus(&of), w.abs().plus(&of.abs()))
        }
    };
    let formed = match problem.method().kronecker() {
        None => 0.0,
        Some(_) => 3.0 * DType::F32.roundoff(),
    };
    let summand_lost = factors::summand_lost(problem, sums, &operand);
    let summand_lost = summand_lost.map(|of| if forward { of } else { of.transposed() });
    let mut y = x.times_transposed(&whole).plus(&shrunk.times_transposed(&b));

    let abs_shrunk = x.abs().times_transposed(&a.abs()).map(|value| scale.abs() * value);
    let rounding = shrunk_rounding(problem, &shrunk);
    let sums_of_w = x
        .abs()
        .times_transposed(&sizes)
        .map(|value| (2.0 * gamma_k + formed) * value)
        .plus(&abs_shrunk.times_transposed(&b.abs()).map(|value| 2.0 * gamma_k * value));
    let border = shrunk.abs().times_transposed(&b.abs()).map(|value| 2.0 * gamma_r * value);
    let mut tolerance = rounding.times_transposed(&b.abs()).plus(&sums_of_w).plus(&border);
    if let Some(of) = &summand_lost {
        tolerance = tolerance.plus(&x.abs().times_transposed(of));
    }
    if in_two_parts(problem, sums) {
        let of_a = x.abs().times_transposed(&lost(problem, &a)).map(|value| scale.abs() * value);
        let of_b = shrunk.abs().times_transposed(&lost(problem, &b));
        tolerance = tolerance.plus(&of_a.times_transposed(&b.abs())).plus(&of_b);
        if problem.is_precise() {
            let of_both = low_part(problem, &shrunk).times_transposed(&low_part(problem, &b));
            tolerance = tolerance.plus(&of_both);
        }
    }

    let u = DType::F32.roundoff();
    if problem.spec(Operand::Gain).is_some() {
        let gain = operand(Operand::Gain);
        let times = |of: &Dense| {
            Dense::from_fn(of.rows(), of.cols(), |row, col| gain.at(0, col) * of.at(row, col))
        };
        y = times(&y);
        tolerance = times(&tolerance).abs().plus(&y.map(|y| u * y.abs()));
    }
    if problem.spec(Operand::Bias).is_some() {
        let bias = operand(Operand::Bias);
        let rows = Dense::from_fn(y.rows(), y.cols(), |_, col| bias.at(0, col));
        y = y.plus(&rows);
        tolerance = tolerance.plus(&rows.map(|bias| u * bias.abs()));
    }
    if let Some(of) = window {
        [y, tolerance] = [y, tolerance].map(|y| match forward {
            true => convolution::to_stored(&of, y),
            false => convolution::fold(&of, &y),
        });
    }
    (y, tolerance) = add_old(problem, &operand, output, y, tolerance);
    let rounding = y.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal());
    let mut results = vec![(output, Expected { value: y, tolerance: tolerance.plus(&rounding) })];
    if problem.spec(kept).is_some() {
        let tolerance = shrunk_tolerance(problem, sums, &x, &a, &shrunk);
        results.push((kept, Expected { value: shrunk, tolerance }));
    }
    results
}

/// `x` as `[tokens, in_features]`: of a convolution what each output meets of it.
fn input(problem: &Problem, x: Dense) -> Dense {
    match problem.window() {
        Some(of) => convolution::unfold(&of, problem.in_features(), &x),
        None => x,
    }
}

/// `dy` as `[tokens, out_features]`.
fn output_of(problem: &Problem, dy: Dense) -> Dense {
    match problem.window() {
        Some(of) => convolution::from_stored(&of, problem.out_features(), dy),
        None => dy,
    }
}

fn shrink(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    if problem.rank() == 0 {
        return Vec::new();
    }
    let dy = match problem.shrinks_input() {
        // What is shrunk is an x, and the rows of b are its columns.
        true => match problem.window() {
            Some(of) => convolution::unfold(&of, problem.out_features(), &operand(Operand::Dy)),
            None => operand(Operand::Dy),
        },
        false => output_of(problem, operand(Operand::Dy)),
    };
    let b = operand(Operand::B).transposed();
    let scale = f64::from(problem.scale());
    let value = dy.times_transposed(&b).map(|value| scale * value);
    let tolerance = shrunk_tolerance(problem, sums, &dy, &b, &value);
    vec![(Operand::Dshrunk, Expected { value, tolerance })]
}

/// `u_s·|shrunk| + η_s + 2·γ·|s||x||a|ᵀ`.
fn shrunk_tolerance(problem: &Problem, sums: Sums, x: &Dense, a: &Dense, shrunk: &Dense) -> Dense {
    let gamma = sums.gamma(x.cols()) * f64::from(problem.scale()).abs();
    let sum = x.abs().times_transposed(&a.abs()).map(|value| 2.0 * gamma * value);
    let tolerance = shrunk_rounding(problem, shrunk).plus(&sum);
    if !in_two_parts(problem, sums) {
        return tolerance;
    }
    let scale = f64::from(problem.scale()).abs();
    tolerance.plus(&x.abs().times_transposed(&lost(problem, a)).map(|value| scale * value))
}

/// Whether a and b are held in two parts of the activations' storage type.
fn in_two_parts(problem: &Problem, sums: Sums) -> bool {
    sums == Sums::TensorCore && problem.adapter() != problem.activation()
}

/// δ: the most that a high and a low part together lose of each element of a or b.
fn lost(problem: &Problem, of: &Dense) -> Dense {
    let dtype = problem.activation();
    let roundoff = dtype.roundoff() * dtype.roundoff() / 2.0;
    of.map(|value| roundoff * value.abs() + dtype.half_subnormal())
}

/// ρ: the most that a low part holds.
fn low_part(problem: &Problem, of: &Dense) -> Dense {
    let dtype = problem.activation();
    of.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal())
}

/// `u_s·|shrunk| + η_s`.
fn shrunk_rounding(problem: &Problem, shrunk: &Dense) -> Dense {
    let eta = problem.activation().half_subnormal();
    shrunk.map(|value| shrunk_roundoff(problem) * value.abs() + eta)
}

fn gradients(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    let dtype = problem.gradient();
    let gradient = |output: Operand, lhs: Dense, rhs: Dense| {
        // lhsᵀ·rhs, a sum over the tokens.
        let (lhs, rhs) = (lhs.transposed(), rhs.transposed());
        let gamma = sums.gamma(problem.tokens());
        let value = lhs.times_transposed(&rhs);
        let tolerance = lhs.abs().times_transposed(&rhs.abs()).map(|value| 2.0 * gamma * value);
        let (value, tolerance) = add_old(problem, &operand, output, value, tolerance);
        let rounding = value.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal());
        (output, Expected { tolerance: tolerance.plus(&rounding), value })
    };
    let mut results = Vec::new();
    if problem.spec(Operand::Da).is_some() {
        let dshrunk = shrunk_value(problem, &operand(Operand::Dshrunk));
        results.push(gradient(Operand::Da, dshrunk, input(problem, operand(Operand::X))));
    }
    if problem.spec(Operand::Db).is_some() {
        let shrunk = shrunk_value(problem, &operand(Operand::Shrunk));
        let dy = output_of(problem, operand(Operand::Dy));
        results.push(gradient(Operand::Db, dy, shrunk));
    }
    results
}

fn merge(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    let old = operand(Operand::W);
    if let Some(summand) = factors::summand(problem, &operand) {
        let minus = problem.operation() == Operation::Unmerge;
        let value = old.plus(&summand.map(|of| if minus { -of } else { of }));
        let (dtype, u) = (problem.activation(), DType::F32.roundoff());
        let tolerance = old.abs().plus(&summand.abs()).map(|of| 3.0 * u * of);
        let rounding = value.map(|of| dtype.roundoff() * of.abs() + dtype.half_subnormal());
        return vec![(Operand::W, Expected { value, tolerance: tolerance.plus(&rounding) })];
    }
    if problem.rank() == 0 {
        let tolerance = old.map(|_| 0.0);
        return vec![(Operand::W, Expected { value: old, tolerance })];
    }
    let dtype = problem.activation();
    let (a, b) = (operand(Operand::A).transposed(), operand(Operand::B));
    let scale = match problem.operation() {
        Operation::Unmerge => -f64::from(problem.scale()),
        _ => f64::from(problem.scale()),
    };
    let value = old.plus(&b.times_transposed(&a).map(|value| scale * value));
    let gamma = sums.gamma(problem.rank());
    let lost = match in_two_parts(problem, sums) {
        true => {
            let of_a = b.abs().times_transposed(&lost(problem, &a));
            let of_b = lost(problem, &b).times_transposed(&a.abs());
            let of_both = low_part(problem, &b).times_transposed(&low_part(problem, &a));
            of_a.plus(&of_b).plus(&of_both).map(|value| scale.abs() * value)
        }
        false => value.map(|_| 0.0),
    };
    let tolerance = b
        .abs()
        .times_transposed(&a.abs())
        .map(|value| 2.0 * gamma * scale.abs() * value)
        .plus(&lost)
        .plus(&old.map(|value| DType::F32.roundoff() * value.abs()))
        .plus(&value.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal()));
    vec![(Operand::W, Expected { value, tolerance })]
}

/// β·old, where the problem has it.
fn add_old(
    problem: &Problem,
    operand: &impl Fn(Operand) -> Dense,
    output: Operand,
    value: Dense,
    tolerance: Dense,
) -> (Dense, Dense) {
    let updates = problem.spec(output).is_some_and(|spec| spec.access == Access::Update);
    if !updates {
        return (value, tolerance);
    }
    let old = operand(output).map(|old| f64::from(problem.beta()) * old);
    let more = old.map(|old| 2.0 * DType::F32.roundoff() * old.abs());
    (value.plus(&old), tolerance.plus(&more))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// δ of [`expected`], over the last bits of f32 in one binade and over the range of f16: never
    /// exceeded, and reached.
    #[test]
    fn two_parts_lose_half_of_u_squared() {
        for dtype in [DType::Bf16, DType::F16] {
            let problem = Problem::forward(1, 1, 1, 1).with_activation(dtype);
            let mut largest: f64 = 0.0;
            let binade = (0..1 << 23).step_by(5).map(|bits| f32::from_bits(0x4380_0000 | bits));
            let small = (0..1 << 15).map(|bits| f32::from_bits(bits << 15 | 0x5555));
            for value in binade.chain(small.filter(|value| *value < 60_000.0)) {
                let high = dtype.round(value);
                let low = dtype.round(value - high);
                let error = (f64::from(value) - f64::from(high) - f64::from(low)).abs();
                let exact = Dense::new(1, 1, vec![f64::from(value)]);
                let part = error / lost(&problem, &exact).at(0, 0);
                assert!(part <= 1.0, "{dtype}: {value} loses {part} of what it may");
                assert!(f64::from(low).abs() <= low_part(&problem, &exact).at(0, 0), "{value}");
                largest = largest.max(part);
            }
            assert!(largest > 0.98, "{dtype}: at most {largest} of the bound is used");
        }
    }
}
