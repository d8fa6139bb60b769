//! Puts one launch together: its WGSL text with the bindings and the parameter block that the text
//! declares, so that the three cannot disagree. Called by the kernels' files; the text's own files
//! lie in `shaders/`.
//!
//! A kernel's file offers what there is: numbers, operands, and the parts that it chose. What the
//! kernel and its parts need of it is rendered, each once, and nothing else: enables, constants,
//! parameters, buffers, the kernel, and below it the parts in the order in which they are needed.

mod forms;
mod params;
pub(super) mod part;
pub(super) mod parts;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use self::forms::{reading, writing};
use self::params::{Matrix, Params, Scalar};
pub(super) use self::part::Word;
use self::part::{Part, Words};
use self::parts::chosen;
use self::windows::Windows;
use super::WgpuCapabilities;
use super::layer::{Bind, Load, Output};
use super::matrix::StoredMatrix;
use crate::plan::{Binding, Language, Launch, Source};
use crate::problem::Scalars;
use crate::product::{Multiplier, Old};
use crate::{Access, DType, Error, Operand, Result};

/// The buffer in which the plan keeps what goes from one launch to the next.
const WORKSPACE: &str = "workspace";
/// The parameters that a run brings.
const SCALE: &str = "scale";
const BETA: &str = "beta";

/// A launch that is being put together.
pub(super) struct Shader<'a> {
    wgpu: &'a WgpuCapabilities,
    constants: Vec<(String, String, bool)>,
    params: Params,
    has_scale: bool,
    has_beta: bool,
    buffers: Vec<Buffer>,
    offers: Vec<Offer>,
    /// What `// where` of a line may ask for, beside operands.
    conditions: Vec<String>,
    /// Names that the text has.
    met: HashSet<String>,
    parts: String,
}

struct Buffer {
    name: String,
    operand: Option<Operand>,
    access: Access,
    rows: Option<(usize, usize)>,
    element: &'static str,
    needed: bool,
}

/// Something that can be rendered, and the names that it then gives.
struct Offer {
    what: Offered,
    gives: Vec<String>,
}

enum Offered {
    Part(&'static Part, Words),
    Windows(Windows),
}

/// The size of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Bytes of workgroup memory.
    pub(super) smem_bytes: u32,
}

impl Size {
    /// Threads of all workgroups.
    pub(super) fn threads(&self) -> u64 {
        self.grid.into_iter().chain(self.block).map(u64::from).product()
    }
}

impl<'a> Shader<'a> {
    pub(super) fn new(wgpu: &'a WgpuCapabilities) -> Shader<'a> {
        Shader {
            wgpu,
            constants: Vec::new(),
            params: Params::default(),
            has_scale: false,
            has_beta: false,
            buffers: Vec::new(),
            offers: Vec::new(),
            conditions: Vec::new(),
            met: HashSet::new(),
            // Most texts are shorter.
            parts: String::with_capacity(16 << 10),
        }
    }

    /// `const NAME: u32 = value;`
    pub(super) fn constant(&mut self, name: &str, value: usize) {
        self.constants.push((name.to_owned(), format!("u32 = {value}u"), false));
    }

    /// `const NAME: bool = value;`
    pub(super) fn flag(&mut self, name: String, value: bool) {
        self.constants.push((name, format!("bool = {value}"), false));
    }

    /// `p.name`, a number.
    pub(super) fn uint(&mut self, name: &str, value: usize) {
        self.params.scalar(name.to_owned(), Scalar::Uint(value));
    }

    /// `p.scale`, which a run writes anew.
    pub(super) fn scale(&mut self, factor: Multiplier, of: Scalars) {
        self.has_scale = factor != Multiplier::One;
        self.params.scalar(SCALE.to_owned(), Scalar::Float(factor.value(of)));
    }

    /// `p.beta`, which a run writes anew where it reads old values.
    pub(super) fn beta(&mut self, old: Old, of: Scalars) {
        self.has_beta = old == Old::Beta;
        self.params.scalar(BETA.to_owned(), Scalar::Float(old.value(of)));
    }

    /// Lines that end in `// where name` are rendered.
    pub(super) fn condition(&mut self, name: &str, holds: bool) {
        if holds {
            self.conditions.push(name.to_owned());
        }
    }

    /// A part, for what it gives with these words.
    pub(super) fn offer<const N: usize>(&mut self, part: &'static Part, words: [(Word, &str); N]) {
        let words = Words::new(words);
        let gives = part.giving_with(&words);
        self.offers.push(Offer { what: Offered::Part(part, words), gives });
    }

    /// `add_left_right`, by a part that multiplies. `whole`: the sum has no steps behind its end.
    pub(super) fn product(&mut self, part: &'static Part, left: &str, right: &str, whole: bool) {
        self.flag(format!("{left}_{right}_WHOLE"), whole);
        self.offer(part, [(Word::Left, left), (Word::Right, right)]);
    }

    /// The launch.
    ///
    /// # Errors
    /// [`Error::Rejected`], with the name that nothing gives.
    pub(super) fn launch(mut self, kernel: &'static Part, size: Size) -> Result<Launch> {
        let words = Words::default();
        self.add(kernel, &words, kernel.giving_with(&words))?;

        let mut text = String::with_capacity(self.parts.len() + (4 << 10));
        if self.buffers.iter().any(|of| of.needed && of.element.contains("f16")) {
            text.push_str("enable f16;\n\n");
        }
        for (name, value, _) in self.constants.iter().filter(|of| of.2) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "const {name}: {value};");
        }
        text.push('\n');
        let (params, offsets) = self.params.render(&mut text);
        text.push('\n');
        let offset = |name: &str| offsets.iter().find(|(field, _)| *field == name).map(|of| of.1);
        let mut bindings = Vec::new();
        for of in self.buffers.iter().filter(|of| of.needed) {
            let mode = match of.access {
                Access::Read if !self.wgpu.shared_buffers => "read",
                _ => "read_write",
            };
            let (at, Buffer { name, element, .. }) = (bindings.len(), of);
            let declared = format!("var<storage, {mode}> {name}: array<{element}>;");
            let _ = writeln!(text, "@group(0) @binding({at}) {declared}");
            let offset = offset(name);
            let (operand, access, rows) = (of.operand, of.access, of.rows);
            bindings.push(Binding { operand, access, rows, at: offset });
        }
        let space = if self.wgpu.storage_params { "storage, read" } else { "uniform" };
        let _ = writeln!(text, "@group(0) @binding({}) var<{space}> p: Params;", bindings.len());
        text.push_str(&self.parts);
        let entry = kernel.name;
        Ok(Launch {
            source: Some(Source { language: Language::Wgsl, text: Arc::from(text), entry }),
            grid: size.grid,
            block: size.block,
            shared_bytes: size.smem_bytes,
            bindings,
            scale_at: offset(SCALE).filter(|_| self.has_scale),
            beta_at: offset(BETA).filter(|_| self.has_beta),
            params,
            ..Launch::of(entry)
        })
    }

    /// Renders what gives `need`, where nothing did so far.
    fn meet(&mut self, need: String, by: &str) -> Result<()> {
        // Every text declares it.
        if self.met.contains(&need) || need == "Matrix" {
            return Ok(());
        }
        let is_param = need.strip_prefix("p.").is_some_and(|field| self.params.need(field));
        if is_param {
            // Declared with the others.
        } else if let Some(of) = self.constants.iter_mut().find(|of| of.0 == need) {
            of.2 = true;
        } else if let Some(of) = self.buffers.iter_mut().find(|of| of.name == need) {
            of.needed = true;
        } else if let Some(at) = self.offers.iter().position(|of| of.gives.contains(&need)) {
            let Offer { what, gives } = self.offers.swap_remove(at);
            match what {
                Offered::Part(part, words) => return self.add(part, &words, gives),
                Offered::Windows(of) => {
                    self.met.extend(gives);
                    of.render(&mut self.parts);
                    return of.needs().into_iter().try_for_each(|need| self.meet(need, &of.name));
                }
            }
        } else if let Some((part, words)) = parts::giving(&need) {
            return self.add(part, &words, part.giving_with(&words));
        } else {
            let reason = format!("no part gives `{need}`, which `{by}` needs");
            return Err(Error::Rejected { what: by.to_owned(), reason });
        }
        self.met.insert(need);
        Ok(())
    }

    /// Renders a part, and below it those that it needs.
    fn add(&mut self, part: &'static Part, words: &Words, gives: Vec<String>) -> Result<()> {
        let mut text = std::mem::take(&mut self.parts);
        text.push('\n');
        self.met.extend(gives);
        part.render(&mut text, words, |name| self.has(name));
        self.parts = text;
        part.needs(words, |name| self.has(name))
            .into_iter()
            .try_for_each(|need| self.meet(need, part.name))
    }

    /// Whether `// where name` holds.
    fn has(&self, name: &str) -> bool {
        self.conditions.iter().any(|of| of == name)
    }

    fn bind(
        &mut self,
        name: String,
        operand: Option<Operand>,
        access: Access,
        rows: Option<(usize, usize)>,
        element: &'static str,
    ) {
        self.buffers.push(Buffer { name, operand, access, rows, element, needed: false });
    }
}

impl Shader<'_> {
    fn operand(&mut self, name: &str, operand: Operand, matrix: &StoredMatrix, access: Access) {
        let form = match access {
            Access::Read => reading(matrix, self.wgpu.f16),
            Access::Write | Access::Update => writing(matrix, self.wgpu.f16),
        };
        // The executor adds where the first element lies.
        self.matrix(name, matrix, 0);
        self.bind(name.to_owned(), Some(operand), access, matrix.window, form.element);
        let dtype = matrix.dtype.to_string();
        let words = [(Word::Name, name), (Word::Buffer, name), (Word::DType, &*dtype)];
        self.offer(form.part, words);
    }

    fn matrix(&mut self, name: &str, of: &StoredMatrix, offset: usize) {
        let (stride, last_row, last_col) = (of.stride, of.bound_rows() - 1, of.cols - 1);
        self.params.matrix(name, Matrix { offset, stride, last_row, last_col });
        self.condition(name, true);
    }
}

impl Bind for Shader<'_> {
    fn read(&mut self, name: &'static str, load: &Load) {
        self.flag(format!("{name}_K_MAJOR"), load.k_major);
        self.operand(name, load.operand, &load.matrix, Access::Read);
    }

    fn read_windows(&mut self, name: &'static str, load: &Load, rows: usize) {
        let matrix = load.matrix;
        if rows >= matrix.rows {
            return self.read(name, load);
        }
        self.flag(format!("{name}_K_MAJOR"), load.k_major);
        for (at, first) in (0..matrix.rows).step_by(rows).enumerate() {
            let window = matrix.window((first, rows.min(matrix.rows - first)));
            self.operand(&format!("{name}{at}"), load.operand, &window, Access::Read);
        }
        let (name, windows) = (name.to_owned(), matrix.rows.div_ceil(rows));
        let windows = Windows { name, windows };
        let gives = windows.gives().collect();
        self.offers.push(Offer { what: Offered::Windows(windows), gives });
    }

    fn write(&mut self, name: &'static str, output: &Output) {
        self.operand(name, output.operand, &output.matrix, output.access);
    }

    fn scratch(&mut self, name: &str, matrix: &StoredMatrix, offset: usize, access: Access) {
        if !self.buffers.iter().any(|of| of.operand.is_none()) {
            self.bind(WORKSPACE.to_owned(), None, Access::Update, None, "vec4<f32>");
        }
        self.matrix(name, matrix, offset);
        let part = match access {
            Access::Read => &chosen::READ_F32X4,
            Access::Write | Access::Update => &chosen::WRITE_F32X4,
        };
        let dtype = DType::F32.to_string();
        let words = [(Word::Name, name), (Word::Buffer, WORKSPACE), (Word::DType, &*dtype)];
        self.offer(part, words);
    }
}
