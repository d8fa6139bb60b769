//! Puts one launch together: its WGSL text with the bindings and the parameter block that the text
//! declares, so that the three cannot disagree. Called by the kernels' files; the text's own files
//! lie in `shaders/`.
//!
//! A kernel's file offers what there is: numbers, operands, and the parts that it chose. What of it
//! shapes the text is its form (`form`), apart from the values that go into the parameter block. A
//! form is rendered once (`render`) and kept (`rendered`); every launch of it only fills values in.

mod form;
mod forms;
mod params;
pub(super) mod part;
pub(super) mod parts;
mod render;
mod rendered;
mod seen;
#[cfg(test)]
mod tests;
mod windows;

use self::form::{Binds, Flag, Form, Name, PartRef, Piece};
use self::forms::{reading, writing};
use self::params::{Matrix, Value};
use self::part::Part;
pub(super) use self::part::Word;
use self::parts::chosen;
use super::WgpuCapabilities;
use super::layer::{Bind, Load, Output, Seen};
use super::matrix::StoredMatrix;
use crate::plan::{Binding, Launch};
use crate::problem::Scalars;
use crate::product::{Multiplier, Old};
use crate::{Access, DType, Operand, Result};

/// The parameters that a run brings.
const SCALE: &str = "scale";
const BETA: &str = "beta";
/// The type of all scratch.
const SCRATCH: DType = DType::F32;

/// A launch that is being put together.
pub(super) struct Shader<'a> {
    wgpu: &'a WgpuCapabilities,
    form: Form,
    /// Of each parameter of the form.
    values: Vec<Value>,
    /// Of each buffer of the form.
    buffers: Vec<Bound>,
    has_scale: bool,
    has_beta: bool,
}

/// Which operand a buffer is, and the stored rows that are bound of it; none: the workspace.
#[derive(Debug, Clone, Copy)]
struct Bound {
    operand: Option<Operand>,
    access: Access,
    rows: Option<(usize, usize)>,
}

/// The size of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Bytes of workgroup memory.
    pub(super) smem_bytes: u32,
}

impl<'a> Shader<'a> {
    pub(super) fn new(wgpu: &'a WgpuCapabilities) -> Shader<'a> {
        Shader {
            wgpu,
            form: Form::new(wgpu),
            values: Vec::with_capacity(16),
            buffers: Vec::with_capacity(8),
            has_scale: false,
            has_beta: false,
        }
    }

    /// `const NAME: u32 = value;`
    pub(super) fn constant(&mut self, name: &'static str, value: usize) {
        self.form.push(Piece::Constant(name, value));
    }

    /// `const OUT_ROW_MAJOR: bool = value;`
    pub(super) fn row_major(&mut self, out: &'static str, value: bool) {
        self.form.push(Piece::Flag(Flag::RowMajor(out), value));
    }

    /// `p.name`, a number.
    pub(super) fn uint(&mut self, name: &'static str, value: usize) {
        self.form.push(Piece::Uint(name));
        self.values.push(Value::Uint(value));
    }

    /// `p.scale`, which a run writes anew.
    pub(super) fn scale(&mut self, factor: Multiplier, of: Scalars) {
        self.has_scale = factor != Multiplier::One;
        self.float(SCALE, factor.value(of));
    }

    /// `p.beta`, which a run writes anew where it reads old values.
    pub(super) fn beta(&mut self, old: Old, of: Scalars) {
        self.has_beta = old == Old::Beta;
        self.float(BETA, old.value(of));
    }

    /// `p.name`, a factor.
    fn float(&mut self, name: &'static str, value: f32) {
        self.form.push(Piece::Float(name));
        self.values.push(Value::Float(value));
    }

    /// Lines that end in `// where name` are rendered.
    pub(super) fn condition(&mut self, name: &'static str, holds: bool) {
        if holds {
            self.form.push(Piece::Condition(name));
        }
    }

    /// A part, for what it gives with these words.
    pub(super) fn offer<const N: usize>(
        &mut self,
        part: &'static Part,
        words: [(Word, &'static str); N],
    ) {
        let mut all = [None; 3];
        for (to, (word, name)) in all.iter_mut().zip(words) {
            *to = Some((word, name));
        }
        self.form.push(Piece::Part(PartRef(part), all));
    }

    /// `add_left_right`, by a part that multiplies. `whole`: the sum has no steps behind its end.
    pub(super) fn product(
        &mut self,
        part: &'static Part,
        left: &'static str,
        right: &'static str,
        whole: bool,
    ) {
        self.form.push(Piece::Flag(Flag::Whole(left, right), whole));
        self.offer(part, [(Word::Left, left), (Word::Right, right)]);
    }

    /// The launch.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected), with the name that nothing gives.
    pub(super) fn launch(self, kernel: &'static Part, size: Size) -> Result<Launch> {
        let Shader { form, values, buffers, has_scale, has_beta, .. } = self;
        let rendered = rendered::of(kernel, form)?;
        let mut params = vec![0; rendered.params];
        for (value, at) in values.into_iter().zip(&rendered.places) {
            if let Some(at) = at {
                value.write(&mut params[*at as usize..]);
            }
        }
        let binding = |&(buffer, at): &(usize, Option<u32>)| {
            let Bound { operand, access, rows } = *buffers.get(buffer)?;
            Some(Binding { operand, access, rows, at })
        };
        Ok(Launch {
            source: Some(rendered.source.clone()),
            grid: size.grid,
            block: size.block,
            shared_bytes: size.smem_bytes,
            bindings: rendered.buffers.iter().filter_map(binding).collect(),
            params,
            scale_at: rendered.scale.filter(|_| has_scale),
            beta_at: rendered.beta.filter(|_| has_beta),
            ..Launch::of(kernel.name)
        })
    }
}

impl Shader<'_> {
    fn operand(&mut self, name: Name, operand: Operand, matrix: &StoredMatrix, access: Access) {
        let io = match access {
            Access::Read => reading(matrix, self.wgpu.f16),
            Access::Write | Access::Update => writing(matrix, self.wgpu.f16),
        };
        self.operand_by(name, operand, matrix, access, io);
    }

    fn operand_by(
        &mut self,
        name: Name,
        operand: Operand,
        matrix: &StoredMatrix,
        access: Access,
        io: forms::Form,
    ) {
        let binds = match access {
            Access::Read if !self.wgpu.shared_buffers => Binds::Read,
            _ => Binds::ReadWrite,
        };
        let (element, part) = (io.element, PartRef(io.part));
        self.form.push(Piece::Operand { name, binds, element, part, dtype: matrix.dtype });
        self.buffers.push(Bound { operand: Some(operand), access, rows: matrix.window });
        // The executor adds where the first element lies.
        self.matrix(matrix, 0);
    }

    fn matrix(&mut self, of: &StoredMatrix, offset: usize) {
        let (stride, last_row, last_col) = (of.stride, of.bound_rows() - 1, of.cols - 1);
        self.values.push(Value::Matrix(Matrix { offset, stride, last_row, last_col }));
    }

    /// `const NAME_K_MAJOR: bool`, of an operand that has it by another name.
    pub(super) fn k_major(&mut self, name: &'static str, load: &Load) {
        self.form.push(Piece::Flag(Flag::KMajor(name), load.k_major));
    }
}

impl Bind for Shader<'_> {
    fn read(&mut self, name: &'static str, load: &Load) {
        self.k_major(name, load);
        let named = if let Seen::Stored = load.seen { name } else { seen::stored(name) };
        self.operand(Name::Whole(named), load.operand, &load.matrix, Access::Read);
        match load.seen {
            Seen::Stored | Seen::Formed => {}
            Seen::Window(window, first) => {
                self.sees(name, &window, first, load.matrix.groups(4));
            }
            Seen::Turned(of, is_rows) => self.turns(name, of, is_rows),
        }
    }

    fn read_windows(&mut self, name: &'static str, load: &Load, rows: usize) {
        let matrix = load.matrix;
        if rows >= matrix.rows {
            return self.read(name, load);
        }
        self.k_major(name, load);
        for (at, first) in (0..matrix.rows).step_by(rows).enumerate() {
            let window = matrix.window((first, rows.min(matrix.rows - first)));
            self.operand(Name::Window(name, at), load.operand, &window, Access::Read);
        }
        self.form.push(Piece::Windows(name, matrix.rows.div_ceil(rows)));
    }

    fn write(&mut self, name: &'static str, output: &Output) {
        let (matrix, access) = (&output.matrix, output.access);
        let Some(planes) = output.planes else {
            return self.operand(Name::Whole(name), output.operand, matrix, access);
        };
        let (element, part) = seen::writing(matrix.dtype);
        let io = forms::Form { element, part };
        self.operand_by(Name::Whole(name), output.operand, matrix, access, io);
        self.planes(name, planes);
    }

    fn scratch(
        &mut self,
        name: &'static str,
        matrix: &StoredMatrix,
        offset: usize,
        access: Access,
    ) {
        if self.buffers.iter().all(|of| of.operand.is_some()) {
            self.form.push(Piece::Workspace);
            self.buffers.push(Bound { operand: None, access: Access::Update, rows: None });
        }
        let part = match access {
            Access::Read => &chosen::READ_F32X4,
            Access::Write | Access::Update => &chosen::WRITE_F32X4,
        };
        self.form.push(Piece::Scratch(name, PartRef(part)));
        self.matrix(matrix, offset);
    }
}
