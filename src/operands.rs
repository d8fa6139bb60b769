//! Where the bytes are: the caller's buffers, each with its shape, offset, stride and
//! major, and the checks against a [`Problem`]. Generic over the buffer, so that slices,
//! device pointers and wgpu buffers are checked by the same lines.

use crate::problem::{Specs, extent, stored};
use crate::{Access, DType, Error, Layout, Major, Operand, Operation, Problem, Result, Spec};

/// Where a buffer lies, as far as the checks for overlap need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Places in different allocations never overlap. Host memory and CUDA's unified
    /// addresses are one allocation each; every wgpu buffer is one of its own.
    pub allocation: u64,
    /// Address of the buffer's first byte within the allocation.
    pub byte: u64,
}

/// What the checks ask of a caller's buffer.
pub trait Buffer {
    /// Storage type of the elements.
    fn dtype(&self) -> DType;
    /// Elements that may be addressed.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Where the first element lies.
    fn place(&self) -> Place;
}

/// A matrix in a caller's buffer.
///
/// Shapes are those of [`Operand`]'s table, whatever the [`Major`]: a transposed weight is
/// still `[out_features, in_features]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix<B> {
    /// The buffer.
    pub buffer: B,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from the start of the buffer to the first element of the matrix.
    pub offset: usize,
    /// Elements from one stored row to the next.
    pub stride: usize,
    /// Which index is contiguous.
    pub major: Major,
}

impl<B> Matrix<B> {
    /// Row-major `[rows, cols]` at the start of `buffer`, without gaps.
    pub fn new(buffer: B, rows: usize, cols: usize) -> Matrix<B> {
        Matrix { buffer, rows, cols, offset: 0, stride: cols, major: Major::Row }
    }

    /// `[rows, cols]` whose columns are contiguous, without gaps: the buffer holds the
    /// transpose, row by row.
    pub fn transposed(buffer: B, rows: usize, cols: usize) -> Matrix<B> {
        Matrix { buffer, rows, cols, offset: 0, stride: rows, major: Major::Col }
    }

    /// A bias of `len` elements: one row.
    pub fn vector(buffer: B, len: usize) -> Matrix<B> {
        Matrix::new(buffer, 1, len)
    }

    /// The same matrix, its first element `offset` elements into the buffer.
    pub fn at(self, offset: usize) -> Matrix<B> {
        Matrix { offset, ..self }
    }

    /// The same matrix, its stored rows `stride` elements apart.
    pub fn strided(self, stride: usize) -> Matrix<B> {
        Matrix { stride, ..self }
    }

    /// The same matrix over another handle to its buffer.
    pub fn map<C>(self, f: impl FnOnce(B) -> C) -> Matrix<C> {
        let Matrix { buffer, rows, cols, offset, stride, major } = self;
        Matrix { buffer: f(buffer), rows, cols, offset, stride, major }
    }

    /// [`Matrix::map`] with a handle that may not be had.
    pub fn try_map<C, E>(self, f: impl FnOnce(B) -> Result<C, E>) -> Result<Matrix<C>, E> {
        let Matrix { buffer, rows, cols, offset, stride, major } = self;
        Ok(Matrix { buffer: f(buffer)?, rows, cols, offset, stride, major })
    }
}

/// Operands of [`Operation::Forward`].
#[derive(Debug)]
pub struct Forward<I, O> {
    /// `[tokens, in_features]`.
    pub x: Matrix<I>,
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// `[1, out_features]`.
    pub bias: Option<Matrix<I>>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, out_features]`.
    pub y: Matrix<O>,
    /// `[tokens, shrunk_stride]`, where the problem keeps it.
    pub shrunk: Option<Matrix<O>>,
}

/// The two factors of an adapter.
#[derive(Debug, Clone, Copy)]
pub struct Adapter<I> {
    /// lora_A `[rank, in_features]`.
    pub a: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
}

/// Operands of [`Operation::BackwardInput`].
#[derive(Debug)]
pub struct BackwardInput<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// `[out_features, in_features]`.
    pub w: Matrix<I>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
    /// `[tokens, in_features]`.
    pub dx: Matrix<O>,
    /// `[tokens, shrunk_stride]`, where the problem keeps it.
    pub dshrunk: Option<Matrix<O>>,
}

/// Operands of [`Operation::BackwardShrink`].
#[derive(Debug)]
pub struct BackwardShrink<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// lora_B `[out_features, rank]`.
    pub b: Matrix<I>,
    /// `[tokens, shrunk_stride]`.
    pub dshrunk: Matrix<O>,
}

/// Operands of [`Operation::BackwardAdapter`]: of each pair below both or neither.
#[derive(Debug)]
pub struct BackwardAdapter<I, O> {
    /// What `da` needs, and where it goes.
    pub a: Option<GradientA<I, O>>,
    /// What `db` needs, and where it goes.
    pub b: Option<GradientB<I, O>>,
}

/// `da = dshrunkᵀ·x`.
#[derive(Debug)]
pub struct GradientA<I, O> {
    /// `[tokens, in_features]`.
    pub x: Matrix<I>,
    /// `[tokens, shrunk_stride]`, as [`Operation::BackwardInput`] left it.
    pub dshrunk: Matrix<I>,
    /// `[rank, in_features]`.
    pub da: Matrix<O>,
}

/// `db = dyᵀ·shrunk`.
#[derive(Debug)]
pub struct GradientB<I, O> {
    /// `[tokens, out_features]`.
    pub dy: Matrix<I>,
    /// `[tokens, shrunk_stride]`, as [`Operation::Forward`] left it.
    pub shrunk: Matrix<I>,
    /// `[out_features, rank]`.
    pub db: Matrix<O>,
}

/// Operands of [`Operation::Merge`] and [`Operation::Unmerge`].
#[derive(Debug)]
pub struct Merge<I, O> {
    /// `[out_features, in_features]`, changed in place.
    pub w: Matrix<O>,
    /// The adapter; `None` for rank 0.
    pub adapter: Option<Adapter<I>>,
}

/// The operands of one operation, by name. `I` is a buffer that is read, `O` one that is
/// written. Made from [`Forward`], [`BackwardInput`], [`BackwardShrink`], [`BackwardAdapter`] or
/// [`Merge`], or operand by operand. Two arrays, so that nothing is allocated on the way to a kernel.
#[derive(Debug)]
pub struct Operands<I, O> {
    operation: Operation,
    read: [Option<Matrix<I>>; Operand::COUNT],
    written: [Option<Matrix<O>>; Operand::COUNT],
}

impl<I, O> Operands<I, O> {
    /// No operands yet, for `operation`.
    pub fn new(operation: Operation) -> Operands<I, O> {
        Operands {
            operation,
            read: [const { None }; Operand::COUNT],
            written: [const { None }; Operand::COUNT],
        }
    }

    /// With `matrix` as an operand that is read.
    pub fn read(mut self, operand: Operand, matrix: impl Into<Option<Matrix<I>>>) -> Self {
        self.read[operand as usize] = matrix.into();
        self
    }

    /// With `matrix` as an operand that is written.
    pub fn written(mut self, operand: Operand, matrix: impl Into<Option<Matrix<O>>>) -> Self {
        self.written[operand as usize] = matrix.into();
        self
    }

    // In place, for the way to a kernel: the builders above move all operands every time.
    fn set_read(&mut self, operand: Operand, matrix: Option<Matrix<I>>) {
        self.read[operand as usize] = matrix;
    }

    fn set_written(&mut self, operand: Operand, matrix: Option<Matrix<O>>) {
        self.written[operand as usize] = matrix;
    }

    fn set_adapter(&mut self, adapter: Option<Adapter<I>>) {
        let (a, b) = adapter.map(|Adapter { a, b }| (a, b)).unzip();
        self.set_read(Operand::A, a);
        self.set_read(Operand::B, b);
    }

    /// The operation these operands belong to; [`Operation::Merge`] serves both directions.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// An operand that is read, taken out.
    pub fn take_read(&mut self, operand: Operand) -> Result<Matrix<I>> {
        self.read[operand as usize].take().ok_or(Error::Missing { operand })
    }

    /// An operand that is written, taken out.
    pub fn take_written(&mut self, operand: Operand) -> Result<Matrix<O>> {
        self.written[operand as usize].take().ok_or(Error::Missing { operand })
    }

    /// The same operands over other handles to their buffers.
    pub fn try_map<J, P, E>(
        mut self,
        mut read: impl FnMut(Operand, I) -> Result<J, E>,
        mut written: impl FnMut(Operand, O) -> Result<P, E>,
    ) -> Result<Operands<J, P>, E> {
        let mut mapped = Operands::new(self.operation);
        // Taken one by one: most places are empty, and none of those is moved.
        for operand in Operand::ALL {
            if let Some(matrix) = self.read[operand as usize].take() {
                let matrix = matrix.try_map(|buffer| read(operand, buffer))?;
                mapped.set_read(operand, Some(matrix));
            }
            if let Some(matrix) = self.written[operand as usize].take() {
                let matrix = matrix.try_map(|buffer| written(operand, buffer))?;
                mapped.set_written(operand, Some(matrix));
            }
        }
        Ok(mapped)
    }
}

impl<I, O> From<Forward<I, O>> for Operands<I, O> {
    fn from(of: Forward<I, O>) -> Self {
        let mut operands = Operands::new(Operation::Forward);
        operands.set_read(Operand::X, Some(of.x));
        operands.set_read(Operand::W, Some(of.w));
        operands.set_read(Operand::Bias, of.bias);
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::Y, Some(of.y));
        operands.set_written(Operand::Shrunk, of.shrunk);
        operands
    }
}

impl<I, O> From<BackwardInput<I, O>> for Operands<I, O> {
    fn from(of: BackwardInput<I, O>) -> Self {
        let mut operands = Operands::new(Operation::BackwardInput);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::W, Some(of.w));
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::Dx, Some(of.dx));
        operands.set_written(Operand::Dshrunk, of.dshrunk);
        operands
    }
}

impl<I, O> From<BackwardShrink<I, O>> for Operands<I, O> {
    fn from(of: BackwardShrink<I, O>) -> Self {
        let mut operands = Operands::new(Operation::BackwardShrink);
        operands.set_read(Operand::Dy, Some(of.dy));
        operands.set_read(Operand::B, Some(of.b));
        operands.set_written(Operand::Dshrunk, Some(of.dshrunk));
        operands
    }
}

impl<I, O> From<BackwardAdapter<I, O>> for Operands<I, O> {
    fn from(of: BackwardAdapter<I, O>) -> Self {
        let mut operands = Operands::new(Operation::BackwardAdapter);
        if let Some(GradientA { x, dshrunk, da }) = of.a {
            operands.set_read(Operand::X, Some(x));
            operands.set_read(Operand::Dshrunk, Some(dshrunk));
            operands.set_written(Operand::Da, Some(da));
        }
        if let Some(GradientB { dy, shrunk, db }) = of.b {
            operands.set_read(Operand::Dy, Some(dy));
            operands.set_read(Operand::Shrunk, Some(shrunk));
            operands.set_written(Operand::Db, Some(db));
        }
        operands
    }
}

impl<I, O> From<Merge<I, O>> for Operands<I, O> {
    fn from(of: Merge<I, O>) -> Self {
        let mut operands = Operands::new(Operation::Merge);
        operands.set_adapter(of.adapter);
        operands.set_written(Operand::W, Some(of.w));
        operands
    }
}

/// One operand with the buffer's type forgotten: all that the checks need.
#[derive(Debug, Clone, Copy)]
struct View {
    operand: Operand,
    dtype: DType,
    len: usize,
    place: Place,
    rows: usize,
    cols: usize,
    offset: usize,
    stride: usize,
    major: Major,
}

impl View {
    fn of<B: Buffer>(operand: Operand, matrix: &Option<Matrix<B>>) -> Option<View> {
        let matrix = matrix.as_ref()?;
        Some(View {
            operand,
            dtype: matrix.buffer.dtype(),
            len: matrix.buffer.len(),
            place: matrix.buffer.place(),
            rows: matrix.rows,
            cols: matrix.cols,
            offset: matrix.offset,
            stride: matrix.stride,
            major: matrix.major,
        })
    }

    /// Address of the first element. Wraps only where [`View::check`] has refused already.
    fn address(&self) -> u64 {
        let offset = (self.offset as u64).wrapping_mul(self.dtype.size() as u64);
        self.place.byte.wrapping_add(offset)
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        let operand = self.operand;
        let (expected, got) = ([spec.rows, spec.cols], [self.rows, self.cols]);
        if expected != got {
            return Err(Error::Shape { operand, expected, got });
        }
        if spec.dtype != self.dtype {
            return Err(Error::DType { operand, expected: spec.dtype, got: self.dtype });
        }
        if spec.major != self.major {
            return Err(Error::Major { operand, expected: spec.major, got: self.major });
        }
        let (rows, cols) = stored(self.rows, self.cols, self.major);
        if self.stride < cols {
            return Err(Error::StrideTooSmall { operand, expected: cols, got: self.stride });
        }
        if spec.stride != self.stride && rows > 1 {
            return Err(Error::Stride { operand, expected: spec.stride, got: self.stride });
        }
        let end = extent(rows, cols, self.stride)
            .and_then(|extent| extent.checked_add(self.offset))
            .filter(|end| {
                let bytes = end.checked_mul(self.dtype.size());
                bytes.is_some_and(|bytes| self.place.byte.checked_add(bytes as u64).is_some())
            })
            .ok_or(Error::Overflow { operand })?;
        if end > self.len {
            return Err(Error::TooShort { operand, expected: end, got: self.len });
        }
        if spec.align > 1 && !self.address().is_multiple_of(spec.align as u64) {
            return Err(Error::Misaligned { operand, expected: spec.align, got: self.address() });
        }
        Ok(())
    }

    /// Whether the two share a byte. Column slices of one buffer, side by side with one
    /// stride, do not.
    fn overlaps(&self, other: &View) -> bool {
        if self.place.allocation != other.place.allocation {
            return false;
        }
        let bytes = |view: &View| {
            let (rows, cols) = stored(view.rows, view.cols, view.major);
            let size = view.dtype.size() as u64;
            let extent = extent(rows, cols, view.stride).unwrap_or(0) as u64 * size;
            // The stride of a single row and the columns of no row may be any number.
            let bytes = |elements: usize| (elements as u64).saturating_mul(size);
            (view.address(), extent, bytes(cols), bytes(view.stride), rows)
        };
        let (start, extent, row, pitch, rows) = bytes(self);
        let (other_start, other_extent, other_row, other_pitch, other_rows) = bytes(other);
        if extent == 0
            || other_extent == 0
            || start >= other_start.saturating_add(other_extent)
            || other_start >= start.saturating_add(extent)
        {
            return false;
        }
        if pitch == other_pitch && rows > 1 && other_rows > 1 {
            // Both repeat with one pitch: compare a single period.
            let (first, first_row, second_row) = if start <= other_start {
                ((other_start - start) % pitch, row, other_row)
            } else {
                ((start - other_start) % pitch, other_row, row)
            };
            return first < first_row || first + second_row > pitch;
        }
        true
    }
}

impl<I: Buffer, O: Buffer> Operands<I, O> {
    /// Checks every operand against `problem`: that it is there, its shape, storage type,
    /// major, stride, length and alignment, and that no output overlaps another operand.
    /// Executors call this before they touch anything.
    pub fn check(&self, problem: &Problem) -> Result<()> {
        self.check_specs(problem.operation(), &problem.all_specs())
    }

    /// [`Operands::check`] against what a plan has worked out once. On the way to every
    /// kernel, so it goes over each operand once.
    pub(crate) fn check_specs(&self, expected: Operation, specs: &Specs) -> Result<()> {
        let got = self.operation;
        let merge = |of| matches!(of, Operation::Merge | Operation::Unmerge);
        if expected != got && !(merge(expected) && merge(got)) {
            return Err(Error::Operation { expected, got });
        }
        // What is there, outputs first.
        let mut views = [None; Operand::COUNT];
        let (mut outputs, mut inputs) = (0, Operand::COUNT);
        for operand in Operand::ALL {
            let at = operand as usize;
            let (is_read, is_written) = (self.read[at].is_some(), self.written[at].is_some());
            let Some(spec) = &specs[at] else {
                if is_read || is_written {
                    return Err(Error::Unexpected { operand });
                }
                continue;
            };
            let reads = spec.access == Access::Read;
            if if reads { is_written } else { is_read } {
                return Err(Error::Unexpected { operand });
            }
            let view = match reads {
                true => View::of(operand, &self.read[at]),
                false => View::of(operand, &self.written[at]),
            };
            let view = view.ok_or(Error::Missing { operand })?;
            view.check(spec)?;
            if reads {
                inputs -= 1;
                views[inputs] = Some(view);
            } else {
                views[outputs] = Some(view);
                outputs += 1;
            }
        }
        for first in 0..outputs {
            for second in (first + 1..outputs).chain(inputs..Operand::COUNT) {
                let (Some(output), Some(other)) = (&views[first], &views[second]) else { continue };
                if output.overlaps(other) {
                    return Err(Error::Overlap { output: output.operand, other: other.operand });
                }
            }
        }
        Ok(())
    }

    /// The byte address of each operand, and the bytes up to the end of its last element: for
    /// executors whose buffers lie in one allocation.
    #[cfg(feature = "cuda")]
    pub(crate) fn spans(&self) -> [Option<(u64, u64)>; Operand::COUNT] {
        let mut spans = [None; Operand::COUNT];
        for view in self.views() {
            let (rows, cols) = stored(view.rows, view.cols, view.major);
            let elements = extent(rows, cols, view.stride).unwrap_or(0);
            let bytes = elements as u64 * view.dtype.size() as u64;
            spans[view.operand as usize] = Some((view.address(), bytes));
        }
        spans
    }

    /// `problem` with the layouts of these operands: majors, strides, and the alignment that each
    /// address happens to have, up to the 16 bytes that kernels ask for at most: a plan for them
    /// then serves every buffer that lies as well.
    pub fn lay_out(&self, problem: Problem) -> Problem {
        self.views().fold(problem, |problem, view| {
            let align = 1usize << view.address().trailing_zeros().min(4);
            let layout = Layout { major: view.major, stride: Some(view.stride), align };
            problem.with_layout(view.operand, layout)
        })
    }

    fn views(&self) -> impl Iterator<Item = View> + '_ {
        Operand::ALL.into_iter().flat_map(|operand| {
            let read = View::of(operand, &self.read[operand as usize]);
            let written = View::of(operand, &self.written[operand as usize]);
            read.into_iter().chain(written)
        })
    }
}
