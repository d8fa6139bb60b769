//! The one error type. Every variant names the operand (or the option), what was
//! expected and what came, and says what to do; each that a caller can cause is returned before anything is written or
//! launched.

mod remedy;

use core::fmt::Display;

use crate::{DType, Major, Operand, Operation, Strategy};

/// What the caller can get wrong, or a device can refuse.
///
/// Nothing has been written when an error returns, with one exception: where a device or its driver
/// fails in the middle of a plan's launches ([`Error::DeviceLost`], [`Error::Rejected`],
/// [`Error::Driver`]), the launches before may have run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What went wrong in a call, or with the operands of a plan; [`Error::cause`] has it by itself.
    #[error("{operation}: {source}")]
    Call {
        /// The call: `forward`, `backward`, `merge` or `unmerge`; or the plan's operation, as
        /// `backward_input`.
        operation: &'static str,
        /// What it was.
        source: Box<Error>,
    },
    /// A size of the problem is not one that any layer has.
    #[error("{what}: expected {expected}, got {got}; {}", remedy::size(what))]
    Size {
        /// `in_features`, `out_features`, …
        what: &'static str,
        /// In words.
        expected: &'static str,
        /// The caller's value.
        got: usize,
    },
    /// Operations on factors need a method that has some, and the layer's own operations `a` and `b`.
    #[error(
        "{operation}: not an operation on the factors of {method}; compose and chain take LoHa's or LoKr's \
         (Problem::with_method), all others a and b (Problem::composed)"
    )]
    Method {
        /// The problem's.
        operation: Operation,
        /// LoRA, LoHa or LoKr.
        method: &'static str,
    },
    /// A factor of an adapter is not one that this layer can have.
    #[error(
        "{operand}: expected {expected}, got {got:?}; the shapes of w1 and of w2 multiply to that of w"
    )]
    Factor {
        /// Which one.
        operand: Operand,
        /// In words.
        expected: &'static str,
        /// Rows and columns of the factor.
        got: [usize; 2],
    },
    /// A convolution is not one of these images with this weight.
    #[error("convolution: {what}: expected {expected}, got {got:?}; {}", remedy::convolution(what))]
    Convolution {
        /// `kernel and padded image`, `stride`, `tokens and pixels of all outputs`, …
        what: &'static str,
        /// In words.
        expected: &'static str,
        /// The numbers that do not fit: of both axes, or of both things that are named.
        got: [usize; 2],
    },
    /// An element has a value that the operation cannot use. The CPU looks before it writes; GPUs, whose memory is not read
    /// back, let it through, and it reaches its own column alone.
    #[error("{operand}: expected {expected}, got {got} at element {at}; {}", remedy::value(*operand))]
    Value {
        /// Whose.
        operand: Operand,
        /// In words.
        expected: &'static str,
        /// Which element.
        at: usize,
        /// What it is.
        got: f32,
    },
    /// `scale` or `beta` is not finite.
    #[error("{what}: expected a finite number, got {got}; {}", remedy::scalar(what))]
    Scalar {
        /// `scale` or `beta`.
        what: &'static str,
        /// The caller's value.
        got: f32,
    },
    /// A run brings a β of 0 to a plan that reads old values, or another to one that does not.
    #[error(
        "beta: expected {}, got {got}; that old values are added is planned: Problem::with_beta",
        if *planned == 0.0 { "0" } else { "a number other than 0" }
    )]
    Beta {
        /// The plan's; any other but 0 would do as well, if it is not 0.
        planned: f32,
        /// The run's.
        got: f32,
    },
    /// `y` and `dx` can be stored as the activations are, or in f32.
    #[error(
        "output: expected {activation} like the activations, or f32, got {got}; leave \
         Problem::with_output out, or give it one of these"
    )]
    OutputType {
        /// The activations'.
        activation: DType,
        /// [`Problem::with_output`](crate::Problem::with_output)'s.
        got: DType,
    },
    /// The operands belong to another operation than the plan.
    #[error(
        "operands: expected those of {expected}, got those of {got}; plan the operation that is run: \
         Problem::with_operation"
    )]
    Operation {
        /// The plan's.
        expected: Operation,
        /// The operands'.
        got: Operation,
    },
    /// The plan was made for a device of another executor.
    #[error(
        "plan: expected one for {expected}, got one for {got}; plan with the capabilities() of the \
         executor that runs it"
    )]
    Executor {
        /// The executor that was asked to run it.
        expected: &'static str,
        /// The plan's.
        got: &'static str,
    },
    /// The problem needs an operand that was not given.
    #[error("{operand}: expected, but not given; {}", remedy::missing(*operand))]
    Missing {
        /// Which one.
        operand: Operand,
    },
    /// An operand was given that the problem does not have.
    #[error("{operand}: given, but not part of this problem; {}", remedy::unexpected(*operand))]
    Unexpected {
        /// Which one.
        operand: Operand,
    },
    /// The operands ask for an option that the plan was made without.
    #[error(
        "{option}: asked for by the operands, expected of the plan as well (`Problem::with_{option}`)"
    )]
    Option {
        /// Its name.
        option: &'static str,
    },
    /// Old values are read, and the buffer was given as memory that may hold none.
    #[error(
        "{operand}: expected initialised elements, because old values are read, got `MaybeUninit`"
    )]
    Uninitialised {
        /// Which one.
        operand: Operand,
    },
    /// Rows and columns are not those of the problem.
    #[error("{operand}: expected shape {expected:?}, got {got:?}; {}", remedy::shape(*operand))]
    Shape {
        /// Which one.
        operand: Operand,
        /// `[rows, columns]` by the problem.
        expected: [usize; 2],
        /// `[rows, columns]` of the operand.
        got: [usize; 2],
    },
    /// The storage type is not that of the problem.
    #[error("{operand}: expected {expected}, got {got}; {}", remedy::dtype(*operand))]
    DType {
        /// Which one.
        operand: Operand,
        /// By the problem.
        expected: DType,
        /// The buffer's.
        got: DType,
    },
    /// The operand is stored the other way round than planned for.
    #[error(
        "{operand}: expected {expected} storage, got {got}; plan its layout: Problem::with_layout, or \
         Operands::problem_with_layouts"
    )]
    Major {
        /// Which one.
        operand: Operand,
        /// The plan's.
        expected: Major,
        /// The operand's.
        got: Major,
    },
    /// This operand can be stored row by row only.
    #[error(
        "{operand}: expected row-major storage, got column-major; store it row by row: only weights, \
         adapters and their gradients may be stored either way"
    )]
    RowMajorOnly {
        /// Which one.
        operand: Operand,
    },
    /// Stored rows would overlap each other.
    #[error(
        "{operand}: expected a stride of at least {expected} elements, got {got}; a stride counts \
         elements from one stored row to the next, which may not overlap"
    )]
    StrideTooSmall {
        /// Which one.
        operand: Operand,
        /// Elements of one stored row.
        expected: usize,
        /// The stride given.
        got: usize,
    },
    /// The stride is not the one that was planned for.
    #[error(
        "{operand}: expected the planned stride of {expected} elements, got {got}; plan the stride \
         that comes: Layout::stride, or Operands::problem_with_layouts"
    )]
    Stride {
        /// Which one.
        operand: Operand,
        /// The plan's.
        expected: usize,
        /// The operand's.
        got: usize,
    },
    /// The last element lies behind the end of the buffer.
    #[error(
        "{operand}: expected a buffer of at least {expected} elements, got {got}; its offset and its \
         stored rows, a stride apart, reach as far"
    )]
    TooShort {
        /// Which one.
        operand: Operand,
        /// Offset and extent together.
        expected: usize,
        /// The buffer's length.
        got: usize,
    },
    /// The first element is not aligned as planned for.
    #[error(
        "{operand}: expected its first element at a multiple of {expected} bytes, got address {got:#x}; \
         move it there, or plan for less: Layout::align, or Operands::problem_with_layouts"
    )]
    Misaligned {
        /// Which one.
        operand: Operand,
        /// Bytes.
        expected: usize,
        /// The byte address.
        got: u64,
    },
    /// An output shares bytes with another operand.
    #[error("{output}: must not overlap {other}; give what is written memory of its own")]
    Overlap {
        /// The operand that would be written.
        output: Operand,
        /// The operand it meets.
        other: Operand,
    },
    /// Offsets or sizes leave the address space.
    #[error("{operand}: its extent does not fit an address; its offset or its stride is too large")]
    Overflow {
        /// Which one.
        operand: Operand,
    },
    /// The workspace is smaller than [`Plan::workspace_len`](crate::Plan::workspace_len).
    #[error(
        "workspace: expected at least {expected} bytes, got {got}; make one of Plan::workspace_len \
         bytes, or grow it: the largest serves all plans"
    )]
    WorkspaceTooSmall {
        /// The plan's.
        expected: usize,
        /// The workspace's.
        got: usize,
    },
    /// No strategy and preset serve the problem; the reason for each.
    #[error("{operation}: nothing serves it on {device}: {reasons}")]
    NoStrategy {
        /// The problem's.
        operation: Operation,
        /// In words.
        device: String,
        /// Each reason, behind the candidates of which it is true.
        reasons: String,
    },
    /// The forced strategy or preset does not serve the problem, or does not exist.
    #[error("{choice}: cannot be forced on {operation}: {reason}; there is {}", list(available))]
    Forced {
        /// The problem's.
        operation: Operation,
        /// What was asked for.
        choice: String,
        /// Why not.
        reason: String,
        /// What could be forced instead, as [`Choice`](crate::Choice) reads it.
        available: Vec<String>,
    },
    /// An operand needs more of something than the device grants.
    #[error(
        "{operand}: {what}: expected at most {limit}, got {got}; run parts of it, or raise the limit \
         where the device is made"
    )]
    Limit {
        /// Which one.
        operand: Operand,
        /// The limit's name.
        what: &'static str,
        /// The device's.
        limit: u64,
        /// What the operand needs.
        got: u64,
    },
    /// More is needed than a device grants, or its kernels can have: by the problem, whatever the
    /// strategy, or by a plan that was made for another device.
    #[error(
        "{what}: expected at most {limit}, needed {got}; run parts of the problem, plan for this \
         device, or raise the limit where it is made"
    )]
    DeviceLimit {
        /// The limit's name.
        what: &'static str,
        /// The device's.
        limit: u64,
        /// What is needed.
        got: u64,
    },
    /// The device was made without a feature that is needed.
    #[error("the device has no {feature}; ask for it where the device is made, or plan without it")]
    Feature {
        /// Its name.
        feature: &'static str,
    },
    /// A buffer was made without a usage that is needed.
    #[error("{}: expected a buffer with the usage {expected}; make it with that", named(operand))]
    Usage {
        /// Which one; `None`: the workspace.
        operand: Option<Operand>,
        /// The usage's name.
        expected: &'static str,
    },
    /// WebGPU forbids one buffer as `read` and as `read_write` in a dispatch, whatever parts of
    /// it are bound.
    #[error(
        "{read} and {} are parts of one buffer, which WebGPU allows where both are declared \
         read_write: plan with WgpuCapabilities::shared_buffers",
        named(written)
    )]
    SharedBuffer {
        /// The operand that is written; `None`: the workspace.
        written: Option<Operand>,
        /// The one that is read.
        read: Operand,
    },
    /// The workspace shares bytes with an operand.
    #[error("workspace: must not overlap {operand}; give it memory of its own")]
    WorkspaceOverlap {
        /// Which one.
        operand: Operand,
    },
    /// The workspace does not begin where kernels expect it to.
    #[error(
        "workspace: expected it to begin at a multiple of {expected} bytes, got address {got:#x}; \
         allocations do"
    )]
    WorkspaceMisaligned {
        /// Bytes.
        expected: usize,
        /// The byte address.
        got: u64,
    },
    /// The device or its driver rejected a kernel, a buffer or a binding.
    #[error("{what}: rejected by the device: {reason}")]
    Rejected {
        /// The kernel's name, or that of what was to be made.
        what: String,
        /// The device's words.
        reason: String,
    },
    /// The device is gone; everything on it is.
    #[error("device lost: {reason}; make it anew, and all that was on it")]
    DeviceLost {
        /// The driver's words, or the host's.
        reason: String,
    },
    /// There is no CUDA driver on this machine.
    #[error("no CUDA driver: {reason}; install NVIDIA's, or run on another device")]
    NoDriver {
        /// What was looked for.
        reason: String,
    },
    /// The CUDA driver is older than the PTX of a kernel.
    #[error(
        "{kernel}: the driver is too old for its PTX 7.4: {reason}; update it to 470 (CUDA 11.4) or later"
    )]
    DriverTooOld {
        /// The kernel's name.
        kernel: String,
        /// The driver's words.
        reason: String,
    },
    /// An operand, a stream or a workspace belongs to another CUDA context than the executor.
    #[error(
        "{what}: expected one of the executor's CUDA context, got one of another; make it there, or \
         an executor for that: Cuda::new"
    )]
    OtherContext {
        /// The operand's name, `stream` or `workspace`.
        what: String,
    },
    /// The stream is being captured into a CUDA graph, and this call cannot be.
    #[error("stream capture: {reason}")]
    Capture {
        /// What stands against it, and what can be done.
        reason: String,
    },
    /// A call of the driver failed for a reason that has no variant of its own.
    #[error("{call}: {reason}")]
    Driver {
        /// What was asked of the driver.
        call: &'static str,
        /// Its words.
        reason: String,
    },
    /// A text that names no strategy or preset.
    #[error(
        "choice: expected `strategy`, `strategy/preset` or `auto`, got `{got}`; strategies are {}, and \
         Plan::candidates names presets",
        list(Strategy::ALL)
    )]
    Choice {
        /// The text.
        got: String,
    },
    /// A device that this machine, or this build, does not have.
    #[error("device: `{wanted}` is not available ({reason}); there is: {available}")]
    Device {
        /// The name asked for.
        wanted: String,
        /// Why not.
        reason: String,
        /// What could be had instead.
        available: String,
    },
    /// A call that waits for a GPU, in a browser, where nothing can: its answers come when the page is idle.
    #[error("{call}: a browser cannot wait for its GPU in a call; await {instead}")]
    Blocking {
        /// The call's name.
        call: &'static str,
        /// That of the one to await.
        instead: &'static str,
    },
    /// A tensor lives on another device than the one that was to run the plan.
    #[error(
        "{operand}: expected a tensor of {expected}, got one of {got}; copy it there: Device::tensor"
    )]
    OtherDevice {
        /// Which one.
        operand: Operand,
        /// The device that was asked to run.
        expected: String,
        /// The tensor's.
        got: String,
    },
    /// The shape of a tensor and the data for it disagree.
    #[error(
        "tensor of shape {shape:?}: expected {expected} elements, got {got}; give rows · columns of \
         them, row by row"
    )]
    TensorLen {
        /// `[rows, columns]`.
        shape: [usize; 2],
        /// Their product.
        expected: usize,
        /// The length of the data.
        got: usize,
    },
    /// Memory could not be had, on the host or on the device.
    #[error("out of memory: {} could not be had; free some, or run fewer tokens at a time", bytes_of(*bytes))]
    OutOfMemory {
        /// What was asked for; 0 where only the device knows.
        bytes: usize,
    },
    /// The threads of an executor could not be started.
    #[error("threads: {reason}; ask for fewer, or use Cpu::new, on rayon's own")]
    Threads {
        /// The operating system's word.
        reason: String,
    },
    /// An adapter file that is damaged, or whose mathematics is not LoRA's.
    #[error("adapter {path}: {reason}")]
    Adapter {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was asked for.
fn bytes_of(bytes: usize) -> String {
    match bytes {
        0 => "what the device needs".to_owned(),
        bytes => format!("{bytes} bytes"),
    }
}

/// `a, b and c`.
fn list<T: Display>(of: &[T]) -> String {
    let names: Vec<String> = of.iter().map(T::to_string).collect();
    match names.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// An operand's name in a message, or the workspace's.
fn named(operand: &Option<Operand>) -> &'static str {
    operand.map_or("workspace", Operand::name)
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

// Frameworks box errors and send them between threads.
const _: () = {
    const fn is_send_sync_static<T: Send + Sync + 'static>() {}
    is_send_sync_static::<Error>();
};

impl Error {
    /// The error itself, without the operation in which it arose.
    pub fn cause(&self) -> &Error {
        match self {
            Error::Call { source, .. } => source.cause(),
            own => own,
        }
    }

    /// The same as of an operation. A call's name takes the place of its steps' names, which are not
    /// the caller's words.
    pub(crate) fn of(operation: &'static str) -> impl Fn(Error) -> Error {
        move |error| match error {
            Error::Call { source, .. } => Error::Call { operation, source },
            own => Error::Call { operation, source: Box::new(own) },
        }
    }
}
