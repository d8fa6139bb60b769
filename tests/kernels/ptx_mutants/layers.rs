//! What `ptx_mutants` spoils: texts, places in them, and the layers that they are run for. Here the main loops of
//! `linear`, `decode` and `gradient`; `gathered` has what gathers images, `factors` small kernels beside a layer, `contract`
//! the sums over factors.

use std::rc::Rc;

use fused_lora::{DType, Major, Operand, Operation, Plan, Problem};
use test_support::sim::gpu;
use test_support::{Buffers, Case, Fill};

use super::super::ptx_decode::{machine, plan as decode_plan, tidy};
use super::{contract, factors, gathered};

/// Of `linear` a plan's choice and its ranks.
const LINEAR: [(&str, usize); 5] = [
    ("direct/medium", 0),
    ("leader/medium", 16),
    ("leader/large", 16),
    ("leader/small", 16),
    ("recompute/medium", 32),
];
/// Where its loops begin and end: of leaders both.
const INTERIORS: [Place; 2] =
    [("INTERIOR:", "@p1 bra.uni INTERIOR;"), ("INTERIOR_RANKED:", "@p1 bra.uni INTERIOR_RANKED;")];

/// What is in a layer's operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Data {
    /// All is exact, in the activations' type.
    Integers,
    /// With y in f32 and a precise shrunk: 16 bits would not show the low part of an adapter in f32.
    Uniform,
    /// The same, and for every other rank, from this one on, an element of a is infinite: shrunk has no low part.
    InfiniteRanks(usize),
    /// The same, and an element of a token of each eight: what lies beyond the rank must be made zero.
    InfiniteTokens,
    /// Every other element of a is infinite, and has no low part.
    InfiniteDown(usize),
    /// The same of b.
    InfiniteUp(usize),
    /// The first element of an operand is infinite.
    Infinite(Operand),
}
use Data::{Infinite, InfiniteDown, InfiniteRanks, InfiniteTokens, InfiniteUp, Integers, Uniform};

/// Layers for `decode`, [tokens, along the sum, columns, rank], and their machines: multiprocessors, and KiB of
/// shared memory, which say how many warps stream. Sums leave a step each number of its rows, columns a strip each
/// quarter, ranks a turn each eight.
const DECODE: [([usize; 4], u32, u32, Data); 22] = [
    // The second fragment of tokens half full; strips cut among CTAs.
    ([11, 515, 197, 16], 3, 70, Integers),
    // Several strips one after another in one CTA, no adapter.
    ([3, 201, 331, 0], 1, 163, Integers),
    // All ranks, in parts of more than a ring; a single warp.
    ([16, 582, 139, 64], 2, 48, Uniform),
    // A long sum for six warps in two CTAs.
    ([1, 2053, 84, 5], 2, 163, Uniform),
    // Whole steps of a sum, and a strip that is not whole.
    ([8, 128, 90, 35], 2, 99, Uniform),
    // Parts of shrunk as long as the ring, so that it wraps at the end.
    ([2, 380, 70, 6], 1, 48, Uniform),
    ([5, 250, 40, 15], 1, 70, Uniform),
    ([9, 47, 72, 17], 2, 48, Uniform),
    ([4, 21, 24, 27], 1, 48, Uniform),
    ([4, 23, 24, 44], 1, 48, Uniform),
    ([4, 25, 24, 52], 1, 48, Uniform),
    ([4, 30, 24, 60], 1, 48, Uniform),
    ([16, 100, 72, 16], 2, 48, InfiniteRanks(0)),
    ([16, 100, 72, 16], 2, 48, InfiniteRanks(1)),
    ([12, 36, 24, 4], 1, 48, InfiniteTokens),
    ([12, 36, 24, 5], 1, 48, InfiniteTokens),
    ([12, 36, 24, 6], 1, 48, InfiniteTokens),
    ([12, 36, 24, 7], 1, 48, InfiniteTokens),
    ([3, 40, 70, 64], 1, 48, InfiniteDown(0)),
    ([3, 40, 70, 64], 1, 48, InfiniteDown(1)),
    ([3, 40, 70, 64], 1, 48, InfiniteUp(0)),
    ([3, 40, 70, 64], 1, 48, InfiniteUp(1)),
];
/// Its loops: what streams w, what adds up a part of shrunk, what copies up, rounds shrunk, and multiplies both.
const STREAMS: [Place; 5] = [
    ("STEP:", "bra.uni STEP;"),
    ("SHRINK:", "bra.uni SHRINK;"),
    ("COPY:", "@p0 bra.uni COPY;"),
    ("ROUND:", "@p0 bra.uni ROUND;"),
    ("MEET:", "@p0 bra.uni MEET;"),
];

/// Layers for `gradient`, [tokens, k, n, rank]: two tiles of ranks, and less than one; tokens that leave a step
/// each eight of its rows, and one; so many that there are several partial sums.
const GRADIENT: [[usize; 4]; 6] = [
    [333, 136, 200, 72],
    [70, 75, 261, 17],
    [33, 264, 72, 45],
    [52, 40, 40, 20],
    [60, 24, 8, 33],
    [2600, 128, 128, 64],
];
/// Its loops: over tokens, and over partial sums.
const TOKENS: [Place; 2] = [("STEP:", "@p0 bra.uni STEP;"), ("ADD:", "@p0 bra.uni ADD;")];

/// What a text is run for.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) plan: Plan,
    pub(super) case: Case,
    pub(super) data: Data,
}

impl Layer {
    pub(super) fn buffers(&self) -> Buffers {
        let mut buffers = self.case.aligned_buffers();
        let [tokens, rank] = [self.plan.problem().tokens(), self.plan.problem().rank()];
        // What is shrunk, by what, and what shrunk meets.
        let (x, down, up) = match self.plan.problem().operation() {
            Operation::BackwardInput => (Operand::Dy, Operand::B, Operand::A),
            _ => (Operand::X, Operand::A, Operand::B),
        };
        match self.data {
            Integers | Uniform => {}
            Infinite(operand) => buffers.at_mut(operand).set(0, 0, f32::INFINITY),
            InfiniteRanks(first) => {
                let a = buffers.at_mut(Operand::A);
                (first..rank).step_by(2).for_each(|of| a.set(of, 3, f32::NEG_INFINITY));
            }
            InfiniteTokens => {
                let x = buffers.at_mut(x);
                (3..tokens).step_by(8).for_each(|of| x.set(of, 1, f32::INFINITY));
            }
            InfiniteDown(first) | InfiniteUp(first) => {
                let of = |row: usize, col: usize| match (row + col) % 2 == first {
                    true => f32::NEG_INFINITY,
                    false => 1.0,
                };
                let is_down = matches!(self.data, InfiniteDown(_));
                let (with, without) = if is_down { (down, up) } else { (up, down) };
                buffers.at_mut(x).fill(|_, _| 1.0);
                buffers.at_mut(with).fill(of);
                buffers.at_mut(without).fill(|_, _| 1.0);
            }
        }
        buffers
    }
}

/// A text that is spoilt, a place in it, and the layers that it is run for.
pub(super) struct Loop {
    /// Under which its statements stand in `mutants.txt`.
    pub(super) group: &'static str,
    pub(super) layers: Rc<[Layer]>,
    pub(super) text: Rc<str>,
    pub(super) name: String,
    pub(super) lines: std::ops::Range<usize>,
}

/// A place in a text: what stands before it, and the end of its last statement.
pub(super) type Place = (&'static str, &'static str);

/// Those of `places` that the one text has which the launches of `kernel` run for all `layers`.
pub(super) fn loops(
    group: &'static str,
    kernel: &str,
    layers: &[Layer],
    places: &[Place],
) -> Vec<Loop> {
    let sources = |plan: &Plan| {
        let of_kernel = plan.launches().iter().filter(|of| of.kernel == kernel);
        let texts = of_kernel.map(|of| of.source.as_ref().unwrap().text.to_string());
        texts.collect::<Vec<_>>()
    };
    let text: Rc<str> = sources(&layers[0].plan).swap_remove(0).into();
    let layers: Rc<[Layer]> = layers.into();
    for Layer { plan, .. } in layers.iter() {
        let all = sources(plan);
        assert!(!all.is_empty(), "no launch of {kernel}: {}", plan.explain());
        assert!(all.iter().all(|of| **of == *text), "{group}: another text: {}", plan.explain());
    }
    let lines: Vec<&str> = text.lines().collect();
    let of = |(from, to): &Place| {
        let first = lines.iter().position(|line| line == from)?;
        let ends = |line: &&str| line == to || line.ends_with(&format!(" {to}"));
        let last = lines.iter().rposition(ends).unwrap();
        let name = lines[0].trim_start_matches("// ").split(':').next().unwrap();
        let name = format!("{name} {}", from.trim_end_matches(':'));
        let (layers, text) = (layers.clone(), text.clone());
        Some(Loop { group, layers, name, lines: first + 1..last + 1, text })
    };
    let found: Vec<Loop> = places.iter().filter_map(of).collect();
    assert!(!found.is_empty(), "{group}: no loop");
    found
}

/// Every loop of the lists, those of a layer in both majors of w.
pub(super) fn all() -> Vec<Loop> {
    const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];
    let mut all = Vec::new();
    for (choice, rank) in LINEAR {
        let [tokens, deep, wide] = [120, 344, 400];
        for operation in BOTH {
            let (k, n) = if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
            let problem = Problem::new(operation, tokens, k, n, rank)
                .with_dtype(DType::Bf16)
                .with_scale(0.5)
                .with_bias(operation == Operation::Forward);
            let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
            let case = Case::new(problem, Fill::Integers, 7);
            all.extend(loops(
                "linear",
                "linear",
                &[Layer { plan, case, data: Integers }],
                &INTERIORS,
            ));
        }
    }
    for (major, adapter) in [Major::Row, Major::Col]
        .into_iter()
        .flat_map(|major| [DType::Bf16, DType::F32].map(|adapter| (major, adapter)))
    {
        let layer = |(at, (sizes, sms, shared, data)): (usize, ([usize; 4], u32, u32, Data))| {
            let [m, k, n, rank] = sizes;
            let y = if data == Integers { DType::Bf16 } else { DType::F32 };
            let problem = Problem::new(Operation::Forward, m, k, n, rank)
                .with_dtype(DType::Bf16)
                .with_adapter(adapter)
                .with_output(y)
                .with_scale(0.5)
                .with_precise(!matches!(data, Integers | InfiniteDown(_) | InfiniteUp(_)))
                .with_keep_shrunk(rank > 0 && at != 4);
            // Rows of every operand lie farther apart than they are long, in one layer of two.
            let problem = tidy(problem, major, 8 * (at % 2));
            let plan = decode_plan(&problem, &machine(sms, shared << 10));
            let fill = if data == Integers { Fill::Integers } else { Fill::Uniform };
            Layer { plan, case: Case::new(problem, fill, 7 + at as u64), data }
        };
        // Without a rank the adapter is of the activations' type, whatever the caller says.
        let layers = DECODE
            .into_iter()
            .enumerate()
            .filter(|(_, (sizes, ..))| sizes[3] > 0 || adapter == DType::Bf16);
        let layers: Vec<_> = layers.map(layer).collect();
        all.extend(loops("decode", "decode", &layers, &STREAMS));
    }
    let layer = |(at, [m, k, n, rank]): (usize, [usize; 4])| {
        let problem = Problem::new(Operation::BackwardAdapter, m, k, n, rank)
            .with_dtype(DType::Bf16)
            .with_precise(at == 2);
        let problem = tidy(problem, Major::Row, 8 * (at % 2));
        let plan = Plan::new(&problem, &gpu(3)).unwrap();
        Layer { plan, case: Case::new(problem, Fill::Integers, 7 + at as u64), data: Integers }
    };
    let layers: Vec<Layer> = GRADIENT.into_iter().enumerate().map(layer).collect();
    all.extend(loops("gradient", "gradient", &layers, &TOKENS));
    all.extend(gathered::all());
    all.extend(factors::all());
    all.extend(contract::all());
    all
}
