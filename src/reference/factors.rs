//! The factors of LoHa and LoKr by their definition: ΔW as an element-wise or a Kronecker product of two dense
//! matrices, and its gradient taken back through that; and what `compose` and `chain` put between, element by
//! element.

use super::{Dense, Expected, Sums, add_old, in_two_parts, lost};
use crate::{DType, Kronecker, Method, Operand, Operation, Problem, Taps};

/// `b·a` of the factors, dense and by definition: `(w1a·w1b) ∘ (w2a·w2b)`, or `w1 ⊗ (w2a·w2b)`, or `w1 ⊗ w2`, or
/// `Σ over p, q of up[n,p]·core[p,(q,tap)]·down[q,channel]`. Of a
/// `problem` of [`Operation::Compose`](crate::Operation::Compose), or of a layer that has w1 and a whole w2.
pub fn delta_w(problem: &Problem, operand: impl Fn(Operand) -> Dense) -> Dense {
    if let Method::Tucker(of) = problem.method() {
        let all = tucker(of, &operand);
        return Dense::from_fn(problem.out_features(), problem.in_features(), |n, k| {
            sum(all.pairs(), |at| all.up(n, at) * all.core(at, k) * all.down(at, k))
        });
    }
    let [w1, w2] = halves(problem, &operand);
    match problem.method() {
        Method::Lokr(of) => kronecker(of, &w1, &w2),
        _ => hadamard(&w1, &w2),
    }
}

/// The gradients of the factors, given `g`, that of ΔW `[out_features, in_features]`. Of a `problem` of
/// [`Operation::Compose`](crate::Operation::Compose), or of a layer as [`delta_w`] takes it.
pub fn gradients_of_delta_w(
    problem: &Problem,
    g: &Dense,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Dense)> {
    use Operand::*;
    if let Method::Tucker(of) = problem.method() {
        return gradients_beside_core(of, g, &operand);
    }
    let [w1, w2] = halves(problem, &operand);
    // Of a·b: d·bᵀ and aᵀ·d.
    let of_product = |d: &Dense, [a, b]: [Operand; 2]| {
        let (of_a, of_b) = (operand(a), operand(b));
        [d.times_transposed(&of_b), of_a.transposed().times_transposed(&d.transposed())]
    };
    let (dw1, dw2) = match problem.method() {
        Method::Lokr(of) => {
            let (c, d) = (w2.rows(), w2.cols());
            let column = columns_of(of, d);
            let dw1 = Dense::from_fn(of.rows, of.columns, |i, j| {
                sum(c * d, |at| g.at(i * c + at / d, column(j, at % d)) * w2.at(at / d, at % d))
            });
            let dw2 = Dense::from_fn(c, d, |m, e| {
                sum(of.rows * of.columns, |at| {
                    let (i, j) = (at / of.columns, at % of.columns);
                    g.at(i * c + m, column(j, e)) * w1.at(i, j)
                })
            });
            (dw1, dw2)
        }
        _ => (hadamard(g, &w2), hadamard(g, &w1)),
    };
    let mut all = match is_whole(problem)[0] {
        true => vec![(Dw1, dw1)],
        false => {
            let [dw1a, dw1b] = of_product(&dw1, [W1a, W1b]);
            vec![(Dw1a, dw1a), (Dw1b, dw1b)]
        }
    };
    if is_whole(problem)[1] {
        all.push((Dw2, dw2));
    } else {
        let [dw2a, dw2b] = of_product(&dw2, [W2a, W2b]);
        all.extend([(Dw2a, dw2a), (Dw2b, dw2b)]);
    }
    all
}

/// Whether w1 and w2 are operands themselves.
fn is_whole(problem: &Problem) -> [bool; 2] {
    let of_factors = Operation::FACTORS.contains(&problem.operation());
    match problem.method() {
        Method::Lokr(of) => [!of.low || of.whole && !of_factors, of.whole],
        _ => [false; 2],
    }
}

/// w1 and w2, dense.
fn halves(problem: &Problem, operand: &impl Fn(Operand) -> Dense) -> [Dense; 2] {
    let product = |a, b| operand(a).times_transposed(&operand(b).transposed());
    let of = |whole, name, a, b| if whole { operand(name) } else { product(a, b) };
    let [w1, w2] = is_whole(problem);
    [
        of(w1, Operand::W1, Operand::W1a, Operand::W1b),
        of(w2, Operand::W2, Operand::W2a, Operand::W2b),
    ]
}

/// down, core and up with the sum over pairs (p, q) of ranks that ΔW is.
struct Tucker {
    of: Taps,
    down: Dense,
    core: Dense,
    up: Dense,
}

fn tucker(of: Taps, operand: &impl Fn(Operand) -> Dense) -> Tucker {
    let [down, core, up] = [Operand::Down, Operand::Core, Operand::Up].map(operand);
    Tucker { of, down, core, up }
}

impl Tucker {
    fn pairs(&self) -> usize {
        self.down.rows() * self.down.rows()
    }

    /// p and q of a pair.
    fn ranks(&self, pair: usize) -> [usize; 2] {
        [pair / self.down.rows(), pair % self.down.rows()]
    }

    /// Channel and tap of a column of the weight.
    fn place(&self, column: usize) -> [usize; 2] {
        match self.of.first {
            true => [column % self.down.cols(), column / self.down.cols()],
            false => [column / self.of.count, column % self.of.count],
        }
    }

    fn up(&self, n: usize, pair: usize) -> f64 {
        self.up.at(n, self.ranks(pair)[0])
    }

    fn core(&self, pair: usize, column: usize) -> f64 {
        let [p, q] = self.ranks(pair);
        self.core.at(p, q * self.of.count + self.place(column)[1])
    }

    fn down(&self, pair: usize, column: usize) -> f64 {
        self.down.at(self.ranks(pair)[1], self.place(column)[0])
    }
}

/// Every term of ΔW with respect to each of its three numbers.
fn gradients_beside_core(
    of: Taps,
    g: &Dense,
    operand: &impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Dense)> {
    let all = tucker(of, operand);
    let zeros = |of: &Dense| vec![0.0; of.rows() * of.cols()];
    let (mut ddown, mut dcore, mut dup) = (zeros(&all.down), zeros(&all.core), zeros(&all.up));
    for (n, k) in (0..g.rows()).flat_map(|n| (0..g.cols()).map(move |k| (n, k))) {
        let [channel, tap] = all.place(k);
        for pair in 0..all.pairs() {
            let [p, q] = all.ranks(pair);
            let (up, core, down) = (all.up(n, pair), all.core(pair, k), all.down(pair, k));
            ddown[q * all.down.cols() + channel] += g.at(n, k) * up * core;
            dcore[p * all.core.cols() + q * of.count + tap] += g.at(n, k) * up * down;
            dup[n * all.up.cols() + p] += g.at(n, k) * core * down;
        }
    }
    let like = |of: &Dense, values| Dense::new(of.rows(), of.cols(), values);
    vec![
        (Operand::Ddown, like(&all.down, ddown)),
        (Operand::Dcore, like(&all.core, dcore)),
        (Operand::Dup, like(&all.up, dup)),
    ]
}

fn hadamard(one: &Dense, other: &Dense) -> Dense {
    Dense::from_fn(one.rows(), one.cols(), |row, col| one.at(row, col) * other.at(row, col))
}

fn kronecker(of: Kronecker, w1: &Dense, w2: &Dense) -> Dense {
    let c = w2.rows();
    Dense::from_fn(w1.rows() * c, w1.cols() * w2.cols(), |row, col| {
        let [j, e] = of.columns_of(w2.cols(), col);
        w1.at(row / c, j) * w2.at(row % c, e)
    })
}

/// The column of the weight that column j of w1 and column e of a w2 of `all` have.
fn columns_of(of: Kronecker, all: usize) -> impl Fn(usize, usize) -> usize {
    let d = all / of.taps;
    move |j, e| e / d * (of.columns * d) + j * d + e % d
}

fn sum(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    (0..len).map(term).sum()
}

/// A value and what f32 may lose of it.
struct Formed {
    value: Dense,
    lost: Dense,
}

/// `Σ terms`, each of two numbers and what the second has lost already; one product and one addition each.
fn formed(
    rows: usize,
    cols: usize,
    len: usize,
    sums: Sums,
    term: impl Fn(usize, usize, usize) -> (f64, f64, f64),
) -> Formed {
    let rounding = DType::F32.roundoff() + 2.0 * if len > 1 { sums.gamma(len) } else { 0.0 };
    let of = |row, col, f: &dyn Fn((f64, f64, f64)) -> f64| sum(len, |at| f(term(row, col, at)));
    Formed {
        value: Dense::from_fn(rows, cols, |row, col| of(row, col, &|(x, y, _)| x * y)),
        lost: Dense::from_fn(rows, cols, |row, col| {
            of(row, col, &|(x, y, lost)| x.abs() * (lost + rounding * (y.abs() + lost)))
        }),
    }
}

/// w1 of LoKr with what forming it of two factors may lose.
fn w1(of: Kronecker, problem: &Problem, sums: Sums, operand: &impl Fn(Operand) -> Dense) -> Formed {
    if !of.low {
        let value = operand(Operand::W1);
        return Formed { lost: value.map(|_| 0.0), value };
    }
    let (a, b) = (operand(Operand::W1a), operand(Operand::W1b));
    formed(of.rows, of.columns, problem.rank(), sums, |i, j, q| (a.at(i, q), b.at(q, j), 0.0))
}

/// `tol(a) = 2⁻²⁴·|a|`, b alike; with a core a is a sum, `2·γ(r)·|core||down|` more; where w1 is formed of two factors also what that loses,
/// `2·γ(r)·|w1a||w1b| + 2⁻²⁴·|w1|`, times |w2b|.
pub(super) fn compose(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    use Operand::*;
    if problem.rank() == 0 {
        return Vec::new();
    }
    let (r, k, n, inner) =
        (problem.rank(), problem.in_features(), problem.out_features(), problem.inner_rank());
    let result = |operand: Operand, of: Formed| {
        let eta = DType::F32.half_subnormal();
        (operand, Expected { value: of.value, tolerance: of.lost.map(|lost| lost + eta) })
    };
    if let Some(of) = problem.method().kronecker() {
        return vec![result(W1, w1(of, problem, sums, &operand))];
    }
    if let Method::Tucker(of) = problem.method() {
        let all = tucker(of, &operand);
        let a = formed(r, k, r, sums, |p, column, q| {
            (all.core(p * r + q, column), all.down(p * r + q, column), 0.0)
        });
        let b = formed(n, r, 1, sums, |n, p, _| (1.0, all.up.at(n, p), 0.0));
        return vec![result(A, a), result(B, b)];
    }
    let (w2a, w2b) = (operand(W2a), operand(W2b));
    let [a, b] = match problem.method() {
        Method::Lokr(of) => {
            let (w1, c, d) = (w1(of, problem, sums, &operand), n / of.rows, k / of.columns);
            [
                formed(inner, k, 1, sums, |x, y, _| {
                    let (i, [j, e]) = (x / r, of.columns_of(d, y));
                    (w2b.at(x % r, e), w1.value.at(i, j), w1.lost.at(i, j))
                }),
                formed(n, inner, 1, sums, |x, y, _| {
                    let same = if x / c == y / r { 1.0 } else { 0.0 };
                    (same, w2a.at(x % c, y % r), 0.0)
                }),
            ]
        }
        _ => {
            let (w1a, w1b) = (operand(W1a), operand(W1b));
            [
                formed(inner, k, 1, sums, |x, y, _| (w1b.at(x / r, y), w2b.at(x % r, y), 0.0)),
                formed(n, inner, 1, sums, |x, y, _| (w1a.at(x, y / r), w2a.at(x, y % r), 0.0)),
            ]
        }
    };
    vec![result(A, a), result(B, b)]
}

/// `tol(dw) = u·|dw| + η + 2·γ(terms)·Σ|d||w| + 2⁻²³·|β·old|`, and what forming w1 or dw1 between loses.
pub(super) fn chain(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    use Operand::*;
    let (r, k, n) = (problem.rank(), problem.in_features(), problem.out_features());
    let there = |of: Operand| problem.spec(of).is_some();
    let mut all: Vec<(Operand, Formed)> = Vec::new();
    match problem.method() {
        Method::Tucker(of) => {
            let (t, channels) = (of.count, k / of.count);
            if there(Da) {
                let (da, down, core) = (operand(Da), operand(Down), operand(Core));
                // Element of da by rank, channel and tap.
                let at = |p: usize, i: usize, tap: usize| match of.first {
                    true => da.at(p, tap * channels + i),
                    false => da.at(p, i * t + tap),
                };
                let of_down = formed(r, channels, r * t, sums, |q, i, at_core| {
                    let (p, tap) = (at_core / t, at_core % t);
                    (core.at(p, q * t + tap), at(p, i, tap), 0.0)
                });
                let of_core = formed(r, r * t, channels, sums, |p, column, i| {
                    (down.at(column / t, i), at(p, i, column % t), 0.0)
                });
                all.extend([(Ddown, of_down), (Dcore, of_core)]);
            }
            if there(Db) {
                let db = operand(Db);
                all.push((Dup, formed(n, r, 1, sums, |n, p, _| (1.0, db.at(n, p), 0.0))));
            }
        }
        Method::Lokr(of) if of.whole && there(Dw1) => {
            let (a, b, dw1) = (operand(W1a), operand(W1b), operand(Dw1));
            let of_w1a =
                formed(of.rows, r, of.columns, sums, |i, q, j| (b.at(q, j), dw1.at(i, j), 0.0));
            let of_w1b =
                formed(r, of.columns, of.rows, sums, |q, j, i| (a.at(i, q), dw1.at(i, j), 0.0));
            all.extend([(Dw1a, of_w1a), (Dw1b, of_w1b)]);
        }
        Method::Lokr(of) if of.whole => {}
        Method::Lokr(of) => {
            let (c, d) = (n / of.rows, k / of.columns);
            if there(Da) {
                let (da, w2b) = (operand(Da), operand(W2b));
                let column = columns_of(of, d);
                let w1 = w1(of, problem, sums, &operand);
                let dw1 = formed(of.rows, of.columns, r * d, sums, |i, j, at| {
                    let (p, e) = (at / d, at % d);
                    (w2b.at(p, e), da.at(i * r + p, column(j, e)), 0.0)
                });
                let dw2b = formed(r, d, of.rows * of.columns, sums, |p, e, at| {
                    let (i, j) = (at / of.columns, at % of.columns);
                    (da.at(i * r + p, column(j, e)), w1.value.at(i, j), w1.lost.at(i, j))
                });
                all.push((Dw2b, dw2b));
                if of.low {
                    let (a, b) = (operand(W1a), operand(W1b));
                    all.push((
                        Dw1a,
                        formed(of.rows, r, of.columns, sums, |i, q, j| {
                            (b.at(q, j), dw1.value.at(i, j), dw1.lost.at(i, j))
                        }),
                    ));
                    all.push((
                        Dw1b,
                        formed(r, of.columns, of.rows, sums, |q, j, i| {
                            (a.at(i, q), dw1.value.at(i, j), dw1.lost.at(i, j))
                        }),
                    ));
                } else {
                    all.push((Dw1, dw1));
                }
            }
            if there(Db) {
                let db = operand(Db);
                all.push((
                    Dw2a,
                    formed(c, r, of.rows, sums, |m, p, i| (1.0, db.at(i * c + m, i * r + p), 0.0)),
                ));
            }
        }
        _ => {
            if there(Da) {
                let (da, w1b, w2b) = (operand(Da), operand(W1b), operand(W2b));
                let at = |p: usize, q: usize, k: usize| da.at(p * r + q, k);
                all.push((Dw1b, formed(r, k, r, sums, |p, k, q| (at(p, q, k), w2b.at(q, k), 0.0))));
                all.push((Dw2b, formed(r, k, r, sums, |q, k, p| (at(p, q, k), w1b.at(p, k), 0.0))));
            }
            if there(Db) {
                let (db, w1a, w2a) = (operand(Db), operand(W1a), operand(W2a));
                let at = |n: usize, p: usize, q: usize| db.at(n, p * r + q);
                all.push((Dw1a, formed(n, r, r, sums, |n, p, q| (at(n, p, q), w2a.at(n, q), 0.0))));
                all.push((Dw2a, formed(n, r, r, sums, |n, q, p| (at(n, p, q), w1a.at(n, p), 0.0))));
            }
        }
    }
    let dtype = problem.gradient();
    let result = |(out, Formed { value, lost }): (Operand, Formed)| {
        let (value, tolerance) = add_old(problem, &operand, out, value, lost);
        let rounding = value.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal());
        (out, Expected { tolerance: tolerance.plus(&rounding), value })
    };
    all.into_iter().map(result).collect()
}

/// `|s·w1 ⊗ w2|` and the value itself, where a layer has w1 and a whole w2.
pub(super) fn summand(problem: &Problem, operand: &impl Fn(Operand) -> Dense) -> Option<Dense> {
    problem.method().kronecker()?;
    let scale = f64::from(problem.scale());
    Some(delta_w(problem, operand).map(|of| scale * of))
}

/// `|s·w1 ⊗ δ(w2)|`, where a layer takes w2 in two parts: what they lose of the summand.
pub(super) fn summand_lost(
    problem: &Problem,
    sums: Sums,
    operand: &impl Fn(Operand) -> Dense,
) -> Option<Dense> {
    let method = problem.method().kronecker().filter(|_| in_two_parts(problem, sums))?;
    let (scale, w1) = (f64::from(problem.scale()), operand(Operand::W1).abs());
    let of = kronecker(method, &w1, &lost(problem, &operand(Operand::W2)));
    Some(of.map(|of| scale.abs() * of))
}

/// dw1 and dw2 by the definition of ΔW. `tol(dw) = u·|dw| + η + 2·γ(terms)·|d||w| + 2⁻²³·|β·old|`: of dw1 sums over
/// the rows of w2 and over tokens and its columns, of dw2 over the rows of w1 and over tokens and its columns. Tensor cores
/// take in two parts what w1 has made of dy, v, and a w2 of another type than the activations': dw2 adds `δ(v)ᵀ|x|` and dw1
/// what δ(w2) makes.
pub(super) fn gradients(
    problem: &Problem,
    sums: Sums,
    operand: impl Fn(Operand) -> Dense,
) -> Vec<(Operand, Expected)> {
    use Operand::{Dw1, Dw2, Dy, W1, W2, X};
    let Some(of) = problem.method().kronecker() else { return Vec::new() };
    let scale = f64::from(problem.scale());
    let x = super::input(problem, operand(X)).transposed();
    let dy = super::output_of(problem, operand(Dy)).transposed();
    let (n, k) = (problem.out_features(), problem.in_features());
    let (c, d) = (n / of.rows, k / of.columns);
    let (of_w1, column) = (of, columns_of(of, d));
    // A factor that is not there is that of a gradient nobody wants.
    let wanted = [Dw1, Dw2].map(|of| problem.spec(of).is_some());
    let other = |of: Operand| match (of, problem.spec(of)) {
        (_, Some(_)) => operand(of),
        (W1, None) => Dense::from_fn(of_shape(problem)[0], of_shape(problem)[1], |_, _| 0.0),
        (_, None) => Dense::from_fn(c, d, |_, _| 0.0),
    };
    let through = |g: &Dense, absolute: bool| {
        gradients_of_delta_w(problem, g, |of| {
            let of = other(of);
            if absolute { of.abs() } else { of }
        })
    };
    let value = through(&dy.times_transposed(&x).map(|of| scale * of), false);
    let sizes = dy.abs().times_transposed(&x.abs()).map(|of| scale.abs() * of);
    let dtype = problem.activation();
    let loses = |of: Operand, value: &Dense| -> Dense {
        let none = || value.map(|_| 0.0);
        match of {
            Dw1 if in_two_parts(problem, sums) => {
                let of = gradients_of_delta_w(problem, &sizes, |of| match of {
                    W2 => lost(problem, &other(of)),
                    _ => other(of).abs(),
                });
                of.into_iter().next().map_or_else(none, |(_, of)| of)
            }
            Dw2 if sums == Sums::TensorCore => {
                let roundoff = dtype.roundoff() * dtype.roundoff() / 2.0;
                let all = through(&sizes, true).pop().map_or_else(none, |(_, of)| of);
                Dense::from_fn(all.rows(), all.cols(), |p, e| {
                    let of_x = sum(of_w1.columns * x.cols(), |at| {
                        x.at(column(at / x.cols(), e), at % x.cols()).abs()
                    });
                    roundoff * all.at(p, e) + dtype.half_subnormal() * of_x
                })
            }
            _ => none(),
        }
    };
    let losses = [Dw1, Dw2]
        .map(|of| value.iter().find(|(out, _)| *out == of).map(|(_, value)| loses(of, value)));
    let sizes = through(&sizes, true);
    let terms = |of: Operand| match of {
        // Of images an executor may sum over w2's columns first.
        Dw1 if problem.convolution().is_some() => [c.max(d), problem.tokens() * c.max(d)],
        Dw1 => [c, problem.tokens() * d],
        _ => [of_shape(problem)[0], problem.tokens() * of_shape(problem)[1]],
    };
    let dtype = problem.gradient();
    let result = |((out, value), (_, sizes)): ((Operand, Dense), (Operand, Dense))| {
        let gamma = terms(out).iter().map(|&of| 2.0 * sums.gamma(of)).sum::<f64>();
        let gamma = gamma + 4.0 * DType::F32.roundoff();
        let mut lost = sizes.map(|of| gamma * of);
        if let Some(more) = &losses[usize::from(out == Dw2)] {
            lost = lost.plus(more);
        }
        let (value, tolerance) = add_old(problem, &operand, out, value, lost);
        let rounding = value.map(|value| dtype.roundoff() * value.abs() + dtype.half_subnormal());
        (out, Expected { tolerance: tolerance.plus(&rounding), value })
    };
    let all = value.into_iter().zip(sizes);
    all.filter(|((of, _), _)| wanted[usize::from(*of == Dw2)]).map(result).collect()
}

/// Rows and columns of w1.
fn of_shape(problem: &Problem) -> [usize; 2] {
    problem.method().kronecker().map_or([0; 2], |of| [of.rows, of.columns])
}

#[cfg(test)]
mod tests {
    use super::super::expected;
    use super::*;
    use crate::Operation;

    /// Numbers without a pattern, the same ones for the same name.
    fn drawn(problem: &Problem, operand: Operand) -> Dense {
        let spec = problem.spec(operand).unwrap();
        Dense::from_fn(spec.rows, spec.cols, |row, col| {
            let at = (operand as usize * 7919 + row * 131 + col * 17 + 3) as f64;
            (at * 0.7391).sin()
        })
    }

    fn methods() -> [(Method, [usize; 3]); 10] {
        let lokr = |rows, columns| Method::Lokr(Kronecker::new(rows, columns));
        [
            (Method::Tucker(Taps::new(3)), [12, 5, 2]),
            (Method::Tucker(Taps::new(4).first()), [8, 3, 3]),
            (Method::Loha, [7, 5, 3]),
            (Method::Loha, [4, 6, 1]),
            (lokr(2, 3), [9, 8, 2]),
            (Method::Lokr(Kronecker::low(4, 2)), [6, 12, 3]),
            (lokr(1, 1), [5, 4, 2]),
            (lokr(4, 5), [5, 4, 2]),
            (Method::Lokr(Kronecker::new(2, 3).taps_first(4)), [24, 4, 2]),
            (Method::Lokr(Kronecker::low(3, 2).taps_first(3)), [12, 6, 2]),
        ]
    }

    fn assert_near(one: &Dense, other: &Dense, what: &str) {
        assert_eq!((one.rows(), one.cols()), (other.rows(), other.cols()), "{what}");
        for (one, other) in one.values().iter().zip(other.values()) {
            assert!((one - other).abs() < 1e-12, "{what}: {one} for {other}");
        }
    }

    /// What stands between makes ΔW, and takes its gradient back, as the definition does.
    #[test]
    fn composed_is_the_definition() {
        for (method, [k, n, r]) in methods() {
            let compose = Problem::new(Operation::Compose, 0, k, n, r).with_method(method);
            compose.validate().unwrap();
            let operand = |of| drawn(&compose, of);
            let ab = expected(&compose, Sums::F32, operand);
            let [a, b] = [0, 1].map(|at| &ab[at].1.value);
            let product = b.times_transposed(&a.transposed());
            assert_near(&product, &delta_w(&compose, operand), &format!("{method:?}"));

            // da = bᵀ·g and db = g·aᵀ, of any g.
            let g = Dense::from_fn(n, k, |row, col| ((row * 37 + col * 11) as f64 * 0.917).cos());
            let chain = compose.with_operation(Operation::Chain);
            let through = expected(&chain, Sums::F32, |of| match of {
                Operand::Da => b.transposed().times_transposed(&g.transposed()),
                Operand::Db => g.times_transposed(a),
                other => drawn(&compose, other),
            });
            let by_definition = gradients_of_delta_w(&compose, &g, operand);
            assert_eq!(through.len(), by_definition.len(), "{method:?}");
            for (of, value) in by_definition {
                let found = through.iter().find(|(operand, _)| *operand == of);
                assert_near(&found.unwrap().1.value, &value, &format!("{method:?} {of}"));
            }
        }
    }

    /// Of a whole w2: ΔW is w1 ⊗ w2, a layer adds it to w, and dw1 and dw2 are by differences of a loss of it.
    #[test]
    fn a_whole_w2_is_its_definition() {
        whole_w2(Kronecker::new(2, 3), 9, |k| [k / 3, k % 3]);
        // Two taps of three channels by two.
        let place = |k: usize| [k % 6 / 2, k / 6 * 2 + k % 2];
        whole_w2(Kronecker::new(2, 3).taps_first(2), 12, place);
    }

    /// `place`: the columns of w1 and of w2 that a column of the weight has.
    fn whole_w2(of: Kronecker, columns: usize, place: impl Fn(usize) -> [usize; 2]) {
        let of = of.whole();
        let problem = Problem::new(Operation::BackwardAdapter, 5, columns, 8, 0)
            .with_method(Method::Lokr(of))
            .with_scale(0.5);
        // Of a weight whose columns count taps there is no linear layer; its sums are the same.
        assert_eq!(problem.validate().is_ok(), of.taps == 1);
        let operand = |of| drawn(&problem, of);
        let (w1, w2) = (operand(Operand::W1), operand(Operand::W2));
        let delta = delta_w(&problem, operand);
        for (row, col) in (0..8).flat_map(|row| (0..columns).map(move |col| (row, col))) {
            let [j, e] = place(col);
            assert_eq!(delta.at(row, col), w1.at(row / 4, j) * w2.at(row % 4, e));
        }
        // The loss is Σ dy∘y, so that G is s·dyᵀ·x.
        let (x, dy) = (operand(Operand::X), operand(Operand::Dy));
        let loss = |moved: Operand, at: usize, by: f64| -> f64 {
            let delta = delta_w(&problem, |of| {
                let dense = operand(of);
                Dense::from_fn(dense.rows(), dense.cols(), |row, col| {
                    let here = of == moved && row * dense.cols() + col == at;
                    dense.at(row, col) + if here { by } else { 0.0 }
                })
            });
            let y = x.times_transposed(&delta).map(|of| 0.5 * of);
            y.values().iter().zip(dy.values()).map(|(y, dy)| y * dy).sum()
        };
        let gradients = expected(&problem, Sums::F32, operand);
        assert_eq!(gradients.len(), 2);
        for ((of, gradient), factor) in gradients.iter().zip([Operand::W1, Operand::W2]) {
            for (at, value) in gradient.value.values().iter().enumerate() {
                let difference = (loss(factor, at, 1e-3) - loss(factor, at, -1e-3)) / 2e-3;
                assert!((difference - value).abs() < 1e-8, "{of}: {difference} for {value}");
            }
        }
    }

    /// The gradients of the definition, by differences of it.
    #[test]
    fn gradients_are_those_of_the_definition() {
        for (method, [k, n, r]) in methods() {
            let compose = Problem::new(Operation::Compose, 0, k, n, r).with_method(method);
            let g = Dense::from_fn(n, k, |row, col| ((row * 37 + col * 11) as f64 * 0.917).cos());
            let loss = |operand: &dyn Fn(Operand) -> Dense| -> f64 {
                let w = delta_w(&compose, operand);
                w.values().iter().zip(g.values()).map(|(w, g)| w * g).sum()
            };
            let all = gradients_of_delta_w(&compose, &g, |of| drawn(&compose, of));
            let pairs = [
                (Operand::Dw1, Operand::W1),
                (Operand::Dw1a, Operand::W1a),
                (Operand::Dw1b, Operand::W1b),
                (Operand::Dw2a, Operand::W2a),
                (Operand::Dw2b, Operand::W2b),
                (Operand::Ddown, Operand::Down),
                (Operand::Dcore, Operand::Core),
                (Operand::Dup, Operand::Up),
            ];
            for (of, gradient) in all {
                let factor = pairs.iter().find(|(gradient, _)| *gradient == of).unwrap().1;
                for at in 0..gradient.values().len() {
                    let moved = |by: f64| {
                        loss(&|operand| {
                            let of = drawn(&compose, operand);
                            Dense::from_fn(of.rows(), of.cols(), |row, col| {
                                let here = operand == factor && row * of.cols() + col == at;
                                of.at(row, col) + if here { by } else { 0.0 }
                            })
                        })
                    };
                    let difference = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                    assert!((difference - gradient.values()[at]).abs() < 1e-8, "{method:?} {of}");
                }
            }
        }
    }
}
