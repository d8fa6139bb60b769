//! A case: a problem and the data for it, both from a fixed seed.

use fused_lora::{
    Access, Channels, Convolution, DType, Gradients, Kronecker, Layout, Major, Method, Operand,
    Operation, Problem, Spec, Taps,
};
use rand::prelude::*;
use rand::rngs::StdRng;

use crate::{Buffers, Stored};

/// Ranks on both sides of every boundary that a kernel may have.
pub const RANKS: [usize; 17] = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 128, 512];

/// What the operands hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Uniform in −1 … 1.
    Uniform,
    /// One element in 64 is sixteen times as large.
    Outliers,
    /// So small that 16-bit results are subnormal or vanish.
    Tiny,
    /// Small integers: with a power of two for a scale all sums and `shrunk` are exact.
    Integers,
}

/// A problem and its data.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is computed.
    pub problem: Problem,
    /// On which kind of data.
    pub fill: Fill,
    /// What draws the data.
    pub seed: u64,
}

impl Case {
    /// Nothing is drawn yet.
    pub fn new(problem: Problem, fill: Fill, seed: u64) -> Case {
        Case { problem, fill, seed }
    }

    /// Its operands: inputs and old values drawn, outputs that are only written poisoned.
    pub fn buffers(&self) -> Buffers {
        self.shifted(|_, rng| rng.random_range(0..8))
    }

    /// The same, each at a multiple of 16 bytes unless its layout promises less.
    pub fn aligned_buffers(&self) -> Buffers {
        self.shifted(|spec, rng| match spec.align.is_multiple_of(16) {
            true => 0,
            false => rng.random_range(1..8),
        })
    }

    /// The same, each where its layout promises.
    pub fn promised_buffers(&self) -> Buffers {
        self.shifted(|spec, rng| match spec.align / spec.dtype.size() {
            0 => 16 / spec.dtype.size() * rng.random_range(0..2),
            elements if spec.align.is_multiple_of(16) => elements * rng.random_range(0..2),
            elements => elements * rng.random_range(0..4),
        })
    }

    /// With every operand so many elements off the start of its buffer.
    fn shifted(&self, shift: impl Fn(&Spec, &mut StdRng) -> usize) -> Buffers {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let stored = self.problem.specs().map(|(operand, spec)| {
            let mut stored = Stored::new(operand, spec, shift(&spec, &mut rng));
            self.draw(&mut stored, &mut rng);
            stored
        });
        Buffers { operation: self.problem.operation(), stored: stored.collect() }
    }

    fn draw(&self, stored: &mut Stored, rng: &mut StdRng) {
        if stored.spec.access == Access::Write {
            stored.fill(|_, _| f32::NAN);
        } else if matches!(stored.operand, Operand::Shrunk | Operand::Dshrunk) {
            self.draw_shrunk(stored, rng);
        } else {
            let operand = stored.operand;
            stored.fill(|_, _| self.value(operand, rng));
        }
    }

    /// As forward leaves it: the high part, zeros, and if precise the low part, zeros.
    fn draw_shrunk(&self, stored: &mut Stored, rng: &mut StdRng) {
        let (rank, part) = (self.problem.rank(), self.problem.padded_rank());
        let (operand, Spec { rows, dtype, .. }) = (stored.operand, stored.spec);
        stored.fill(|_, _| 0.0);
        for row in 0..rows {
            for of in 0..rank {
                let value = self.value(operand, rng);
                stored.set(row, of, value);
                if self.problem.is_precise() {
                    let low = match self.fill {
                        Fill::Integers => self.value(operand, rng) / 64.0,
                        _ => dtype.round(value - dtype.round(value)),
                    };
                    stored.set(row, part + of, low);
                }
            }
        }
    }

    fn value(&self, operand: Operand, rng: &mut StdRng) -> f32 {
        if operand == Operand::Magnitude {
            // Something is divided by it, exactly where all else is exact.
            let sign = if rng.random() { 1.0 } else { -1.0 };
            return sign
                * if self.fill == Fill::Integers { 1.0 } else { rng.random_range(0.5..2.0) };
        }
        match self.fill {
            Fill::Uniform => rng.random_range(-1.0..1.0),
            Fill::Outliers => {
                let factor = if rng.random_range(0..64) == 0 { 16.0 } else { 1.0 };
                factor * rng.random_range(-1.0..1.0)
            }
            Fill::Tiny => rng.random_range(-1.0..1.0) / 1024.0,
            Fill::Integers => {
                // Wider where `shrunk` is kept in two parts, so that the low one is needed.
                let shrinks = matches!(operand, Operand::A | Operand::B);
                let most = match self.problem.method() {
                    Method::Lora if shrinks && self.problem.is_precise() => 25,
                    Method::Lora => 1,
                    _ => 3,
                };
                rng.random_range(-most..=most) as f32
            }
        }
    }
}

/// A problem drawn at random: its options from short lists, so that a few hundred draws
/// see every pair of them; its sizes from `sizes`.
pub fn draw(rng: &mut StdRng, sizes: &[[usize; 3]]) -> Problem {
    let operation = pick(rng, Operation::ALL);
    let [tokens, in_features, out_features] = pick(rng, sizes);
    let gradients = pick(rng, &[Gradients::Both, Gradients::Both, Gradients::A, Gradients::B]);
    let problem = Problem::new(operation, tokens, in_features, out_features, pick(rng, &RANKS));
    let problem = types_and_scalars(rng, problem, -0.3)
        .with_gain(rng.random_range(0..4) == 0)
        .with_precise(rng.random())
        .with_keep_shrunk(rng.random_range(0..4) != 0)
        .with_gradients(gradients);
    lay_out(rng, problem).with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// `problem` with storage types, β, a bias or none, and a scale: one of three, of which `below` is below zero.
fn types_and_scalars(rng: &mut StdRng, problem: Problem, below: f32) -> Problem {
    problem
        .with_activation(pick(rng, DType::ALL))
        .with_adapter(pick(rng, DType::ALL))
        .with_gradient(pick(rng, DType::ALL))
        .with_scale(pick(rng, &[1.5, below, 1.0]))
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.75]))
        .with_bias(rng.random())
}

/// An operation on the factors of LoHa, LoKr or LoCon with a core, drawn at random.
pub fn draw_factors(rng: &mut StdRng) -> Problem {
    const FEATURES: [usize; 9] = [1, 2, 3, 8, 21, 40, 64, 130, 1100];
    let operation = pick(rng, Operation::FACTORS);
    let (k, n) = (pick(rng, &FEATURES), pick(rng, &FEATURES));
    let parts =
        |of: usize| [1, 2, 4, 5, of].into_iter().filter(move |part| of.is_multiple_of(*part));
    let method = match rng.random_range(0..4) {
        0 => Method::Loha,
        3 => {
            let taps = Taps::new(pick(rng, &parts(k).filter(|of| *of <= 64).collect::<Vec<_>>()));
            Method::Tucker(if rng.random() { taps.first() } else { taps })
        }
        of => {
            let rows: Vec<usize> = parts(n).filter(|rows| *rows <= 64).collect();
            let columns: Vec<usize> = parts(k).collect();
            let (rows, columns) = (pick(rng, &rows), pick(rng, &columns));
            let of = match of {
                1 => Kronecker::new(rows, columns),
                _ => Kronecker::low(rows, columns),
            };
            // Half of them as those of a linear layer.
            let taps = parts(k / columns).filter(|of| *of <= 64).chain([1, 1, 1]);
            Method::Lokr(of.taps_first(pick(rng, &taps.collect::<Vec<_>>())))
        }
    };
    let small = k.max(n) < 1000;
    let ranks: &[usize] = if small { &[0, 1, 2, 3, 4, 7, 8, 16, 33] } else { &[1, 2, 4, 8] };
    let gradients = pick(rng, &[Gradients::Both, Gradients::Both, Gradients::A, Gradients::B]);
    let problem = Problem::new(operation, 0, k, n, pick(rng, ranks))
        .with_method(method)
        .with_adapter(pick(rng, DType::ALL))
        .with_gradient(pick(rng, DType::ALL))
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.75]))
        .with_gradients(gradients);
    lay_out(rng, problem)
}

/// A layer of LoKr with a whole w2, or one of `operations` on it or on its w1, drawn at random.
pub fn draw_kronecker(rng: &mut StdRng, operations: &[Operation]) -> Problem {
    const FEATURES: [usize; 9] = [1, 2, 6, 12, 21, 40, 64, 130, 300];
    const TOKENS: [usize; 9] = [0, 1, 2, 7, 16, 17, 33, 130, 600];
    let operation = pick(rng, operations);
    let (m, k, n) = (pick(rng, &TOKENS), pick(rng, &FEATURES), pick(rng, &FEATURES));
    let mut part = |of: usize| {
        let all = [1, 2, 3, 4, 5, 8, of].into_iter().filter(|part| of.is_multiple_of(*part));
        pick(rng, &all.collect::<Vec<_>>())
    };
    let (rows, columns) = (part(n), part(k));
    let of_factors = Operation::FACTORS.contains(&operation);
    // Of a w1 in f32, whatever the adapter's type: that is what composing it gives.
    let low = of_factors || rng.random_range(0..4) == 0;
    let of = if low { Kronecker::low(rows, columns) } else { Kronecker::new(rows, columns) };
    let rank = if of_factors { pick(rng, &[0, 1, 2, 5, 16]) } else { 0 };
    let gradients = pick(rng, &[Gradients::Both, Gradients::Both, Gradients::A, Gradients::B]);
    let problem = Problem::new(operation, m, k, n, rank).with_method(Method::Lokr(of.whole()));
    let problem = types_and_scalars(rng, problem, -0.25)
        .with_gain(rng.random_range(0..4) == 0)
        .with_batch_invariant(rng.random_range(0..4) == 0)
        .with_gradients(gradients);
    lay_out(rng, problem).with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// An operation on a gain and its magnitude, drawn at random.
pub fn draw_gain(rng: &mut StdRng) -> Problem {
    const SIZES: [usize; 10] = [1, 2, 3, 8, 17, 33, 64, 130, 257, 300];
    const TOKENS: [usize; 7] = [0, 1, 2, 7, 8, 33, 130];
    let operation = pick(rng, Operation::GAINS);
    let (m, k, n) = (pick(rng, &TOKENS), pick(rng, &SIZES), pick(rng, &SIZES));
    let problem = Problem::new(operation, m, k, n, pick(rng, &[0, 1, 3, 8, 17]));
    let problem = types_and_scalars(rng, problem, -0.3);
    lay_out(rng, problem).with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// A layer on images, drawn at random: kernels, strides, paddings and dilations of either axis, in both orders of channels,
/// ragged, with no image and with several workers' work.
pub fn draw_images(rng: &mut StdRng) -> Problem {
    images(rng, false)
}

/// The same as cards load them 16 bytes at a time: some images, whose channels lie last and come by eights, on rows without
/// gaps. Of a few hundred that are drawn freely hardly one is so.
pub fn draw_aligned_images(rng: &mut StdRng) -> Problem {
    images(rng, true)
}

fn images(rng: &mut StdRng, aligned: bool) -> Problem {
    const OPERATIONS: [Operation; 7] = [
        Operation::Forward,
        Operation::Forward,
        Operation::BackwardInput,
        Operation::BackwardInput,
        Operation::BackwardShrink,
        Operation::BackwardAdapter,
        Operation::BackwardAdapter,
    ];
    const SIZES: [usize; 8] = [1, 2, 3, 4, 5, 7, 8, 11];
    const CHANNELS: [usize; 8] = [1, 2, 3, 4, 5, 8, 16, 19];
    const BY_EIGHTS: [usize; 4] = [8, 16, 24, 40];
    let is_large = rng.random_range(0..8) == 0;
    let of = loop {
        let mut both = |from: &[usize]| [pick(rng, from), pick(rng, from)];
        let (size, kernel) = (both(&SIZES), both(&[1, 2, 3, 3]));
        let (stride, padding, dilation) =
            (both(&[1, 1, 2, 3]), both(&[0, 1, 1, 2]), both(&[1, 1, 2]));
        let size = if is_large { size.map(|of| of + 12) } else { size };
        let images = if is_large { 3 } else { pick(rng, &[usize::from(aligned), 1, 1, 2, 3]) };
        let of = Convolution::new(images, size, kernel)
            .stride(stride)
            .padding(padding)
            .dilation(dilation);
        if of.output().iter().all(|of| *of > 0) {
            let first = if aligned { Channels::Last } else { Channels::First };
            break of.channels(pick(rng, &[first, Channels::Last]));
        }
    };
    let gradients = pick(rng, &[Gradients::Both, Gradients::Both, Gradients::A, Gradients::B]);
    let sizes = if aligned { &BY_EIGHTS[..] } else { &CHANNELS };
    let most = if aligned { [72, 136] } else { [70, 130] };
    let (channels, features) = (pick(rng, sizes), pick(rng, if is_large { &most } else { sizes }));
    let rank = pick(rng, &[0, 1, 2, 3, 4, 8, 9, 17]);
    let problem =
        Problem::new(pick(rng, &OPERATIONS), of.tokens(), channels * of.taps(), features, rank)
            .with_convolution(of);
    let problem = types_and_scalars(rng, problem, -0.3)
        .with_gain(rng.random_range(0..4) == 0)
        .with_precise(rng.random())
        .with_keep_shrunk(rng.random_range(0..4) != 0)
        .with_gradients(gradients);
    let problem = if aligned { problem } else { lay_out(rng, problem) };
    problem.with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// A layer on images whose adapter is a LoKr with a whole w2, drawn at random.
pub fn draw_kronecker_images(rng: &mut StdRng) -> Problem {
    const OPERATIONS: [Operation; 3] =
        [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter];
    let drawn = draw_images(rng);
    let of = drawn.convolution().expect("images");
    let taps = if of.channels == Channels::Last { of.taps() } else { 1 };
    let (k, n) = (drawn.in_features(), drawn.out_features());
    let mut part = |of: usize| {
        let all = [1, 2, 3, 4, 5, 8, 18, of].into_iter().filter(|part| of.is_multiple_of(*part));
        pick(rng, &all.collect::<Vec<_>>())
    };
    let (rows, columns) = (part(n), part(k / taps));
    // Of a w1 in f32, whatever the adapter's type: that is what composing it gives.
    let low = rng.random_range(0..4) == 0;
    let method = if low { Kronecker::low(rows, columns) } else { Kronecker::new(rows, columns) };
    let method = method.taps_first(taps);
    let gradients = pick(rng, &[Gradients::Both, Gradients::Both, Gradients::A, Gradients::B]);
    let problem = Problem::new(pick(rng, &OPERATIONS), of.tokens(), k, n, 0)
        .with_method(Method::Lokr(method.whole()))
        .with_convolution(of);
    let problem = types_and_scalars(rng, problem, -0.25)
        .with_gain(rng.random_range(0..4) == 0)
        .with_batch_invariant(rng.random_range(0..4) == 0)
        .with_gradients(gradients);
    lay_out(rng, problem).with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// The gradient of a magnitude on images, drawn at random.
pub fn draw_gain_images(rng: &mut StdRng) -> Problem {
    let drawn = draw_images(rng);
    let problem = Problem::new(
        Operation::BackwardGain,
        drawn.tokens(),
        drawn.in_features(),
        drawn.out_features(),
        0,
    );
    let problem = problem
        .with_convolution(drawn.convolution())
        .with_activation(pick(rng, DType::ALL))
        .with_gradient(pick(rng, DType::ALL))
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.75]))
        .with_bias(rng.random());
    lay_out(rng, problem).with_output(pick(rng, &[None, None, Some(DType::F32)]))
}

/// The same problem with operands that begin at any element.
pub fn odd(problem: Problem) -> Problem {
    problem.specs().fold(problem, |problem, (operand, spec)| {
        let Spec { major, stride, dtype, .. } = spec;
        let layout = Layout { major, stride: Some(stride), align: dtype.size() };
        problem.with_layout(operand, layout)
    })
}

/// Either major where that is allowed, gaps between stored rows and, in every other problem, operands that
/// begin at any element, at random.
fn lay_out(rng: &mut StdRng, problem: Problem) -> Problem {
    let begins_anywhere = rng.random();
    Operand::ALL.iter().copied().fold(problem, |problem, operand| {
        let transposed = operand.either_major() && rng.random();
        let major = if transposed { Major::Col } else { Major::Row };
        let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
        let gap = pick(rng, &[0, 0, 1, 8, 13]);
        let Some(spec) = problem.spec(operand) else { return problem };
        let stride = (gap > 0).then_some(spec.stored().1 + gap);
        let align = if begins_anywhere { spec.dtype.size() } else { 0 };
        problem.with_layout(operand, Layout { major, stride, align })
    })
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}
