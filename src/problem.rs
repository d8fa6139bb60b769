//! What is to be computed: sizes, storage types, layouts and options, and no word on
//! how or where. Made by the caller; read by the plan, the checks and the executors.

use core::fmt;

use crate::{DType, Error, Result};

/// The things one can do with a frozen layer and its adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `y = x·wᵀ + shrunk·bᵀ (+ bias)` with `shrunk = s·x·aᵀ`.
    Forward,
    /// `dx = dy·w + dshrunk·a` with `dshrunk = s·dy·b`.
    BackwardInput,
    /// `dshrunk = s·dy·b` alone: for a first layer, whose `dx` nobody needs.
    BackwardShrink,
    /// `db = dyᵀ·shrunk`, `da = dshrunkᵀ·x`.
    BackwardAdapter,
    /// `w += s·b·a`.
    Merge,
    /// `w -= s·b·a`.
    Unmerge,
}

impl Operation {
    /// Every operation, for tests and tables that walk them all. There may be more of them in a
    /// later version.
    pub const ALL: [Operation; 6] = [
        Operation::Forward,
        Operation::BackwardInput,
        Operation::BackwardShrink,
        Operation::BackwardAdapter,
        Operation::Merge,
        Operation::Unmerge,
    ];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::Forward => "forward",
            Operation::BackwardInput => "backward_input",
            Operation::BackwardShrink => "backward_shrink",
            Operation::BackwardAdapter => "backward_adapter",
            Operation::Merge => "merge",
            Operation::Unmerge => "unmerge",
        })
    }
}

/// The names of the operands; errors, bindings and tables use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operand {
    /// Input `[tokens, in_features]`.
    X,
    /// Frozen weight `[out_features, in_features]`.
    W,
    /// Optional bias `[1, out_features]`.
    Bias,
    /// lora_A `[rank, in_features]`.
    A,
    /// lora_B `[out_features, rank]`.
    B,
    /// Output `[tokens, out_features]`.
    Y,
    /// `s·x·aᵀ`, `[tokens, shrunk_stride]`.
    Shrunk,
    /// Gradient of the output `[tokens, out_features]`.
    Dy,
    /// Gradient of the input `[tokens, in_features]`.
    Dx,
    /// `s·dy·b`, `[tokens, shrunk_stride]`.
    Dshrunk,
    /// Gradient of lora_A `[rank, in_features]`.
    Da,
    /// Gradient of lora_B `[out_features, rank]`.
    Db,
}

impl Operand {
    /// How many names there are. There may be more of them in a later version.
    pub const COUNT: usize = 12;

    /// Every name, in the order of the enumeration.
    pub const ALL: [Operand; Operand::COUNT] = [
        Operand::X,
        Operand::W,
        Operand::Bias,
        Operand::A,
        Operand::B,
        Operand::Y,
        Operand::Shrunk,
        Operand::Dy,
        Operand::Dx,
        Operand::Dshrunk,
        Operand::Da,
        Operand::Db,
    ];

    /// Whether the operand may be stored with its columns contiguous. The weight, the
    /// adapter and the adapter's gradients may: frameworks keep them either way.
    pub const fn either_major(self) -> bool {
        matches!(self, Operand::W | Operand::A | Operand::B | Operand::Da | Operand::Db)
    }

    /// The name as errors and kernels write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Operand::X => "x",
            Operand::W => "w",
            Operand::Bias => "bias",
            Operand::A => "a",
            Operand::B => "b",
            Operand::Y => "y",
            Operand::Shrunk => "shrunk",
            Operand::Dy => "dy",
            Operand::Dx => "dx",
            Operand::Dshrunk => "dshrunk",
            Operand::Da => "da",
            Operand::Db => "db",
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which index of a matrix runs contiguously in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Major {
    /// The rows of the shape in [`Operand`]'s table lie contiguously: PEFT, candle.
    #[default]
    Row,
    /// The columns do; what is stored is the transpose: burn.
    Col,
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Major::Row => "row-major",
            Major::Col => "column-major",
        })
    }
}

/// How an operand lies in its buffer. Write it with
/// `..Layout::default()`: a later version may have another field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Layout {
    /// Which index is contiguous.
    pub major: Major,
    /// Elements from one stored row to the next; `None`: stored without gaps.
    pub stride: Option<usize>,
    /// Bytes of which the first element's address is a multiple; 0 promises nothing
    /// beyond what the executor's own documentation expects.
    pub align: usize,
}

impl Layout {
    /// Stored as the transpose of the shape in [`Operand`]'s table.
    pub const TRANSPOSED: Layout = Layout { major: Major::Col, stride: None, align: 0 };
}

/// Which of the adapter's gradients [`Operation::BackwardAdapter`] forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gradients {
    /// `da` and `db`.
    #[default]
    Both,
    /// `da` alone: `dy` and `shrunk` are not operands.
    A,
    /// `db` alone: `x` and `dshrunk` are not operands.
    B,
}

/// What an operation does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it; what it held before does not matter.
    Write,
    /// Reads what it holds and writes it anew (β ≠ 0, merge).
    Update,
}

/// All that is known of one operand of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Spec {
    /// Rows of the shape in [`Operand`]'s table.
    pub rows: usize,
    /// Columns of that shape.
    pub cols: usize,
    /// Storage type.
    pub dtype: DType,
    /// Which index is contiguous.
    pub major: Major,
    /// Elements from one stored row to the next.
    pub stride: usize,
    /// Promised alignment in bytes; 0: none.
    pub align: usize,
    /// What the operation does with it.
    pub access: Access,
}

impl Spec {
    /// Rows and columns as stored: swapped for [`Major::Col`].
    pub fn stored(&self) -> (usize, usize) {
        stored(self.rows, self.cols, self.major)
    }

    /// Elements from the first to the last, gaps included; `None` where that leaves `usize`.
    pub fn extent(&self) -> Option<usize> {
        let (rows, cols) = self.stored();
        extent(rows, cols, self.stride)
    }

    /// Bytes of the elements themselves, without gaps.
    pub fn bytes(&self) -> u64 {
        product([self.rows as u64, self.cols as u64, self.dtype.size() as u64])
    }
}

/// What is known of each operand, by its number; `None`: the problem does not have it.
pub(crate) type Specs = [Option<Spec>; Operand::COUNT];

fn product(factors: [u64; 3]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

pub(crate) fn stored(rows: usize, cols: usize, major: Major) -> (usize, usize) {
    match major {
        Major::Row => (rows, cols),
        Major::Col => (cols, rows),
    }
}

pub(crate) fn extent(stored_rows: usize, stored_cols: usize, stride: usize) -> Option<usize> {
    if stored_rows == 0 || stored_cols == 0 {
        return Some(0);
    }
    (stored_rows - 1).checked_mul(stride)?.checked_add(stored_cols)
}

/// A factor by its bits, so that a problem can be the key of a map: NaN is itself there, and the
/// two zeros are two.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Scalar(u32);

impl Scalar {
    fn new(value: f32) -> Scalar {
        Scalar(value.to_bits())
    }

    fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// One layer and one operation on it: everything but where the bytes are.
///
/// ```text
/// forward           y  = x·wᵀ + shrunk·bᵀ (+ bias)      shrunk  = s·x·aᵀ
/// backward_input    dx = dy·w + dshrunk·a               dshrunk = s·dy·b
/// backward_shrink   dshrunk alone
/// backward_adapter  db = dyᵀ·shrunk   da = dshrunkᵀ·x
/// merge, unmerge    w ± s·b·a
/// ```
///
/// Outputs other than the merged weight become `β·old + new`. Shapes stand at
/// [`Operand`]; the mathematics is that of Hu et al., 2021, arXiv:2106.09685.
/// `tokens = 0` is legal (nothing to do) and so is `rank = 0` (the plain layer; `a`, `b`
/// and `shrunk` are then no operands).
///
/// The builder takes any value; [`Plan::new`](crate::Plan::new) validates.
///
/// ```
/// use fused_lora::{DType, Layout, Operand, Problem};
///
/// // What PEFT trains by default: bf16 activations, the adapter and its gradients in f32.
/// let forward = Problem::forward(512, 4096, 4096, 16)
///     .with_activation(DType::Bf16)
///     .with_adapter(DType::F32)
///     .with_gradient(DType::F32)
///     .with_scale(32.0 / 16.0);
/// // burn keeps the weights transposed.
/// let burn = forward
///     .with_layout(Operand::W, Layout::TRANSPOSED)
///     .with_layout(Operand::A, Layout::TRANSPOSED)
///     .with_layout(Operand::B, Layout::TRANSPOSED);
/// assert_eq!(burn.spec(Operand::W).unwrap().stored(), (4096, 4096));
/// ```
// Room for what comes: a slice offset into `shrunk` per column tile, a factor per output
// column, another loader for `x`, an adapter index per block of rows, a counter-based
// mask and a quantised `w` are each one more private field with a builder method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Problem {
    operation: Operation,
    tokens: usize,
    in_features: usize,
    out_features: usize,
    rank: usize,
    activation: DType,
    /// Of `y` and `dx`; `None`: that of the activations.
    output: Option<DType>,
    adapter: DType,
    gradient: DType,
    scale: Scalar,
    beta: Scalar,
    bias: bool,
    precise: bool,
    tf32: bool,
    keep_shrunk: bool,
    gradients: Gradients,
    layouts: [Layout; Operand::COUNT],
}

impl Problem {
    /// A problem of `operation` with f32 storage, scale 1, β = 0, no bias, row-major
    /// operands without gaps, and `shrunk` (`dshrunk`) kept for the backward pass.
    pub fn new(
        operation: Operation,
        tokens: usize,
        in_features: usize,
        out_features: usize,
        rank: usize,
    ) -> Problem {
        Problem {
            operation,
            tokens,
            in_features,
            out_features,
            rank,
            activation: DType::F32,
            output: None,
            adapter: DType::F32,
            gradient: DType::F32,
            scale: Scalar::new(1.0),
            beta: Scalar::new(0.0),
            bias: false,
            precise: false,
            tf32: false,
            keep_shrunk: true,
            gradients: Gradients::Both,
            layouts: [Layout::default(); Operand::COUNT],
        }
    }

    /// [`Problem::new`] with [`Operation::Forward`].
    pub fn forward(tokens: usize, in_features: usize, out_features: usize, rank: usize) -> Problem {
        Problem::new(Operation::Forward, tokens, in_features, out_features, rank)
    }

    /// The same layer, another operation: one description serves the whole training step.
    pub fn with_operation(self, operation: Operation) -> Problem {
        Problem { operation, ..self }
    }

    /// Storage of `x`, `w`, `bias`, `dy`, `shrunk` and `dshrunk`; of `y` and `dx` too, unless
    /// [`Problem::with_output`] says another.
    pub fn with_activation(self, activation: DType) -> Problem {
        Problem { activation, ..self }
    }

    /// Storage of `y` and `dx`: [`DType::F32`] leaves the sums as they are where all else is f16 or
    /// bf16, for a residual stream or a loss in f32. `None`, the default, is that of the activations;
    /// no third one is served. What comes in is not touched by it: `dy` is stored as activations are.
    pub fn with_output(self, output: impl Into<Option<DType>>) -> Problem {
        Problem { output: output.into(), ..self }
    }

    /// Storage of `a` and `b`.
    pub fn with_adapter(self, adapter: DType) -> Problem {
        Problem { adapter, ..self }
    }

    /// Storage of `da` and `db`.
    pub fn with_gradient(self, gradient: DType) -> Problem {
        Problem { gradient, ..self }
    }

    /// Every storage type at once.
    pub fn with_dtype(self, dtype: DType) -> Problem {
        self.with_activation(dtype).with_output(None).with_adapter(dtype).with_gradient(dtype)
    }

    /// s: alpha / r, or alpha / √r for rsLoRA. Folded into `shrunk` before that is rounded.
    pub fn with_scale(self, scale: f32) -> Problem {
        Problem { scale: Scalar::new(scale), ..self }
    }

    /// β of `β·old + new` on `y`, `dx`, `da` and `db`; 0 never reads the old values.
    pub fn with_beta(self, beta: f32) -> Problem {
        Problem { beta: Scalar::new(beta), ..self }
    }

    /// Whether `bias` is added (forward only).
    pub fn with_bias(self, bias: bool) -> Problem {
        Problem { bias, ..self }
    }

    /// Keep `shrunk` in two parts, high and low, so that the adapter's term is as
    /// accurate as f32 storage would make it. Changes nothing where the activations are f32.
    pub fn with_precise(self, precise: bool) -> Problem {
        Problem { precise, ..self }
    }

    /// Allows forward and backward_input on f32 activations to round their factors to tf32 (11
    /// bits, to nearest), so that they may run on CUDA's tensor cores: the plan then considers
    /// presets named `tf32` beside the exact ones. What is stored stays f32. The default is exact;
    /// the CPU, wgpu and all other operations and types are exact whatever is said here.
    pub fn with_tf32(self, tf32: bool) -> Problem {
        Problem { tf32, ..self }
    }

    /// Whether `shrunk` (`dshrunk`) is an output, for [`Operation::BackwardAdapter`].
    pub fn with_keep_shrunk(self, keep_shrunk: bool) -> Problem {
        Problem { keep_shrunk, ..self }
    }

    /// Which gradients [`Operation::BackwardAdapter`] forms.
    pub fn with_gradients(self, gradients: Gradients) -> Problem {
        Problem { gradients, ..self }
    }

    /// How `operand` lies in its buffer.
    pub fn with_layout(mut self, operand: Operand, layout: Layout) -> Problem {
        self.layouts[operand as usize] = layout;
        self
    }

    /// The plain layer of the same sizes: rank 0, all else alike.
    pub fn plain(self) -> Problem {
        Problem { rank: 0, ..self }
    }

    /// The operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }
    /// M.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
    /// K.
    pub fn in_features(&self) -> usize {
        self.in_features
    }
    /// N.
    pub fn out_features(&self) -> usize {
        self.out_features
    }
    /// r.
    pub fn rank(&self) -> usize {
        self.rank
    }
    /// s.
    pub fn scale(&self) -> f32 {
        self.scale.get()
    }
    /// β.
    pub fn beta(&self) -> f32 {
        self.beta.get()
    }
    /// Storage of the activations and of `shrunk`.
    pub fn activation(&self) -> DType {
        self.activation
    }
    /// Storage of `y` and `dx`.
    pub fn output(&self) -> DType {
        self.output.unwrap_or(self.activation)
    }
    /// Storage of the adapter.
    pub fn adapter(&self) -> DType {
        self.adapter
    }
    /// Storage of the adapter's gradients.
    pub fn gradient(&self) -> DType {
        self.gradient
    }
    /// Whether `shrunk` is kept in two parts: [`Problem::with_precise`] on 16-bit activations.
    pub fn is_precise(&self) -> bool {
        self.precise && self.activation != DType::F32
    }

    /// Whether factors may be rounded to tf32: [`Problem::with_tf32`] on forward and
    /// backward_input of f32 activations.
    pub fn is_tf32(&self) -> bool {
        let linear = matches!(self.operation, Operation::Forward | Operation::BackwardInput);
        self.tf32 && linear && self.activation == DType::F32
    }

    /// Elements of one part of a row of `shrunk`: the rank rounded up to 8; the pad is zero.
    pub fn shrunk_part(&self) -> usize {
        self.rank.div_ceil(8).saturating_mul(8)
    }

    /// Row length of `shrunk` and `dshrunk`: one part, or with [`Problem::with_precise`] on
    /// 16-bit activations the high part followed by the low part.
    pub fn shrunk_stride(&self) -> usize {
        self.shrunk_part().saturating_mul(if self.is_precise() { 2 } else { 1 })
    }

    /// Shape, storage and layout of `operand`, or `None` where this problem does not have it.
    pub fn spec(&self, operand: Operand) -> Option<Spec> {
        use Operand::*;
        let (m, k, n, r) = (self.tokens, self.in_features, self.out_features, self.rank);
        let result = if self.beta() == 0.0 { Access::Write } else { Access::Update };
        let (da, db) = match self.gradients {
            Gradients::Both => (true, true),
            Gradients::A => (true, false),
            Gradients::B => (false, true),
        };
        // Read it as a table: which operands each operation has, and what it does with them.
        let access = match (self.operation, operand) {
            (Operation::Forward, X | W) => Some(Access::Read),
            (Operation::Forward, Bias) => self.bias.then_some(Access::Read),
            (Operation::Forward, Y) => Some(result),
            (Operation::Forward, Shrunk) => (self.keep_shrunk && r > 0).then_some(Access::Write),
            (Operation::BackwardInput, Dy | W) => Some(Access::Read),
            (Operation::BackwardInput, Dx) => Some(result),
            (Operation::BackwardInput, Dshrunk) => {
                (self.keep_shrunk && r > 0).then_some(Access::Write)
            }
            (Operation::BackwardAdapter, X | Dshrunk) => (da && r > 0).then_some(Access::Read),
            (Operation::BackwardAdapter, Dy | Shrunk) => (db && r > 0).then_some(Access::Read),
            (Operation::BackwardAdapter, Da) => (da && r > 0).then_some(result),
            (Operation::BackwardAdapter, Db) => (db && r > 0).then_some(result),
            (Operation::BackwardShrink, Dy) => (r > 0).then_some(Access::Read),
            (Operation::BackwardShrink, Dshrunk) => (r > 0).then_some(Access::Write),
            (Operation::BackwardShrink, A) | (Operation::BackwardAdapter, A | B) => None,
            (Operation::Merge | Operation::Unmerge, W) => Some(Access::Update),
            (_, A | B) => (r > 0).then_some(Access::Read),
            _ => None,
        }?;
        let (rows, cols, dtype) = match operand {
            X => (m, k, self.activation),
            Dx => (m, k, self.output()),
            W => (n, k, self.activation),
            Bias => (1, n, self.activation),
            A => (r, k, self.adapter),
            B => (n, r, self.adapter),
            Y => (m, n, self.output()),
            Dy => (m, n, self.activation),
            Shrunk | Dshrunk => (m, self.shrunk_stride(), self.activation),
            Da => (r, k, self.gradient),
            Db => (n, r, self.gradient),
        };
        let Layout { major, stride, align } = self.layouts[operand as usize];
        let stride = stride.unwrap_or(stored(rows, cols, major).1);
        Some(Spec { rows, cols, dtype, major, stride, align, access })
    }

    /// [`Problem::spec`] of every operand, for who needs them at every run.
    pub(crate) fn all_specs(&self) -> Specs {
        Operand::ALL.map(|operand| self.spec(operand))
    }

    /// Every operand that this problem has, in the order of [`Operand::ALL`].
    pub fn specs(&self) -> impl Iterator<Item = (Operand, Spec)> + '_ {
        Operand::ALL.into_iter().filter_map(|operand| Some((operand, self.spec(operand)?)))
    }

    /// Multiplications and additions of the fused operation; a multiply-add counts two.
    pub fn flops(&self) -> u64 {
        let [m, k, n, r] =
            [self.tokens, self.in_features, self.out_features, self.rank].map(|size| size as u64);
        let multiply_adds = match (self.operation, self.gradients) {
            (Operation::Forward | Operation::BackwardInput, _) => {
                product([m, n, k]).saturating_add(product([m, r, n.saturating_add(k)]))
            }
            (Operation::BackwardShrink, _) => product([m, r, n]),
            (Operation::BackwardAdapter, Gradients::Both) => product([m, r, n.saturating_add(k)]),
            (Operation::BackwardAdapter, Gradients::A) => product([m, r, k]),
            (Operation::BackwardAdapter, Gradients::B) => product([m, r, n]),
            (Operation::Merge | Operation::Unmerge, _) => product([n, k, r]),
        };
        multiply_adds.saturating_mul(2)
    }

    /// Bytes of the operands, each read and written as often as the operation must: the
    /// least that any kernel can move.
    pub fn bytes(&self) -> u64 {
        self.specs()
            .map(|(_, spec)| match spec.access {
                Access::Read | Access::Write => spec.bytes(),
                Access::Update => spec.bytes().saturating_mul(2),
            })
            .fold(0, u64::saturating_add)
    }

    /// The checks that need nothing but the problem; [`Plan::new`](crate::Plan::new) calls it.
    pub fn validate(&self) -> Result<()> {
        for (what, got) in [("in_features", self.in_features), ("out_features", self.out_features)]
        {
            if got == 0 {
                return Err(Error::Size { what, expected: "at least 1", got });
            }
        }
        for (what, got) in [("scale", self.scale()), ("beta", self.beta())] {
            if !got.is_finite() {
                return Err(Error::Scalar { what, got });
            }
        }
        if ![self.activation, DType::F32].contains(&self.output()) {
            let (activation, got) = (self.activation, self.output());
            return Err(Error::OutputType { activation, got });
        }
        // flops() and bytes() are then far from overflow.
        if self.magnitude() > (1u64 << 60) as f64 {
            return Err(Error::Size {
                what: "tokens, in_features, out_features and rank together",
                expected: "fewer than 2^60 operations and bytes",
                got: self.tokens,
            });
        }
        for (operand, spec) in self.specs() {
            if spec.major == Major::Col && !operand.either_major() {
                return Err(Error::RowMajorOnly { operand });
            }
            let (_, cols) = spec.stored();
            if spec.stride < cols {
                return Err(Error::StrideTooSmall { operand, expected: cols, got: spec.stride });
            }
            let bytes = spec.extent().and_then(|len| len.checked_mul(spec.dtype.size()));
            if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
                return Err(Error::Overflow { operand });
            }
        }
        Ok(())
    }

    /// At least the operations and the bytes of every operation on these sizes.
    fn magnitude(&self) -> f64 {
        let [m, k, n, r] = [self.tokens, self.in_features, self.out_features, self.rank]
            .map(|size| size as f64 + 8.0);
        16.0 * (m * (n * k + r * (n + k)) + n * k * r)
    }
}
