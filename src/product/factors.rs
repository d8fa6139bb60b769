//! The operations on an adapter's factors as sums over strided matrices: `compose`, which makes `a` and `b` of
//! them, and `chain`, which takes `da` and `db` back to them. The only code that knows the methods apart.
//!
//! With x = (x1, x2) and y = (y1, y2, y3), each counting in whole lengths of those behind it:
//!
//! ```text
//! out[x, y] = Σ over s, t of left·right          row and column of left and right are sums of the seven indices
//! ```
//!
//! y1 counts the taps that columns of LoKr count first; what sums over them and two more indices does so in two steps.

use super::terms::{Multiplier, Old, Store};
use crate::problem::Specs;
use crate::{Access, DType, Kronecker, Major, Method, Operand, Operation, Problem, Spec, Taps};

/// x1, x2, y1, y2, y3, s, t.
pub(crate) const INDICES: usize = 7;
const X1: usize = 0;
const X2: usize = 1;
const Y1: usize = 2;
const Y2: usize = 3;
const Y3: usize = 4;
const S: usize = 5;
const T: usize = 6;

/// What is done with an adapter's factors: sums, each of which may read what those before it have written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factors {
    pub(crate) sums: Vec<Contraction>,
}

/// A matrix: an operand, or f32 in the plan's own memory, which is w1 of two factors, or its gradient, tap by tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Operand(Operand),
    W1,
    Dw1,
}

/// A matrix that is read, with what each index adds to its row and to its column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Indexed {
    pub(crate) place: Place,
    pub(crate) spec: Spec,
    rows: [usize; INDICES],
    cols: [usize; INDICES],
}

impl Indexed {
    /// Elements from one to the next along each index, where stored rows are `stride` apart.
    pub(crate) fn strides(&self, stride: usize) -> [usize; INDICES] {
        let (row, col) = match self.spec.major {
            Major::Row => (stride, 1),
            Major::Col => (1, stride),
        };
        core::array::from_fn(|at| self.rows[at] * row + self.cols[at] * col)
    }
}

/// Where the sums go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) spec: Spec,
    pub(crate) old: Old,
}

impl Target {
    /// As kernels store it.
    pub(crate) fn store(&self) -> Option<Store> {
        let Place::Operand(operand) = self.place else { return None };
        Some(Store { operand, spec: self.spec, major: self.spec.major, planes: None })
    }
}

/// One of the sums.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contraction {
    pub(crate) out: Target,
    /// How many values each index takes; `out` is `[x1·x2, y1·y2·y3]`.
    pub(crate) sizes: [usize; INDICES],
    /// `None` stands for 1.
    pub(crate) left: Option<Indexed>,
    pub(crate) right: Option<Indexed>,
    /// The result is 0 where x1 is not y2.
    pub(crate) diagonal: bool,
    /// What all sums are multiplied with.
    pub(crate) factor: Multiplier,
}

impl Contraction {
    /// `w ± s·w1 ⊗ w2`.
    pub(super) fn merge(problem: &Problem, specs: &Specs) -> Option<Contraction> {
        let (of, names) = (problem.method().kronecker()?, Names { specs, problem });
        let w = specs[Operand::W as usize]?;
        let out = Target { place: Place::Operand(Operand::W), spec: w, old: Old::Added };
        let factor = match problem.operation() {
            Operation::Unmerge => Multiplier::MinusScale,
            _ => Multiplier::Scale,
        };
        // w[(i,p),(t,j,e)] += w1[i,j]·w2[p,(t,e)].
        let (c, d) = (w.rows / of.rows, w.cols / of.columns / of.taps);
        let product = sum(
            Some(out),
            [of.rows, c, of.taps, of.columns, d, 1, 1],
            names.read(Operand::W1, &[(X1, ROW), (Y2, COL)]),
            names.read(Operand::W2, &[(X2, ROW), (Y1, [0, d]), (Y3, COL)]),
        )?;
        Some(Contraction { factor, ..product })
    }

    /// `out = factor·Σ` of so many matrices of its shape, one below the other in the plan's memory.
    pub(super) fn of_parts(
        [rows, columns]: [usize; 2],
        parts: usize,
        (out, old, factor): (Store, Old, Multiplier),
    ) -> Contraction {
        let all = own(Kronecker::new(rows.saturating_mul(parts), columns));
        // None at all leave old values.
        let left =
            (parts > 0).then(|| indexed(Place::Dw1, all, &[(T, [rows, 0]), (X2, ROW), (Y3, COL)]));
        let out = Target { place: Place::Operand(out.operand), spec: out.spec, old };
        let sizes = [1, rows, 1, 1, columns, 1, parts];
        Contraction { out, sizes, left, right: None, diagonal: false, factor }
    }

    /// Multiply-adds.
    pub(crate) fn work(&self) -> u64 {
        let all = self.sizes.iter().map(|&size| size as u64);
        all.fold(1u64, u64::saturating_mul)
    }

    pub(crate) fn reads(&self) -> impl Iterator<Item = &Indexed> {
        [&self.left, &self.right].into_iter().flatten()
    }
}

/// An index and what it adds: to the row, to the column.
type Step = (usize, [usize; 2]);

/// The matrices of one problem by their names.
struct Names<'a> {
    specs: &'a Specs,
    problem: &'a Problem,
}

impl Names<'_> {
    fn read(&self, operand: Operand, steps: &[Step]) -> Option<Indexed> {
        Some(indexed(Place::Operand(operand), self.specs[operand as usize]?, steps))
    }

    fn out(&self, operand: Operand) -> Option<Target> {
        let spec = self.specs[operand as usize]?;
        let old = match spec.access {
            Access::Update => Old::new(self.problem.beta()),
            _ => Old::Replaced,
        };
        Some(Target { place: Place::Operand(operand), spec, old })
    }
}

fn indexed(place: Place, spec: Spec, steps: &[Step]) -> Indexed {
    let mut of = Indexed { place, spec, rows: [0; INDICES], cols: [0; INDICES] };
    for &(index, [row, col]) in steps {
        (of.rows[index], of.cols[index]) = (row, col);
    }
    of
}

/// `[rows, columns]` in the plan's memory.
fn own(of: Kronecker) -> Spec {
    let (rows, cols) = (of.rows, of.columns);
    let (dtype, major, access) = (DType::F32, Major::Row, Access::Update);
    Spec { rows, cols, dtype, major, stride: cols, align: 0, access }
}

/// w1 there.
fn own_w1(of: Kronecker) -> Target {
    Target { place: Place::W1, spec: own(of), old: Old::Replaced }
}

const ROW: [usize; 2] = [1, 0];
const COL: [usize; 2] = [0, 1];

impl Factors {
    /// What the sums are multiplied with, all of them.
    pub(crate) fn factor(&self) -> Multiplier {
        self.sums.first().map_or(Multiplier::One, |sum| sum.factor)
    }

    /// What `problem`, an operation on factors, is.
    pub(super) fn new(problem: &Problem, specs: &Specs) -> Factors {
        let names = Names { specs, problem };
        let composes = problem.operation() == Operation::Compose;
        let sums = match problem.method() {
            Method::Lora => Vec::new(),
            Method::Tucker(of) if composes => names.compose_tucker(of),
            Method::Tucker(of) => names.chain_tucker(of),
            Method::Loha if composes => names.compose_loha(),
            Method::Loha => names.chain_loha(),
            Method::Lokr(of) if of.whole && composes => {
                names.form_w1(of, names.out(Operand::W1)).into_iter().collect()
            }
            Method::Lokr(of) if of.whole => {
                let dw1 = |steps: &[Step]| names.read(Operand::Dw1, steps);
                names.chain_w1(of, 1, dw1).into_iter().flatten().collect()
            }
            Method::Lokr(of) if composes => names.compose_lokr(of),
            Method::Lokr(of) => names.chain_lokr(of),
        };
        Factors { sums }
    }
}

/// Sizes in the order of the indices.
fn sum(
    out: Option<Target>,
    sizes: [usize; INDICES],
    left: Option<Indexed>,
    right: Option<Indexed>,
) -> Option<Contraction> {
    let (diagonal, factor) = (false, Multiplier::One);
    Some(Contraction { out: out?, sizes, left, right, diagonal, factor })
}

impl Names<'_> {
    fn compose_loha(&self) -> Vec<Contraction> {
        use Operand::*;
        let (r, k, n) =
            (self.problem.rank(), self.problem.in_features(), self.problem.out_features());
        // a[(p,q),k] = w1b[p,k]·w2b[q,k]: x is (p,q), y is k.
        let of_a = sum(
            self.out(A),
            [r, r, 1, 1, k, 1, 1],
            self.read(W1b, &[(X1, ROW), (Y3, COL)]),
            self.read(W2b, &[(X2, ROW), (Y3, COL)]),
        );
        // b[n,(p,q)] = w1a[n,p]·w2a[n,q].
        let of_b = sum(
            self.out(B),
            [1, n, 1, r, r, 1, 1],
            self.read(W1a, &[(X2, ROW), (Y2, COL)]),
            self.read(W2a, &[(X2, ROW), (Y3, COL)]),
        );
        [of_a, of_b].into_iter().flatten().collect()
    }

    fn chain_loha(&self) -> Vec<Contraction> {
        use Operand::*;
        let (r, k, n) =
            (self.problem.rank(), self.problem.in_features(), self.problem.out_features());
        // dw1b[p,k] = Σ_q da[(p,q),k]·w2b[q,k], dw2b[q,k] = Σ_p da[(p,q),k]·w1b[p,k].
        let of_a = |out, other, kept, summed| {
            sum(
                self.out(out),
                [1, r, 1, 1, k, 1, r],
                self.read(Da, &[(X2, [kept, 0]), (T, [summed, 0]), (Y3, COL)]),
                self.read(other, &[(T, ROW), (Y3, COL)]),
            )
        };
        // dw1a[n,p] = Σ_q db[n,(p,q)]·w2a[n,q], dw2a[n,q] = Σ_p db[n,(p,q)]·w1a[n,p].
        let of_b = |out, other, kept, summed| {
            sum(
                self.out(out),
                [1, n, 1, 1, r, 1, r],
                self.read(Db, &[(X2, ROW), (Y3, [0, kept]), (T, [0, summed])]),
                self.read(other, &[(X2, ROW), (T, COL)]),
            )
        };
        let all = [
            of_a(Dw1b, W2b, r, 1),
            of_a(Dw2b, W1b, 1, r),
            of_b(Dw1a, W2a, r, 1),
            of_b(Dw2a, W1a, 1, r),
        ];
        all.into_iter().flatten().collect()
    }

    /// What columns of a weight count, the outer index first: its size, and that of the inner one. The indices of a channel and
    /// of a tap among them.
    fn columns(&self, of: Taps) -> ([usize; 2], usize, usize) {
        let channels = self.problem.in_features() / of.count;
        match of.first {
            true => ([of.count, channels], Y3, Y2),
            false => ([channels, of.count], Y2, Y3),
        }
    }

    fn compose_tucker(&self, of: Taps) -> Vec<Contraction> {
        use Operand::*;
        let (r, n) = (self.problem.rank(), self.problem.out_features());
        let ([outer, inner], channel, tap) = self.columns(of);
        // a[p,(i,t)] = Σ_q core[p,(q,t)]·down[q,i].
        let of_a = sum(
            self.out(A),
            [1, r, 1, outer, inner, 1, r],
            self.read(Core, &[(X2, ROW), (T, [0, of.count]), (tap, COL)]),
            self.read(Down, &[(T, ROW), (channel, COL)]),
        );
        // b = up.
        let of_b =
            sum(self.out(B), [1, n, 1, 1, r, 1, 1], self.read(Up, &[(X2, ROW), (Y3, COL)]), None);
        [of_a, of_b].into_iter().flatten().collect()
    }

    fn chain_tucker(&self, of: Taps) -> Vec<Contraction> {
        use Operand::*;
        let (r, n) = (self.problem.rank(), self.problem.out_features());
        let channels = self.problem.in_features() / of.count;
        // What a channel and a tap add to a column of da.
        let (channel, tap) = if of.first { (1, channels) } else { (of.count, 1) };
        // dcore[p,(q,t)] = Σ_i da[p,(i,t)]·down[q,i].
        let of_core = sum(
            self.out(Dcore),
            [1, r, 1, r, of.count, 1, channels],
            self.read(Da, &[(X2, ROW), (Y3, [0, tap]), (T, [0, channel])]),
            self.read(Down, &[(Y2, ROW), (T, COL)]),
        );
        // ddown[q,i] = Σ_{p,t} da[p,(i,t)]·core[p,(q,t)].
        let of_down = sum(
            self.out(Ddown),
            [1, r, 1, 1, channels, r, of.count],
            self.read(Da, &[(S, ROW), (Y3, [0, channel]), (T, [0, tap])]),
            self.read(Core, &[(S, ROW), (X2, [0, of.count]), (T, COL)]),
        );
        let of_up =
            sum(self.out(Dup), [1, n, 1, 1, r, 1, 1], self.read(Db, &[(X2, ROW), (Y3, COL)]), None);
        [of_core, of_down, of_up].into_iter().flatten().collect()
    }

    /// w1, as it is stored or formed before.
    fn w1(&self, of: Kronecker, steps: &[Step]) -> Option<Indexed> {
        match of.low {
            true => Some(indexed(Place::W1, own(of), steps)),
            false => self.read(Operand::W1, steps),
        }
    }

    /// w1 = w1a·w1b, where it is stored so.
    fn form_w1(&self, of: Kronecker, out: Option<Target>) -> Option<Contraction> {
        sum(
            out.filter(|_| of.low),
            [1, of.rows, 1, 1, of.columns, 1, self.problem.rank()],
            Some(self.read(Operand::W1a, &[(X2, ROW), (T, COL)])?),
            Some(self.read(Operand::W1b, &[(T, ROW), (Y3, COL)])?),
        )
    }

    fn compose_lokr(&self, of: Kronecker) -> Vec<Contraction> {
        use Operand::*;
        let (r, k, n) =
            (self.problem.rank(), self.problem.in_features(), self.problem.out_features());
        let (c, d) = (n / of.rows, k / of.columns / of.taps);
        // a[(i,p),(t,j,e)] = w1[i,j]·w2b[p,(t,e)].
        let of_a = sum(
            self.out(A),
            [of.rows, r, of.taps, of.columns, d, 1, 1],
            self.w1(of, &[(X1, ROW), (Y2, COL)]),
            self.read(W2b, &[(X2, ROW), (Y1, [0, d]), (Y3, COL)]),
        );
        // b[(i,m),(i',p)] = w2a[m,p] where i = i'.
        let of_b = sum(
            self.out(B),
            [of.rows, c, 1, of.rows, r, 1, 1],
            None,
            self.read(W2a, &[(X2, ROW), (Y3, COL)]),
        );
        let of_b = of_b.map(|of_b| Contraction { diagonal: true, ..of_b });
        [self.form_w1(of, Some(own_w1(of))), of_a, of_b].into_iter().flatten().collect()
    }

    fn chain_lokr(&self, of: Kronecker) -> Vec<Contraction> {
        use Operand::*;
        let (r, k, n) =
            (self.problem.rank(), self.problem.in_features(), self.problem.out_features());
        let (rows, columns, taps) = (of.rows, of.columns, of.taps);
        let (c, d) = (n / rows, k / columns / taps);
        // What a tap and a column of w1 add to a column of da.
        let (tap, column) = ([0, columns * d], [0, d]);
        // dw1[i,j] = Σ_t Σ_{p,e} da[(i,p),(t,j,e)]·w2b[p,(t,e)]: the outer sum is what follows.
        let by_tap = own(Kronecker::new(rows.saturating_mul(taps), columns));
        let by_tap = Target { place: Place::Dw1, spec: by_tap, old: Old::Replaced };
        let dw1 = self.out(if of.low { Dw1a } else { Dw1 });
        let is_last = !of.low && taps == 1;
        let of_w1 = sum(
            dw1.map(|dw1| if is_last { dw1 } else { by_tap }),
            [taps, rows, 1, 1, columns, r, d],
            self.read(Da, &[(X1, tap), (X2, [r, 0]), (S, ROW), (Y3, column), (T, COL)]),
            self.read(W2b, &[(X1, column), (S, ROW), (T, COL)]),
        );
        let of_taps = dw1.filter(|_| !of.low && !is_last).and_then(|out| {
            let to = (out.store()?, out.old, Multiplier::One);
            Some(Contraction::of_parts([rows, columns], taps, to))
        });
        // dw2b[p,(t,e)] = Σ_{i,j} da[(i,p),(t,j,e)]·w1[i,j].
        let of_w2b = sum(
            self.out(Dw2b),
            [1, r, taps, 1, d, rows, columns],
            self.read(Da, &[(S, [r, 0]), (X2, ROW), (Y1, tap), (T, column), (Y3, COL)]),
            self.w1(of, &[(S, ROW), (T, COL)]),
        );
        // dw2a[m,p] = Σ_i db[(i,m),(i,p)].
        let of_w2a = sum(
            self.out(Dw2a),
            [1, c, 1, 1, r, 1, rows],
            self.read(Db, &[(X2, ROW), (Y3, COL), (T, [c, r])]),
            None,
        );
        let dw1 = |steps: &[Step]| Some(indexed(Place::Dw1, by_tap.spec, steps));
        let [of_w1a, of_w1b] = self.chain_w1(of, taps, dw1);
        let w1 = of_w2b.as_ref().and_then(|_| self.form_w1(of, Some(own_w1(of))));
        let all = [w1, of_w1, of_w2b, of_w2a, of_taps, of_w1a, of_w1b];
        all.into_iter().flatten().collect()
    }

    /// w1 = w1a·w1b: dw1a = dw1·w1bᵀ, dw1b = w1aᵀ·dw1, where dw1 is the sum of so many parts, one below the other.
    fn chain_w1(
        &self,
        of: Kronecker,
        parts: usize,
        dw1: impl Fn(&[Step]) -> Option<Indexed>,
    ) -> [Option<Contraction>; 2] {
        use Operand::*;
        let (rows, columns, r) = (of.rows, of.columns, self.problem.rank());
        let part = [rows, 0];
        let of_w1a = sum(
            self.out(Dw1a),
            [1, rows, 1, 1, r, parts, columns],
            dw1(&[(S, part), (X2, ROW), (T, COL)]),
            self.read(W1b, &[(Y3, ROW), (T, COL)]),
        );
        let of_w1b = sum(
            self.out(Dw1b),
            [1, r, 1, 1, columns, parts, rows],
            dw1(&[(S, part), (T, ROW), (Y3, COL)]),
            self.read(W1a, &[(X2, COL), (T, ROW)]),
        );
        [of_w1a, of_w1b]
    }
}
