//! The one check of operands against what a plan expects: shapes, types, layouts, lengths,
//! alignment, overlap. Its result, a list of where each operand lies, is what all executors go by.

use super::{Buffer, Matrix, Operands, Place};
use crate::problem::{ALIGN, Specs, extent, stored};
use crate::{Access, DType, Error, Layout, Major, Operand, Operation, Problem, Result, Spec};

/// An operand that was checked: what the plan knows of it, and where its bytes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedOperand<'a> {
    /// The plan's.
    pub(crate) spec: &'a Spec,
    /// Byte of its first element in its allocation: of the address space, or of a wgpu buffer.
    pub(crate) address: u64,
    /// Bytes from there to the end of its last element.
    pub(crate) bytes: u64,
}

/// Every operand of a run, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'a>([Option<CheckedOperand<'a>>; Operand::COUNT]);

impl<'a> Checked<'a> {
    /// `operand`, if the problem has it.
    #[cfg(feature = "cuda")]
    pub(crate) fn get(&self, operand: Operand) -> Option<&CheckedOperand<'a>> {
        self.0[operand as usize].as_ref()
    }

    /// Those that the problem has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Operand, &CheckedOperand<'a>)> {
        let all = Operand::ALL.iter().zip(&self.0);
        all.filter_map(|(&operand, checked)| Some((operand, checked.as_ref()?)))
    }
}

/// An operand as the caller gave it, without the type of its buffer.
#[derive(Debug, Clone, Copy)]
struct Given {
    operand: Operand,
    dtype: DType,
    len: usize,
    place: Place,
    initialised: bool,
    rows: usize,
    cols: usize,
    offset: usize,
    stride: usize,
    major: Major,
}

impl Given {
    fn new<B: Buffer>(operand: Operand, matrix: &Option<Matrix<B>>) -> Option<Given> {
        let matrix = matrix.as_ref()?;
        Some(Given {
            operand,
            dtype: matrix.buffer.dtype(),
            len: matrix.buffer.len(),
            place: matrix.buffer.place(),
            initialised: matrix.buffer.is_initialised(),
            rows: matrix.rows,
            cols: matrix.cols,
            offset: matrix.offset,
            stride: matrix.stride,
            major: matrix.major,
        })
    }

    /// Address of the first element. Wraps only where [`Given::check`] refuses.
    fn address(&self) -> u64 {
        let offset = (self.offset as u64).wrapping_mul(self.dtype.size() as u64);
        self.place.byte.wrapping_add(offset)
    }

    fn check<'a>(&self, spec: &'a Spec) -> Result<CheckedOperand<'a>> {
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
        let overflow = Error::Overflow { operand };
        let Some(extent) = extent(rows, cols, self.stride) else { return Err(overflow) };
        let in_bytes = |end: &usize| {
            let bytes = end.checked_mul(self.dtype.size())?;
            self.place.byte.checked_add(bytes as u64)
        };
        let end = extent.checked_add(self.offset).filter(|end| in_bytes(end).is_some());
        let Some(end) = end else { return Err(overflow) };
        if end > self.len {
            return Err(Error::TooShort { operand, expected: end, got: self.len });
        }
        let address = self.address();
        if spec.align > 1 && !address.is_multiple_of(spec.align as u64) {
            return Err(Error::Misaligned { operand, expected: spec.align, got: address });
        }
        if spec.access == Access::Update && !self.initialised {
            return Err(Error::Uninitialised { operand });
        }
        let bytes = extent as u64 * self.dtype.size() as u64;
        Ok(CheckedOperand { spec, address, bytes })
    }
}

/// Where a checked operand lies, for the question whether two share a byte.
#[derive(Debug, Clone, Copy)]
struct Region {
    operand: Operand,
    allocation: u64,
    start: u64,
    /// From the first to the last element, gaps included.
    bytes: u64,
    rows: usize,
    /// Bytes of a stored row, and from one to the next. Of a single row the latter may be any
    /// number.
    row: u64,
    pitch: u64,
}

impl Region {
    fn new(given: &Given, checked: &CheckedOperand<'_>) -> Region {
        let Spec { dtype, .. } = *checked.spec;
        let (rows, cols) = checked.spec.stored();
        let bytes = |elements: usize| (elements as u64).saturating_mul(dtype.size() as u64);
        Region {
            operand: given.operand,
            allocation: given.place.allocation,
            start: checked.address,
            bytes: checked.bytes,
            rows,
            row: bytes(cols),
            pitch: bytes(given.stride),
        }
    }

    /// Column slices of one buffer, side by side with one stride, share no byte.
    fn overlaps(&self, other: &Region) -> bool {
        let end = |of: &Region| of.start.saturating_add(of.bytes);
        if self.allocation != other.allocation
            || self.bytes == 0
            || other.bytes == 0
            || self.start >= end(other)
            || other.start >= end(self)
        {
            return false;
        }
        if self.pitch == other.pitch && self.rows > 1 && other.rows > 1 {
            // Both repeat with one pitch: compare a single period.
            let (first, second) =
                if self.start <= other.start { (self, other) } else { (other, self) };
            let apart = (second.start - first.start) % self.pitch;
            return apart < first.row || apart + second.row > self.pitch;
        }
        true
    }
}

impl<I: Buffer, O: Buffer> Operands<I, O> {
    /// Checks every operand against `problem`: that it is there, its shape, storage type,
    /// major, stride, length and alignment, and that no output overlaps another operand.
    /// Executors do this before they touch anything.
    ///
    /// # Errors
    /// [`Error::Operation`], or an [`Error::Call`] that names the problem's operation and holds what is
    /// wrong with which operand.
    pub fn check(&self, problem: &Problem) -> Result<()> {
        self.checked(problem.operation(), &problem.all_specs()).map(drop)
    }

    /// [`Operands::check`] against the specs that a plan has worked out; where each operand is.
    /// On the way to every kernel, so it goes over each operand once.
    pub(crate) fn checked<'a>(&self, expected: Operation, specs: &'a Specs) -> Result<Checked<'a>> {
        let got = self.operation;
        let merges = |of| matches!(of, Operation::Merge | Operation::Unmerge);
        if expected != got && !(merges(expected) && merges(got)) {
            return Err(Error::Operation { expected, got });
        }
        self.checked_against(specs).map_err(Error::of(expected.name()))
    }

    /// [`Operands::check`] of operands that may belong to several operations.
    pub(super) fn checked_against<'a>(&self, specs: &'a Specs) -> Result<Checked<'a>> {
        let mut checked = Checked([None; Operand::COUNT]);
        // Outputs from the front, inputs from the back.
        let mut regions = [None; Operand::COUNT];
        let (mut outputs, mut inputs) = (0, Operand::COUNT);
        for (at, &operand) in Operand::ALL.iter().enumerate() {
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
            let given = match reads {
                true => Given::new(operand, &self.read[at]),
                false => Given::new(operand, &self.written[at]),
            };
            let given = given.ok_or(Error::Missing { operand })?;
            let found = given.check(spec)?;
            let place = if reads {
                inputs -= 1;
                inputs
            } else {
                outputs += 1;
                outputs - 1
            };
            regions[place] = Some(Region::new(&given, &found));
            checked.0[at] = Some(found);
        }
        for first in 0..outputs {
            for second in (first + 1..outputs).chain(inputs..Operand::COUNT) {
                let (Some(output), Some(other)) = (&regions[first], &regions[second]) else {
                    continue;
                };
                if output.overlaps(other) {
                    return Err(Error::Overlap { output: output.operand, other: other.operand });
                }
            }
        }
        Ok(checked)
    }

    /// `problem` with the layouts of these operands: majors, strides, and the alignment that each
    /// address happens to have where that is less than the 16 bytes of [`Layout::align`]'s default: a
    /// plan for them then serves every buffer that lies as well.
    pub fn problem_with_layouts(&self, problem: Problem) -> Problem {
        let mut problem = problem;
        for (at, &operand) in Operand::ALL.iter().enumerate() {
            let (read, written) = (&self.read[at], &self.written[at]);
            let given = Given::new(operand, read).or_else(|| Given::new(operand, written));
            let Some(given) = given else { continue };
            let align = match 1usize << given.address().trailing_zeros().min(4) {
                ALIGN => 0,
                less => less,
            };
            let (_, cols) = stored(given.rows, given.cols, given.major);
            // Without gaps as it is without a word, so that equal problems are equal.
            let stride = (given.stride != cols).then_some(given.stride);
            // In place: a problem is long to copy, and this is on the way to every call.
            problem.set_layout(operand, Layout { major: given.major, stride, align });
        }
        problem
    }
}
