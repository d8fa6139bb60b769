//! From operands to bindings: which bytes of which buffer each binding of a launch is, the
//! parameters with the offsets filled in, and every refusal that can be known beforehand.
//! Called by `prepared`; makes nothing on the device.

use super::kernels::read_write;
use super::{Shared, Slice, Workspace, planned, wgpu};
use crate::problem::extent;
use crate::{
    Access, Binding, Error, Launch, Matrix, Operand, Operands, Plan, Problem, Result, Spec,
    WgpuCapabilities,
};

/// A storage binding has at least so many bytes where its buffer does: what a shader
/// declares may be as large as a vector of four words.
const LEAST: u64 = 16;

/// Bytes of a buffer that are bound.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span<'a> {
    Bytes {
        buffer: &'a wgpu::Buffer,
        start: u64,
        len: u64,
    },
    /// An operand without elements: WebGPU binds no empty range, so it gets bytes that
    /// nobody looks at.
    Nothing,
}

/// One launch, ready to be bound: its bindings, and its parameter block.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    pub(super) spans: Vec<Span<'a>>,
    pub(super) params: Vec<u8>,
}

/// An operand's bytes.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    operand: Operand,
    buffer: &'a wgpu::Buffer,
    /// Byte of the first element.
    start: u64,
    spec: Spec,
}

impl<'a> Part<'a> {
    fn new(operand: Operand, spec: Spec, matrix: &Matrix<Slice<'a>>) -> Result<Part<'a>> {
        let buffer = matrix.buffer.buffer();
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage { operand: Some(operand), expected: "STORAGE" });
        }
        let size = spec.dtype.size();
        // Operands::check found it within the buffer.
        let start = matrix.buffer.start() + (matrix.offset * size) as u64;
        if !start.is_multiple_of(size as u64) {
            return Err(Error::Misaligned { operand, expected: size, got: start });
        }
        Ok(Part { operand, buffer, start, spec })
    }

    /// Where stored rows `first .. first + count` begin, and how many bytes they take.
    fn rows(&self, first: usize, count: usize) -> (u64, u64) {
        let (_, cols) = self.spec.stored();
        let size = self.spec.dtype.size() as u64;
        let extent = extent(count, cols, self.spec.stride).unwrap_or(usize::MAX) as u64 * size;
        (self.start + first as u64 * self.spec.stride as u64 * size, extent)
    }

    /// The binding of these rows, and how many elements into it the first one begins.
    fn span(
        &self,
        rows: Option<(usize, usize)>,
        planned: &WgpuCapabilities,
        granted: &WgpuCapabilities,
    ) -> Result<(Span<'a>, u32)> {
        let (operand, size) = (self.operand, self.spec.dtype.size() as u64);
        let (first, count) = rows.unwrap_or((0, self.spec.stored().0));
        let (begin, bytes) = self.rows(first, count);
        if bytes == 0 {
            return Ok((Span::Nothing, 0));
        }
        let start = begin - begin % u64::from(planned.binding_align);
        // Whole words are bound: the last one may belong to a neighbour in part.
        let end = (begin + bytes).next_multiple_of(4);
        let room = self.buffer.size() & !3;
        if end > room {
            let elements = |bytes: u64| usize::try_from(bytes / size).unwrap_or(usize::MAX);
            let (expected, got) = (elements(end), elements(self.buffer.size()));
            return Err(Error::TooShort { operand, expected, got });
        }
        let len = (end - start).max(LEAST.min(room - start));
        let limit = granted.binding_bytes;
        if len > limit {
            let what = "bytes of a storage binding";
            return Err(Error::Limit { operand, what, limit, got: len });
        }
        // Less than the alignment, which is a u32.
        let offset = ((begin - start) / size) as u32;
        Ok((Span::Bytes { buffer: self.buffer, start, len }, offset))
    }
}

/// Checks everything, and says what to bind for each launch of `plan`.
pub(super) fn bind<'a>(
    shared: &Shared,
    plan: &Plan,
    operands: Operands<Slice<'a>, Slice<'a>>,
    workspace: Workspace<'a>,
) -> Result<Vec<Bound<'a>>> {
    let (problem, planned) = (plan.problem(), planned(plan)?);
    operands.check(problem)?;
    let parts = parts(problem, operands)?;
    let scratch = scratch(plan, workspace, shared.granted.binding_align)?;
    if let Span::Bytes { buffer, start, len } = scratch {
        for part in parts.iter().flatten().filter(|part| part.buffer == buffer) {
            let (begin, bytes) = part.rows(0, part.spec.stored().0);
            if bytes > 0 && begin < start + len && start < begin + bytes {
                return Err(Error::WorkspaceOverlap { operand: part.operand });
            }
        }
    }
    let mut bound = Vec::with_capacity(plan.launches().len());
    for launch in plan.launches() {
        let mut params = launch.params.clone();
        let mut spans = Vec::with_capacity(launch.bindings.len());
        for &Binding { operand, rows, at, .. } in &launch.bindings {
            let Some(operand) = operand else {
                spans.push(scratch);
                continue;
            };
            let part = parts[operand as usize].as_ref().ok_or(Error::Missing { operand })?;
            let (span, offset) = part.span(rows, planned, &shared.granted)?;
            if let Some(at) = at {
                params[at as usize..][..4].copy_from_slice(&offset.to_le_bytes());
            }
            spans.push(span);
        }
        check_shared(launch, planned, &spans)?;
        bound.push(Bound { spans, params });
    }
    Ok(bound)
}

fn parts<'a>(
    problem: &Problem,
    mut operands: Operands<Slice<'a>, Slice<'a>>,
) -> Result<[Option<Part<'a>>; Operand::COUNT]> {
    let mut parts = [None; Operand::COUNT];
    for (operand, spec) in problem.specs() {
        let matrix = match spec.access {
            Access::Read => operands.take_read(operand)?,
            Access::Write | Access::Update => operands.take_written(operand)?,
        };
        parts[operand as usize] = Some(Part::new(operand, spec, &matrix)?);
    }
    Ok(parts)
}

fn scratch<'a>(plan: &Plan, workspace: Workspace<'a>, align: u32) -> Result<Span<'a>> {
    let expected = plan.workspace_len();
    let Workspace { buffer, start, end } = workspace;
    let start = start.next_multiple_of(align.into());
    let bytes = (end & !3).saturating_sub(start);
    let got = usize::try_from(bytes).unwrap_or(usize::MAX);
    if got < expected {
        return Err(Error::WorkspaceTooSmall { expected, got });
    }
    let Some(buffer) = buffer.filter(|_| expected > 0) else { return Ok(Span::Nothing) };
    if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::Usage { operand: None, expected: "STORAGE" });
    }
    let len = (expected as u64).next_multiple_of(4).max(LEAST.min(bytes));
    Ok(Span::Bytes { buffer, start, len })
}

/// WebGPU forbids one buffer as `read` and as `read_write` in a dispatch, whatever the ranges.
fn check_shared(launch: &Launch, planned: &WgpuCapabilities, spans: &[Span<'_>]) -> Result<()> {
    let declared = read_write(launch, planned);
    let buffer = |at: usize| match spans[at] {
        Span::Bytes { buffer, .. } => Some(buffer),
        Span::Nothing => None,
    };
    let of = |read_write| (0..spans.len()).filter(move |&at: &usize| declared[at] == read_write);
    for read in of.clone()(false) {
        for written in of.clone()(true) {
            if buffer(read).is_some() && buffer(read) == buffer(written) {
                let written = launch.bindings[written].operand;
                // What is declared `read` is an operand: the workspace never is.
                let Some(read) = launch.bindings[read].operand else { continue };
                return Err(Error::SharedBuffer { written, read });
            }
        }
    }
    Ok(())
}
