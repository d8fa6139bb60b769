//! What is to be computed: sizes, storage types, layouts and options, and no word on how or where.
//! Made by the caller; read by `product`, the checks and the executors.

mod convolution;
mod cost;
mod layout;
mod method;
mod operand;
mod operation;
mod scalars;
mod spec;
mod validate;

use core::fmt;

pub use convolution::{Channels, Convolution};
pub(crate) use layout::{ALIGN, extent, stored};
pub use layout::{Layout, Major};
pub(crate) use method::MOST_INNER_RANK;
pub use method::{Kronecker, Method, Taps};
pub use operand::{Access, Operand};
pub use operation::{Gradients, Operation};
pub(crate) use scalars::Scalars;
pub use spec::Spec;
pub(crate) use spec::Specs;

use crate::DType;

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

/// Row length of `shrunk` and `dshrunk`, in elements: the rank rounded up to 8. With
/// [`Problem::with_precise`] on 16-bit activations it is twice that.
pub const fn shrunk_stride(rank: usize) -> usize {
    rank.div_ceil(8).saturating_mul(8)
}

/// One layer and one operation on it: everything but where the bytes are.
///
/// ```text
/// forward           y  = x·wᵀ + shrunk·bᵀ (+ bias)      shrunk  = s·x·aᵀ
///                   with a gain: y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias)
/// backward_input    dx = dy·w + dshrunk·a               dshrunk = s·dy·b
/// backward_shrink   dshrunk alone
/// backward_adapter  db = dyᵀ·shrunk   da = dshrunkᵀ·x
/// merge, unmerge    w ± s·b·a
/// compose           a, b of the factors of a Method      chain   their gradients of da, db
/// of LoKr with a whole w2: w + s·w1 ⊗ w2 for w, no shrunk, and
/// backward_adapter  dw1, dw2 of ΔW's gradient s·dyᵀ·x
/// norm              gain = magnitude / ‖w + s·b·a‖, row by row
/// backward_gain     scaled_dy = gain∘dy   dmagnitude = Σ dy∘(y − bias) / magnitude over the tokens
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
// Room for what comes: a slice offset into `shrunk` per column tile, another loader for `x`, an
// adapter index per block of rows, a counter-based mask and a quantised `w` are each one more
// private field with a builder method.
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
    gain: bool,
    precise: bool,
    tf32: bool,
    batch_invariant: bool,
    keep_shrunk: bool,
    gradients: Gradients,
    method: Method,
    convolution: Option<Convolution>,
    /// Of backward_shrink: what is shrunk is the input of the convolution, through its window.
    of_input: bool,
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
            gain: false,
            precise: false,
            tf32: false,
            batch_invariant: false,
            keep_shrunk: true,
            gradients: Gradients::Both,
            method: Method::Lora,
            convolution: None,
            of_input: false,
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

    /// The same layer on another number of tokens.
    pub fn with_tokens(self, tokens: usize) -> Problem {
        Problem { tokens, ..self }
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

    /// Storage of `a` and `b`, or of a method's factors, whose `a` and `b` are f32.
    pub fn with_adapter(self, adapter: DType) -> Problem {
        Problem { adapter, ..self }
    }

    /// Storage of `da` and `db`, or of the gradients of factors, whose `da` and `db` are f32.
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

    /// β of `β·old + new` on `y`, `dx`, `da`, `db` and the gradients of factors; 0 never reads the old values.
    pub fn with_beta(self, beta: f32) -> Problem {
        Problem { beta: Scalar::new(beta), ..self }
    }

    /// Whether `bias` is added (forward only).
    pub fn with_bias(self, bias: bool) -> Problem {
        Problem { bias, ..self }
    }

    /// Whether each output column has a factor of its own (forward only): `y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias)`.
    /// The gain is f32, whatever the other types are, and multiplies the sums before they are rounded; `shrunk` is
    /// without it. With a gain no preset named `tf32` is considered. It is DoRA's m/‖W + ΔW‖ (Liu et al.,
    /// 2024, arXiv:2402.09353, eq. 5), and with rank 0 (IA)³ on outputs (Liu et al., 2022, arXiv:2205.05638).
    pub fn with_gain(self, gain: bool) -> Problem {
        Problem { gain, ..self }
    }

    /// Keep `shrunk` in two parts of the activations' type, high and low, so that its rounding costs the
    /// adapter's term less: at most 2⁻¹⁶ of each element instead of 2⁻⁸ in bf16, 2⁻²¹ instead of
    /// 2⁻¹¹ in f16 (f32: 2⁻²⁴). Changes nothing where the activations are f32.
    ///
    /// f16 has its range in both parts: above 65504 the high part is infinite and the low one 0; below about
    /// 0.1 the low part runs out of bits, and what is lost is 3·10⁻⁸ (2⁻²⁵) whatever the element, so that from
    /// 6·10⁻⁵ down two parts hold no more than one. bf16 has f32's range.
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

    /// Under this a row's bits do not depend on its neighbours or on their number, nor on the CPU's
    /// workers: a token gets the same `y`, `dx`, `shrunk` and `dshrunk` alone and in any batch whose
    /// operands lie alike, on one device. So a served answer does not change with who else is served.
    /// It means nothing to the gradients of the adapter, which are sums over all tokens, or to merge.
    ///
    /// The plan then picks as if there were [`Problem::BATCH`] tokens (one image), whatever there are, leaves out
    /// presets for few, and shapes its launches for as many. A limit of the device may refuse what is
    /// picked where another preset would have kept it.
    ///
    /// The price, in time over the default plan's: on the CPU 4 to 5 for 1 token, 1.8 to 2.2 for 8, 1.0
    /// to 1.07 from 64 on (1280² and 4096², rank 16, f32 and bf16: `benches/results/batch-invariant.md`). On GPUs
    /// it is unmeasured; for up to 16 tokens the plans execute up to 1.24 times the operations on CUDA,
    /// and move the same bytes.
    pub fn with_batch_invariant(self, batch_invariant: bool) -> Problem {
        Problem { batch_invariant, ..self }
    }

    /// Whether `shrunk` (`dshrunk`) is an output, for [`Operation::BackwardAdapter`].
    pub fn with_keep_shrunk(self, keep_shrunk: bool) -> Problem {
        Problem { keep_shrunk, ..self }
    }

    /// Which gradients [`Operation::BackwardAdapter`] forms.
    pub fn with_gradients(self, gradients: Gradients) -> Problem {
        Problem { gradients, ..self }
    }

    /// How the factors make `a` and `b`, for [`Operation::Compose`] and [`Operation::Chain`]; `rank` is then that of
    /// the factors. What the layer's own operations see is [`Problem::composed`].
    ///
    /// ```
    /// use fused_lora::{Method, Operation, Problem};
    ///
    /// let compose = Problem::new(Operation::Compose, 0, 640, 320, 8).with_method(Method::Loha);
    /// let layer = compose.composed().with_operation(Operation::Forward).with_tokens(512);
    /// assert_eq!(layer.rank(), 64);
    /// ```
    pub fn with_method(self, method: Method) -> Problem {
        Problem { method, ..self }
    }

    /// On images: `tokens` is then [`Convolution::tokens`], and `in_features` is channels times [`Convolution::taps`].
    /// Compose, chain, merge, unmerge and norm, which see no image, take no notice of it.
    ///
    /// ```
    /// use fused_lora::{Convolution, Operand, Problem};
    ///
    /// // 320 channels to 640, 3 × 3 on 2 images of 64 × 64, every other pixel.
    /// let convolution = Convolution::new(2, [64, 64], [3, 3]).padding([1, 1]).stride([2, 2]);
    /// let problem = Problem::forward(2 * 32 * 32, 320 * 9, 640, 16).with_convolution(convolution);
    /// let x = problem.spec(Operand::X).unwrap();
    /// assert_eq!((x.rows, x.cols), (2 * 320, 64 * 64));
    /// ```
    pub fn with_convolution(self, convolution: impl Into<Option<Convolution>>) -> Problem {
        Problem { convolution: convolution.into(), ..self }
    }

    /// backward_shrink of a convolution's input: `dy` is an `x`, and `b`, `[in_features, rank]` of the layer, is aᵀ.
    pub(crate) fn with_input_shrunk(self, of_input: bool) -> Problem {
        let shrinks = self.operation == Operation::BackwardShrink && self.window().is_some();
        Problem { of_input: of_input && shrinks, ..self }
    }

    /// Whether it is that.
    pub(crate) fn shrinks_input(&self) -> bool {
        self.of_input
    }

    /// The same layer with `a` and `b` for an adapter, as [`Operation::Compose`] leaves them and
    /// [`Operation::Chain`] takes their gradients: of the inner rank, and in f32. Of LoKr with a whole w2 the same layer
    /// with its w1 and w2.
    pub fn composed(self) -> Problem {
        if self.method.kronecker().is_some() {
            return Problem { rank: 0, ..self };
        }
        Problem {
            rank: self.inner_rank(),
            method: Method::Lora,
            adapter: DType::F32,
            gradient: DType::F32,
            ..self
        }
    }

    /// How `operand` lies in its buffer.
    pub fn with_layout(mut self, operand: Operand, layout: Layout) -> Problem {
        self.set_layout(operand, layout);
        self
    }

    pub(crate) fn set_layout(&mut self, operand: Operand, layout: Layout) {
        self.layouts[operand as usize] = layout;
    }

    /// The plain layer of the same sizes: rank 0, all else alike.
    pub fn plain(self) -> Problem {
        Problem { rank: 0, method: Method::Lora, ..self }
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
    /// How the factors make `a` and `b`.
    pub fn method(&self) -> Method {
        self.method
    }
    /// What it is of images.
    pub fn convolution(&self) -> Option<Convolution> {
        self.convolution
    }

    /// [`Problem::convolution`], where that is more than a linear layer on its pixels.
    pub(crate) fn window(&self) -> Option<Convolution> {
        self.convolution.filter(|of| !of.is_linear())
    }

    /// The same layer on what a plan that is `batch_invariant` is picked for, whatever there is.
    pub(crate) fn of_batch(&self) -> Problem {
        match self.convolution {
            None => self.with_tokens(Problem::BATCH),
            Some(of) => {
                let of = Convolution { images: 1, ..of };
                self.with_convolution(of).with_tokens(of.tokens())
            }
        }
    }

    /// R, the rank of `a` and `b`: r, for LoHa r², for LoKr the rows of w1 times r, or 0 where w2 is whole.
    pub fn inner_rank(&self) -> usize {
        self.method.inner_rank(self.rank)
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

    /// What the caller said, whatever comes of it.
    pub(crate) fn asked(&self) -> [(&'static str, bool); 3] {
        let batch_invariant = ("batch_invariant", self.batch_invariant);
        [("precise", self.precise), ("tf32", self.tf32), batch_invariant]
    }

    /// Whether factors may be rounded to tf32: [`Problem::with_tf32`] on forward and
    /// backward_input of f32 activations.
    pub fn is_tf32(&self) -> bool {
        let linear = matches!(self.operation, Operation::Forward | Operation::BackwardInput);
        self.tf32 && linear && self.activation == DType::F32
    }

    /// Whether a row's bits must not depend on other rows: [`Problem::with_batch_invariant`] on
    /// forward, backward_input and backward_shrink.
    pub fn is_batch_invariant(&self) -> bool {
        use Operation::{BackwardInput, BackwardShrink, Forward};
        self.batch_invariant && matches!(self.operation, Forward | BackwardInput | BackwardShrink)
    }

    /// The tokens that [`Problem::with_batch_invariant`] picks for.
    pub const BATCH: usize = 64;

    /// Elements of one part of a row of `shrunk`: the rank rounded up to 8; the pad is zero.
    pub fn padded_rank(&self) -> usize {
        shrunk_stride(self.rank)
    }

    /// Row length of `shrunk` and `dshrunk`: one part, or with [`Problem::with_precise`] on
    /// 16-bit activations the high part followed by the low part.
    pub fn shrunk_stride(&self) -> usize {
        self.padded_rank().saturating_mul(if self.is_precise() { 2 } else { 1 })
    }
}
