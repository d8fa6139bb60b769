//! Problems by system instead of by chance (pairwise testing): of each kind so few rows of options that
//! every two of them meet in one (a covering array of strength two), and each row in three sizes. For
//! executors that compile a text for every combination of options and none for another size.

use std::collections::BTreeSet;

use fused_lora::{Access, DType, Gradients, Layout, Major, Operand, Operation, Problem};
use rand::prelude::*;
use rand::rngs::StdRng;

/// Sizes of each row. They differ in what tiles leave over, and share their texts.
pub const SIZES: usize = 3;

/// Tokens: one, no more than half a tile of a thread, than one, and many tiles.
const TOKENS: [[usize; SIZES]; 4] = [[1, 1, 1], [2, 3, 4], [5, 7, 8], [17, 70, 130]];
/// Where tokens are what is summed over, enough for several slabs.
const SUMMED: [usize; SIZES] = [16, 150, 600];
/// Features: less than a vector, and ragged; then multiples of four for vectors, few and many.
const FEATURES: [[usize; SIZES]; 4] = [[1, 3, 7], [33, 65, 131], [8, 16, 32], [40, 64, 256]];
/// Ranks for every tile that depends on them, ragged or not.
const RANKS: [[usize; SIZES]; 5] =
    [[1, 2, 3], [12, 16, 16], [20, 24, 32], [33, 47, 63], [68, 128, 200]];
const BETAS: [f32; 3] = [0.0, 1.0, -0.5];
/// What hosts and devices grant: as many as an executor lists, at most four.
const CAPABILITIES: usize = 4;
/// Rows that are tried for each that is taken.
const TRIES: usize = 12;

/// Problems that have the same operands.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What is computed.
    pub operation: Operation,
    /// False: rank 0.
    pub has_adapter: bool,
    /// Which gradients, where they are computed.
    pub gradients: Gradients,
    /// 2: every two options meet; 1: every option occurs.
    strength: usize,
}

const fn kind(
    operation: Operation,
    has_adapter: bool,
    gradients: Gradients,
    strength: usize,
) -> Kind {
    Kind { operation, has_adapter, gradients, strength }
}

/// All of them.
pub const KINDS: [Kind; 10] = [
    kind(Operation::Forward, true, Gradients::Both, 2),
    kind(Operation::Forward, false, Gradients::Both, 1),
    kind(Operation::BackwardInput, true, Gradients::Both, 2),
    kind(Operation::BackwardInput, false, Gradients::Both, 1),
    kind(Operation::BackwardShrink, true, Gradients::Both, 2),
    kind(Operation::BackwardAdapter, true, Gradients::Both, 2),
    kind(Operation::BackwardAdapter, true, Gradients::A, 1),
    kind(Operation::BackwardAdapter, true, Gradients::B, 1),
    kind(Operation::Merge, true, Gradients::Both, 2),
    kind(Operation::Unmerge, true, Gradients::Both, 2),
];

/// What rows of a kind differ by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Factor {
    Activation,
    /// y and dx: as the activations are, or f32.
    Output,
    Adapter,
    Gradient,
    Tokens,
    In,
    Out,
    Rank,
    Precise,
    Beta,
    Capabilities,
    Storage(Operand),
}

/// How an operand's rows lie: in vectors of four, in words of two 16-bit elements, or anyhow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every row begins at 16 bytes and holds whole vectors.
    Fours,
    /// Every row begins at a word.
    Twos,
    /// No more than an element's own size is promised.
    Ones,
}

/// A level of a factor. The number counts from 0.
type Choice = (Factor, usize);

impl Kind {
    /// The smallest problem of the kind, with everything that may be left out.
    fn whole(&self, [tokens, in_features, out_features, rank]: [usize; 4]) -> Problem {
        let rank = if self.has_adapter { rank } else { 0 };
        Problem::new(self.operation, tokens, in_features, out_features, rank)
            .with_bias(true)
            .with_gain(true)
            .with_gradients(self.gradients)
    }

    /// Every way to store `operand`; `None`: left out, where it may be.
    fn storages(&self, operand: Operand) -> Vec<Option<(Major, Form)>> {
        let Some(spec) = self.whole([8; 4]).spec(operand) else { return Vec::new() };
        let majors: &[Major] = match operand.either_major() {
            true => &[Major::Row, Major::Col],
            false => &[Major::Row],
        };
        // Reads know vectors and single elements alone.
        let forms: &[Form] = match spec.access {
            Access::Read => &[Form::Fours, Form::Ones],
            _ => &[Form::Fours, Form::Twos, Form::Ones],
        };
        let all = majors.iter().flat_map(|major| forms.iter().map(|form| Some((*major, *form))));
        let linear = matches!(self.operation, Operation::Forward | Operation::BackwardInput);
        let kept = linear && matches!(operand, Operand::Shrunk | Operand::Dshrunk);
        let none = (matches!(operand, Operand::Bias | Operand::Gain) || kept).then_some(None);
        all.chain(none).collect()
    }

    /// Its factors, each with the number of its levels.
    fn factors(&self) -> Vec<(Factor, usize)> {
        use Factor::*;
        let shapes = |sizes| {
            let problem = self.whole(sizes);
            problem.specs().map(|(_, spec)| (spec.rows, spec.cols)).collect::<Vec<_>>()
        };
        // A size counts where an operand has it.
        let base = shapes([8; 4]);
        let sizes = [(Tokens, TOKENS.len()), (In, FEATURES.len()), (Out, FEATURES.len())];
        let mut factors = vec![(Activation, DType::ALL.len()), (Capabilities, CAPABILITIES)];
        for (at, (factor, levels)) in sizes.into_iter().chain([(Rank, RANKS.len())]).enumerate() {
            let mut sizes = [8; 4];
            sizes[at] = 16;
            if shapes(sizes) != base {
                factors.push((factor, levels));
            }
        }
        let merges = matches!(self.operation, Operation::Merge | Operation::Unmerge);
        let adapter = self.has_adapter;
        let sums = !merges && self.operation != Operation::BackwardShrink;
        let gradient = self.operation == Operation::BackwardAdapter;
        let layer = sums && !gradient;
        let scalars = [
            (Output, layer, 2),
            (Adapter, adapter && !gradient, DType::ALL.len()),
            (Gradient, gradient, DType::ALL.len()),
            (Precise, adapter && !merges, 2),
            (Beta, sums, BETAS.len()),
        ];
        let scalars = scalars.into_iter().filter(|(_, counts, _)| *counts);
        factors.extend(scalars.map(|(factor, _, levels)| (factor, levels)));
        let stored = Operand::ALL.iter().map(|&of| (Storage(of), self.storages(of).len()));
        factors.extend(stored.filter(|(_, levels)| *levels > 0));
        factors
    }

    /// Whether no problem has both: vectors along rows that hold no multiple of four.
    fn clash(&self, one: Choice, other: Choice) -> bool {
        let rules_out = |(factor, level): Choice, (size, of): Choice| {
            let Factor::Storage(operand) = factor else { return false };
            let Some((major, form)) = self.storages(operand)[level] else { return false };
            form != Form::Ones && columns(operand, major) == Some(size) && !fours(size, of)
        };
        rules_out(one, other) || rules_out(other, one)
    }

    /// Every two levels that can meet; of kinds that add nothing to another one's texts but what
    /// they leave out, every level.
    fn pairs(&self) -> BTreeSet<[Choice; 2]> {
        let factors = self.factors();
        let all: Vec<Choice> = factors
            .iter()
            .flat_map(|(of, levels)| (0..*levels).map(|level| (*of, level)))
            .collect();
        let mut pairs = BTreeSet::new();
        for (at, one) in all.iter().enumerate() {
            if self.strength == 1 {
                pairs.insert([*one, *one]);
                continue;
            }
            for other in &all[at + 1..] {
                if one.0 != other.0 && !self.clash(*one, *other) {
                    pairs.insert(ordered(*one, *other));
                }
            }
        }
        pairs
    }

    /// Rows in which every pair occurs, chosen greedily: of some rows built around pairs that
    /// are missing, the one with the most of them.
    pub fn rows(self) -> Vec<Row> {
        let factors = self.factors();
        let mut missing = self.pairs();
        let mut rows: Vec<Row> = Vec::new();
        let mut rng = StdRng::seed_from_u64(0);
        while let Some(&pair) = missing.first() {
            let tries = (0..TRIES).map(|_| {
                let mut order = factors.clone();
                order.shuffle(&mut rng);
                self.around(pair, &order, &missing)
            });
            let choices = tries.max_by_key(|of| met(of).filter(|of| missing.contains(of)).count());
            let choices = choices.expect("at least one try");
            for pair in met(&choices) {
                missing.remove(&pair);
            }
            rows.push(Row { kind: self, choices });
        }
        rows
    }

    /// A row with `pair` in it; the other factors in this order take the level that brings the
    /// most missing pairs with those before.
    fn around(
        &self,
        pair: [Choice; 2],
        order: &[(Factor, usize)],
        missing: &BTreeSet<[Choice; 2]>,
    ) -> Vec<Choice> {
        let mut choices = pair.to_vec();
        choices.dedup();
        for &(factor, levels) in order {
            if choices.iter().any(|of| of.0 == factor) {
                continue;
            }
            let fits = (0..levels).map(|level| (factor, level));
            let fits = fits.filter(|of| !choices.iter().any(|had| self.clash(*had, *of)));
            let brings = |of: &Choice| {
                let with = choices.iter().filter(|had| missing.contains(&ordered(**had, *of)));
                with.count() + usize::from(missing.contains(&[*of, *of]))
            };
            choices.push(fits.max_by_key(brings).expect("every size has a level for vectors"));
        }
        choices
    }
}

/// Every two choices of a row, and each with itself.
fn met(choices: &[Choice]) -> impl Iterator<Item = [Choice; 2]> {
    let from = move |at: usize| choices[at..].iter().map(move |of| ordered(choices[at], *of));
    (0..choices.len()).flat_map(from)
}

fn ordered(one: Choice, other: Choice) -> [Choice; 2] {
    if one < other { [one, other] } else { [other, one] }
}

/// The size that an operand's stored columns are; `shrunk` is padded to a multiple of eight.
fn columns(operand: Operand, major: Major) -> Option<Factor> {
    use Operand::*;
    match (operand, major) {
        (X | Dx, _) | (W | A | Da, Major::Row) => Some(Factor::In),
        (Dy | Y | Bias | Gain, _) | (W | B | Db, Major::Col) => Some(Factor::Out),
        (A | Da, Major::Col) | (B | Db, Major::Row) => Some(Factor::Rank),
        _ => None,
    }
}

/// Whether all sizes of a level are multiples of four.
fn fours(size: Factor, level: usize) -> bool {
    let sizes = match size {
        Factor::Rank => &RANKS[level],
        _ => &FEATURES[level],
    };
    sizes.iter().all(|size| size.is_multiple_of(4))
}

/// One combination of options.
#[derive(Debug, Clone)]
pub struct Row {
    kind: Kind,
    choices: Vec<Choice>,
}

impl Row {
    /// The level of `factor`; 0 where the kind does not have it.
    fn level(&self, factor: Factor) -> usize {
        self.choices.iter().find(|of| of.0 == factor).map_or(0, |of| of.1)
    }

    /// Which of an executor's capabilities to plan for.
    pub fn capabilities(&self) -> u64 {
        self.level(Factor::Capabilities) as u64
    }

    /// How `operand` is stored; `None` where it is left out.
    pub fn storage(&self, operand: Operand) -> Option<(Major, Form)> {
        let storages = self.kind.storages(operand);
        storages.get(self.level(Factor::Storage(operand))).copied().flatten()
    }

    /// The problem in one of its sizes; the scale is left to the test.
    pub fn problem(&self, size: usize) -> Problem {
        use Factor::*;
        let Kind { operation, has_adapter, gradients, .. } = self.kind;
        let tokens = match (operation, self.level(Tokens)) {
            (Operation::BackwardAdapter, 3) => SUMMED[size],
            (_, level) => TOKENS[level][size],
        };
        let [k, n] = [In, Out].map(|of| FEATURES[self.level(of)][size]);
        let rank = if has_adapter { RANKS[self.level(Rank)][size] } else { 0 };
        let kept = [Operand::Shrunk, Operand::Dshrunk].map(|of| self.storage(of).is_some());
        let problem = Problem::new(operation, tokens, k, n, rank)
            .with_activation(DType::ALL[self.level(Activation)])
            .with_output((self.level(Output) == 1).then_some(DType::F32))
            .with_adapter(DType::ALL[self.level(Adapter)])
            .with_gradient(DType::ALL[self.level(Gradient)])
            .with_gradients(gradients)
            .with_beta(BETAS[self.level(Beta)])
            .with_precise(self.level(Precise) == 1)
            .with_bias(self.storage(Operand::Bias).is_some())
            .with_gain(self.storage(Operand::Gain).is_some())
            .with_keep_shrunk(kept.contains(&true));
        Operand::ALL.iter().copied().fold(problem, |problem, operand| {
            let Some((major, form)) = self.storage(operand) else { return problem };
            let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
            let Some(spec) = problem.spec(operand) else { return problem };
            let cols = spec.stored().1;
            // Gaps between rows in some of the sizes, which keep the form.
            let (gap, align) = match form {
                Form::Fours => ([0, 8, 4][size], 16),
                Form::Twos => (2, 2 * DType::F16.size()),
                Form::Ones if spec.access == Access::Read => ([0, 3, 1][size], spec.dtype.size()),
                Form::Ones => ([1, 3, 5][size], spec.dtype.size()),
            };
            problem.with_layout(operand, Layout { major, stride: Some(cols + gap), align })
        })
    }
}

/// Every pair occurs, and every row is a legal problem whose operands lie as it says.
pub fn check(kind: Kind) -> usize {
    let rows = kind.rows();
    let mut missing = kind.pairs();
    for row in &rows {
        for size in 0..SIZES {
            let problem = row.problem(size);
            assert_eq!(problem.validate(), Ok(()), "{row:?}");
            for (operand, spec) in problem.specs() {
                let (_, form) = row.storage(operand).expect("an operand of the row");
                let whole = spec.stored().1.is_multiple_of(4) && spec.stride.is_multiple_of(4);
                assert_eq!(form == Form::Fours, whole && spec.align == 16, "{operand} {spec:?}");
            }
        }
        for pair in met(&row.choices) {
            missing.remove(&pair);
        }
    }
    assert!(missing.is_empty(), "{kind:?}: {missing:?}");
    rows.len()
}
