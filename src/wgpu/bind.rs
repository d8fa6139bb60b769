//! From operands to bindings: which bytes of which buffer each binding of a launch is, the
//! parameters with the offsets filled in, and every refusal that can be known beforehand.
//! Called by `prepared`; creates nothing on the device.

use super::{Inner, Slice, Workspace, planned, wgpu};
use crate::operands::{Checked, CheckedOperand};
use crate::plan::{LEAST_BINDING, Window, read_write};
use crate::problem::ALIGN;
use crate::{
    Access, Binding, Error, Launch, Operand, Operands, Plan, Result, Scaled, WgpuCapabilities,
};

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
    Placeholder,
}

/// One binding: its bytes, and whether the shader declares it `read_write`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) span: Span<'a>,
    pub(super) read_write: bool,
}

/// One launch, ready to be bound: its bindings, and its parameter block.
#[derive(Debug)]
pub(super) struct BoundLaunch<'a> {
    pub(super) bindings: Vec<Bound<'a>>,
    pub(super) params: Vec<u8>,
}

/// An operand that was checked, and the buffer that its bytes are in.
#[derive(Debug, Clone, Copy)]
struct Part<'a, 's> {
    operand: Operand,
    buffer: &'a wgpu::Buffer,
    checked: CheckedOperand<'s>,
}

impl<'a, 's> Part<'a, 's> {
    fn new(operand: Operand, checked: &CheckedOperand<'s>, slice: Slice<'a>) -> Result<Self> {
        let buffer = slice.buffer();
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage { operand: Some(operand), expected: "STORAGE" });
        }
        // Where its layout says nothing the plan reads vectors.
        let vectors = checked.spec.align == 0 && checked.bytes > 0;
        let expected = if vectors { ALIGN } else { checked.spec.dtype.size() };
        let got = checked.address;
        if !got.is_multiple_of(expected as u64) {
            return Err(Error::Misaligned { operand, expected, got });
        }
        Ok(Part { operand, buffer, checked: *checked })
    }

    /// The binding of these rows, and how many elements into it the first one begins.
    fn span(
        &self,
        rows: Option<(usize, usize)>,
        planned: &WgpuCapabilities,
        granted: &WgpuCapabilities,
    ) -> Result<(Span<'a>, u32)> {
        let CheckedOperand { spec, address, .. } = self.checked;
        let (operand, size) = (self.operand, spec.dtype.size() as u64);
        let window = Window::new(spec, rows, address, planned.binding_align);
        let Some(Window { start, end, offset }) = window else {
            return Ok((Span::Placeholder, 0));
        };
        let room = self.buffer.size() & !3;
        if end > room {
            let elements = |bytes: u64| usize::try_from(bytes / size).unwrap_or(usize::MAX);
            let (expected, got) = (elements(end), elements(self.buffer.size()));
            return Err(Error::TooShort { operand, expected, got });
        }
        let len = (end - start).max(LEAST_BINDING.min(room - start));
        let limit = granted.binding_bytes;
        if len > limit {
            let what = "bytes of a storage binding";
            return Err(Error::Limit { operand, what, limit, got: len });
        }
        Ok((Span::Bytes { buffer: self.buffer, start, len }, offset))
    }
}

/// Checks everything, and says what to bind for each launch of a plan.
pub(super) fn bind<'a>(
    inner: &Inner,
    scaled: Scaled<'_>,
    operands: Operands<Slice<'a>, Slice<'a>>,
    workspace: Workspace<'a>,
) -> Result<Vec<BoundLaunch<'a>>> {
    let plan = scaled.plan();
    let planned = planned(plan)?;
    let checked = operands.checked(plan.problem().operation(), plan.specs())?;
    let parts = parts(&checked, operands)?;
    let scratch = scratch(plan, workspace, inner.granted.binding_align)?;
    if let Span::Bytes { buffer, start, len } = scratch {
        for part in parts.iter().flatten().filter(|part| part.buffer == buffer) {
            let CheckedOperand { address, bytes, .. } = part.checked;
            if bytes > 0 && address < start + len && start < address + bytes {
                return Err(Error::WorkspaceOverlap { operand: part.operand });
            }
        }
    }
    let mut bound = Vec::with_capacity(plan.launches().len());
    for launch in plan.launches() {
        let mut params = launch.params.clone();
        scaled.write(launch, &mut params);
        let mut bindings = Vec::with_capacity(launch.bindings.len());
        for binding in &launch.bindings {
            let &Binding { operand, rows, at, .. } = binding;
            let span = match operand {
                None => scratch,
                Some(operand) => {
                    let part =
                        parts[operand as usize].as_ref().ok_or(Error::Missing { operand })?;
                    let (span, offset) = part.span(rows, planned, &inner.granted)?;
                    if let Some(at) = at {
                        params[at as usize..][..4].copy_from_slice(&offset.to_le_bytes());
                    }
                    span
                }
            };
            bindings.push(Bound { span, read_write: read_write(operand, binding.access, planned) });
        }
        check_shared_buffers(launch, &bindings)?;
        bound.push(BoundLaunch { bindings, params });
    }
    Ok(bound)
}

fn parts<'a, 's>(
    checked: &Checked<'s>,
    mut operands: Operands<Slice<'a>, Slice<'a>>,
) -> Result<[Option<Part<'a, 's>>; Operand::COUNT]> {
    let mut parts = [None; Operand::COUNT];
    for (operand, of) in checked.iter() {
        let matrix = match of.spec.access {
            Access::Read => operands.take_read(operand)?,
            Access::Write | Access::Update => operands.take_written(operand)?,
        };
        parts[operand as usize] = Some(Part::new(operand, of, matrix.buffer)?);
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
    let Some(buffer) = buffer.filter(|_| expected > 0) else { return Ok(Span::Placeholder) };
    if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::Usage { operand: None, expected: "STORAGE" });
    }
    let len = (expected as u64).next_multiple_of(4).max(LEAST_BINDING.min(bytes));
    Ok(Span::Bytes { buffer, start, len })
}

/// WebGPU forbids one buffer as `read` and as `read_write` in a dispatch, whatever the ranges.
fn check_shared_buffers(launch: &Launch, bindings: &[Bound<'_>]) -> Result<()> {
    let of = |read_write| {
        let all = launch.bindings.iter().zip(bindings);
        all.filter(move |(_, bound)| bound.read_write == read_write).filter_map(|(of, bound)| {
            match bound.span {
                Span::Bytes { buffer, .. } => Some((of.operand, buffer)),
                Span::Placeholder => None,
            }
        })
    };
    for (read, buffer) in of(false) {
        // What is declared `read` is an operand: the workspace never is.
        let Some(read) = read else { continue };
        if let Some((written, _)) = of(true).find(|(_, other)| *other == buffer) {
            return Err(Error::SharedBuffer { written, read });
        }
    }
    Ok(())
}
