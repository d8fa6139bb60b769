//! How far results may lie from exact ones, for `tests/correctness/golden.rs`: this crate's through the whole
//! chain of a training step, and PEFT's own.

use std::collections::BTreeMap;

use fused_lora::reference::{Dense, Expected, Sums, expected};
use fused_lora::{DType, Operand, Operation, Problem};

use super::{Case, RESULTS};

fn abs(of: &Dense) -> Dense {
    of.map(f64::abs)
}

/// `|lhs|·|rhs|ᵀ`.
fn product(lhs: &Dense, rhs: &Dense) -> Dense {
    abs(lhs).times_transposed(&abs(rhs))
}

/// `Σ factor·matrix`.
pub(super) fn sum(terms: &[(f64, &Dense)]) -> Dense {
    let of = terms[0].1;
    assert!(terms.iter().all(|(_, term)| (term.rows(), term.cols()) == (of.rows(), of.cols())));
    Dense::from_fn(of.rows(), of.cols(), |row, col| {
        terms.iter().map(|(factor, term)| factor * term.at(row, col)).sum()
    })
}

/// Value and tolerance of every result of the chain x, dy → y, dx → da, db against exact
/// arithmetic. For each operation alone these are `reference::expected`'s; but here `shrunk` and
/// `dshrunk` are our own, and the files' scale is not ours. With δ the relative difference of the
/// scales and T the tolerance of `expected`, a stored `shrunk` lies within
///
/// ```text
/// E_s = T(shrunk) + δ·|shrunk|                T(shrunk) = u_s·|shrunk| + η_s + 2·γ(K)·|s||x||a|ᵀ
/// ```
///
/// of the exact one. As `db` is formed from the stored one, in f32 and rounded once, to first order
/// `|dy|ᵀ·E_s` comes on top of T(db), and the two factors by which a larger `|shrunk|` moves the
/// other terms make that
///
/// ```text
/// tol(y)  = T(y) + δ·|shrunk||b|ᵀ             tol(dx) = T(dx) + δ·|dshrunk||a|
/// tol(db) = T(db) + (1 + u_g + 2·γ(M))·|dy|ᵀ·E_s
/// tol(da) = T(da) + (1 + u_g + 2·γ(M))·E_dsᵀ·|x|
/// ```
pub(super) fn ours(case: &Case, problem: &Problem, sums: Sums) -> BTreeMap<Operand, Expected> {
    let delta = case.scale_error();
    let of = |operation| problem.with_operation(operation);
    let mut all: BTreeMap<_, _> = [Operation::Forward, Operation::BackwardInput]
        .into_iter()
        .flat_map(|operation| expected(&of(operation), sums, |operand| case.operand(operand)))
        .collect();
    // As stored: high part, pad, and with `precise` a low part that exact values do not need.
    let exact = |operand| {
        let value: &Dense = &all[&operand].value;
        Dense::from_fn(value.rows(), problem.shrunk_stride(), |row, col| {
            if col < value.cols() { value.at(row, col) } else { 0.0 }
        })
    };
    all.extend(expected(&of(Operation::BackwardAdapter), sums, |operand| match operand {
        Operand::Shrunk | Operand::Dshrunk => exact(operand),
        other => case.operand(other),
    }));
    let [x, dy, a, b] =
        [Operand::X, Operand::Dy, Operand::A, Operand::B].map(|of| case.operand(of));
    let more = 1.0 + problem.gradient().roundoff() + 2.0 * sums.gamma(problem.tokens());
    let mut widen = |operand: Operand, factor: f64, term: &Dense| {
        let tolerance = &mut all.get_mut(&operand).unwrap().tolerance;
        *tolerance = sum(&[(1.0, tolerance), (factor, term)]);
        tolerance.clone()
    };
    let [shrunk, dshrunk] = [h(case, &x, &a), h(case, &dy, &b.transposed())];
    let error = widen(Operand::Shrunk, delta, &abs(&shrunk));
    widen(Operand::Y, delta, &product(&shrunk, &b));
    widen(Operand::Db, more, &product(&dy.transposed(), &error.transposed()));
    let error = widen(Operand::Dshrunk, delta, &abs(&dshrunk));
    widen(Operand::Dx, delta, &product(&dshrunk, &a.transposed()));
    widen(Operand::Da, more, &product(&error.transposed(), &x.transposed()));
    all
}

/// `s·x·aᵀ` with the file's own scale.
fn h(case: &Case, x: &Dense, a: &Dense) -> Dense {
    x.times_transposed(a).map(|value| case.scale * value)
}

/// How far PEFT's own results may lie from exact ones. It computes
///
/// ```text
/// y  = x·wᵀ + bias  →  + s·((x·aᵀ)·bᵀ)      dx = dy·w + ((s·dy)·b)·a
/// db = (s·dy)ᵀ·(x·aᵀ)                       da = ((s·dy)·b)ᵀ·x
/// ```
///
/// and rounds after every product, sum and scaling: what belongs to the frozen layer, and the sums
/// y and dx, to the activations' type (u), what belongs to the adapter to the adapter's (v). So y
/// is rounded twice or three times where ours is once, and the adapter's term up to three times
/// before that:
///
/// ```text
/// tol(y)  = S + u·(|x·wᵀ| + |x·wᵀ + bias| + |y|) + v·(|shrunk||b|ᵀ + 2·|shrunk·bᵀ|)
/// tol(dx) = S + u·(|dy·w| + |dshrunk·a| + |dx|) + v·(|s||dy||b||a| + |dshrunk||a| + |dshrunk·a|)
/// tol(db) = S + v·(2·|dy|ᵀ|shrunk| + |db|)
/// tol(da) = S + v·((|s||dy||b| + |dshrunk|)ᵀ|x| + |da|)
/// ```
///
/// where S is the tolerance of the same chain in f32 throughout, for the sums. The whole is
/// widened by 1 + 4·(u + v), for roundings of roundings, and by η for each rounding of a result.
pub(super) fn theirs(case: &Case) -> BTreeMap<Operand, Dense> {
    let [u, v] = [case.problem.activation(), case.problem.adapter()].map(DType::roundoff);
    let eta = case.problem.activation().half_subnormal() + case.problem.adapter().half_subnormal();
    let [x, w, dy, a, b] = [Operand::X, Operand::W, Operand::Dy, Operand::A, Operand::B]
        .map(|operand| case.operand(operand));
    let [wt, at, bt] = [&w, &a, &b].map(Dense::transposed);
    let [y, dx, da, db] = RESULTS.map(|(_, name)| abs(&case.tensors[&format!("{name}_f64")]));
    let (shrunk, dshrunk) = (h(case, &x, &a), h(case, &dy, &bt));
    let wide = x.times_transposed(&w);
    let base = match case.tensors.get("bias") {
        Some(bias) => {
            Dense::from_fn(wide.rows(), wide.cols(), |row, col| wide.at(row, col) + bias.at(0, col))
        }
        None => wide.clone(),
    };
    let (up, dup) = (abs(&shrunk.times_transposed(&b)), abs(&dshrunk.times_transposed(&at)));
    let dh = product(&dy, &bt).map(|value| case.scale.abs() * value);
    let sums = ours(case, &case.problem.with_dtype(DType::F32), Sums::F32);
    let tolerance = |operand: Operand, terms: &[(f64, &Dense)]| {
        let terms = sum(terms).map(|value| value * (1.0 + 4.0 * (u + v)) + 4.0 * eta);
        (operand, sum(&[(1.0, &terms), (1.0, &sums[&operand].tolerance)]))
    };
    let (t, dt) = (shrunk.transposed(), dshrunk.transposed());
    BTreeMap::from([
        tolerance(
            Operand::Y,
            &[
                (u, &abs(&wide)),
                (u, &abs(&base)),
                (u, &y),
                (v, &product(&shrunk, &b)),
                (2.0 * v, &up),
            ],
        ),
        tolerance(
            Operand::Dx,
            &[
                (u, &abs(&dy.times_transposed(&wt))),
                (u, &dup),
                (u, &dx),
                (v, &product(&dh, &at)),
                (v, &product(&dshrunk, &at)),
                (v, &dup),
            ],
        ),
        tolerance(Operand::Db, &[(2.0 * v, &product(&dy.transposed(), &t)), (v, &db)]),
        tolerance(
            Operand::Da,
            &[
                (v, &product(&dh.transposed(), &x.transposed())),
                (v, &product(&dt, &x.transposed())),
                (v, &da),
            ],
        ),
    ])
}

/// The part of a result that the scale multiplies, in absolute values.
pub(super) fn scaled(case: &Case, operand: Operand) -> Dense {
    let [x, dy, a, b] =
        [Operand::X, Operand::Dy, Operand::A, Operand::B].map(|of| case.operand(of));
    let (shrunk, dshrunk) = (h(case, &x, &a), h(case, &dy, &b.transposed()));
    match operand {
        Operand::Y => product(&shrunk, &b),
        Operand::Dx => product(&dshrunk, &a.transposed()),
        Operand::Da => product(&dshrunk.transposed(), &x.transposed()),
        _ => product(&dy.transposed(), &shrunk.transposed()),
    }
}
