//! The norms of w's rows with their adapter, and the gradient of a magnitude, by their definitions.

use super::{Dense, Expected, Sums, add_old, in_two_parts, lost, low_part};
use crate::{DType, Operand, Operation, Problem};

/// What square root and division of an executor may be off by: a few units of f32, as WGSL has them.
const QUOTIENT: f64 = 16.0;

/// `gain = magnitude / ‖w + s·b·a‖`. With e what an element of the sum may lose, as a merge in f32 does, and v the
/// element, ν² may be off by `D = Σ (2·|v|·e + e²) + γ(K)·Σ (|v| + e)²`, and so the gain by `|gain|·D/ν²`, twice what
/// follows from its derivative.
pub(super) fn norm(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    let (w, magnitude) = (operand(Operand::W), operand(Operand::Magnitude));
    let u = DType::F32.roundoff();
    let mut sum = w.clone();
    let mut loss = w.map(|of| 2.0 * u * of.abs());
    if let Some(of) = super::factors::summand(problem, &operand) {
        sum = w.plus(&of);
        loss = w.abs().plus(&of.abs()).map(|of| 3.0 * u * of);
    }
    if problem.rank() > 0 {
        let (a, b) = (operand(Operand::A).transposed(), operand(Operand::B));
        let (scale, gamma) = (f64::from(problem.scale()), sums.gamma(problem.rank()));
        sum = w.plus(&b.times_transposed(&a).map(|of| scale * of));
        let product = b.abs().times_transposed(&a.abs());
        loss = loss.plus(&product.map(|of| (2.0 * gamma + 2.0 * u) * scale.abs() * of));
        if in_two_parts(problem, sums) {
            let of_a = b.abs().times_transposed(&lost(problem, &a));
            let of_b = lost(problem, &b).times_transposed(&a.abs());
            let of_both = low_part(problem, &b).times_transposed(&low_part(problem, &a));
            loss = loss.plus(&of_a.plus(&of_b).plus(&of_both).map(|of| scale.abs() * of));
        }
    }
    let gamma = Sums::F32AnyData.gamma(problem.in_features());
    let of_row = |row: usize| {
        let mut squares = [0.0; 2];
        for col in 0..sum.cols() {
            let (v, e) = (sum.at(row, col).abs(), loss.at(row, col));
            squares[0] += v * v;
            squares[1] += 2.0 * v * e + e * e + gamma * (v + e) * (v + e);
        }
        squares
    };
    let rows: Vec<[f64; 2]> = (0..sum.rows()).map(of_row).collect();
    let value = Dense::from_fn(1, rows.len(), |_, row| magnitude.at(0, row) / rows[row][0].sqrt());
    let tolerance = Dense::from_fn(1, rows.len(), |_, row| {
        let [square, off] = rows[row];
        value.at(0, row).abs() * (off / square + QUOTIENT * u)
    });
    vec![(Operand::Gain, Expected { value, tolerance })]
}

/// `scaled_dy = gain∘dy` and `dmagnitude = β·old + Σ dy∘(y − bias) / magnitude`.
pub(super) fn gradient(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    debug_assert_eq!(problem.operation(), Operation::BackwardGain);
    let [dy, y] = [Operand::Dy, Operand::Y].map(|of| super::output_of(problem, operand(of)));
    let (gain, magnitude) = (operand(Operand::Gain), operand(Operand::Magnitude));
    let u = DType::F32.roundoff();
    let bias = match problem.spec(Operand::Bias) {
        Some(_) => operand(Operand::Bias),
        None => gain.map(|_| 0.0),
    };
    let scaled = Dense::from_fn(dy.rows(), dy.cols(), |row, col| gain.at(0, col) * dy.at(row, col));
    let dtype = problem.activation();
    let tolerance = scaled.map(|of| (dtype.roundoff() + u) * of.abs() + dtype.half_subnormal());
    let [value, tolerance] = [scaled, tolerance].map(|of| match problem.window() {
        Some(images) => super::convolution::to_stored(&images, of),
        None => of,
    });
    let scaled = Expected { value, tolerance };

    // No tensor core has a part in it.
    let gamma = match sums {
        Sums::F32 => Sums::F32,
        _ => Sums::F32AnyData,
    };
    let gamma = 2.0 * gamma.gamma(problem.tokens()) + 2.0 * u;
    let over_tokens = |of: &dyn Fn(usize, usize) -> f64| {
        Dense::from_fn(1, dy.cols(), |_, col| {
            (0..dy.rows()).map(|row| of(row, col)).sum::<f64>() / magnitude.at(0, col)
        })
    };
    let value = over_tokens(&|row, col| dy.at(row, col) * (y.at(row, col) - bias.at(0, col)));
    let absolute = over_tokens(&|row, col| {
        dy.at(row, col).abs() * (y.at(row, col).abs() + bias.at(0, col).abs())
    });
    let tolerance = absolute.map(|of| gamma * of.abs());
    let tolerance = tolerance.plus(&value.map(|of| QUOTIENT * u * of.abs()));
    let (value, tolerance) = add_old(problem, &operand, Operand::Dmagnitude, value, tolerance);
    let dtype = problem.gradient();
    let rounding = value.map(|of| dtype.roundoff() * of.abs() + dtype.half_subnormal());
    let dmagnitude = Expected { tolerance: tolerance.plus(&rounding), value };
    vec![(Operand::ScaledDy, scaled), (Operand::Dmagnitude, dmagnitude)]
}
