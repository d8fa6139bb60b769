//! Assembles one launch: its WGSL text together with the bindings and the parameter block
//! that the text declares, so that the three cannot disagree. Called by the functions that
//! lay out each kernel; the files it puts together lie in `shaders/`.
//!
//! A text is const lines, the parameter block, the declared buffers, parts (functions that
//! read and write one operand by row and column) and the kernel's body. Parts are rendered
//! by putting names in the place of the words NAME, BUFFER, DTYPE, LEFT, RIGHT and OUT.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::WgpuCapabilities;
use crate::plan::{Binding, Language, Launch, Source};
use crate::{Access, DType, Operand, Spec};

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/parts/", $name, ".wgsl"))
    };
}

/// The kernels' bodies.
pub(super) const DECODE: &str = include_str!("../../../shaders/decode.wgsl");
pub(super) const LINEAR: &str = include_str!("../../../shaders/linear.wgsl");
pub(super) const BORDERED: &str = include_str!("../../../shaders/bordered.wgsl");
pub(super) const SUBGROUP: &str = include_str!("../../../shaders/subgroup.wgsl");
pub(super) const SUBGROUP_SHRINK: &str = include_str!("../../../shaders/subgroup_shrink.wgsl");
pub(super) const SHRINK: &str = include_str!("../../../shaders/shrink.wgsl");
pub(super) const GRADIENT: &str = include_str!("../../../shaders/gradient.wgsl");
pub(super) const SUM: &str = include_str!("../../../shaders/sum.wgsl");
pub(super) const MERGE: &str = include_str!("../../../shaders/merge.wgsl");

/// Products: straight from memory, with one side by shuffles, and through workgroup memory.
const SHUFFLED: &str = concat!(part!("columns"), part!("shuffled"));
const PRODUCT: &str = concat!(part!("columns"), part!("product"));
const PRODUCT_ONE: &str = concat!(part!("column"), part!("product_one"));
pub(super) const STAGED: &str = concat!(part!("stage_left"), part!("stage_right"), part!("staged"));
/// How a subgroup shares a tile.
pub(super) const SHARES: &str = part!("subgroup");
/// How the parts of sums meet.
pub(super) const MEET: &str = part!("meet");
/// What `bordered` needs of its operands.
pub(super) const STAGE_LEFT: &str = part!("stage_left");
pub(super) const STAGE_RIGHT: &str = part!("stage_right");
const COLUMN: &str = part!("column");
/// shrunk meets b.
const BORDER: &str = part!("border");
/// What becomes of the sums of y and of shrunk.
pub(super) const FINISH: &str = part!("finish");
pub(super) const FINISH_SHRUNK: &str = part!("shrunk");
/// A product over tokens.
const OUTER: &str = part!("outer");

/// A stored matrix, or some stored rows of it, as a kernel sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) dtype: DType,
    /// Stored rows and columns.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Elements from one stored row to the next.
    pub(super) stride: usize,
    /// Bytes of which the first element's address is a multiple.
    pub(super) align: usize,
    /// The stored rows that are bound; `None`: all.
    pub(super) window: Option<(usize, usize)>,
}

impl View {
    /// All of an operand.
    pub(super) fn new(spec: &Spec) -> View {
        let (rows, cols) = spec.stored();
        View {
            dtype: spec.dtype,
            rows,
            cols,
            // Of a single row it means nothing, and may be any number.
            stride: if rows > 1 { spec.stride } else { cols },
            align: spec.align,
            window: None,
        }
    }

    /// f32 in the workspace: rows without gaps, aligned.
    pub(super) fn scratch(rows: usize, cols: usize) -> View {
        View { dtype: DType::F32, rows, cols, stride: cols, align: 16, window: None }
    }

    /// `count` stored rows from `first` on.
    pub(super) fn window(self, first: usize, count: usize) -> View {
        match (first, count) == (0, self.rows) {
            true => self,
            false => View { window: Some((first, count)), ..self },
        }
    }

    /// Bytes that `rows` stored rows span.
    pub(super) fn bytes_of_rows(&self, rows: usize) -> u64 {
        let elements = rows.saturating_sub(1) as u64 * self.stride as u64 + self.cols as u64;
        elements * self.dtype.size() as u64
    }

    /// Bytes of the elements themselves.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_of(self.rows)
    }

    /// Of those in `rows` stored rows.
    pub(super) fn bytes_of(&self, rows: usize) -> u64 {
        (rows as u64 * self.cols as u64).saturating_mul(self.dtype.size() as u64)
    }

    /// How many stored rows at most span `bytes`.
    pub(super) fn rows_in(&self, bytes: u64) -> usize {
        let elements = bytes / self.dtype.size() as u64;
        match elements.checked_sub(self.cols as u64) {
            None => 0,
            Some(rest) => (rest / self.stride.max(1) as u64) as usize + 1,
        }
    }

    /// Whether rows begin at multiples of `of` elements, and hold a multiple of as many.
    fn groups(&self, of: usize) -> bool {
        let bytes = of * self.dtype.size();
        let begins = self.align > 0
            && self.align.is_multiple_of(bytes)
            && (self.rows <= 1 || self.stride.is_multiple_of(of));
        begins && self.cols.is_multiple_of(of)
    }
}

/// How a buffer is declared, and the part that reads or writes it.
struct Form {
    element: &'static str,
    part: &'static str,
}

fn form(element: &'static str, part: &'static str) -> Form {
    Form { element, part }
}

fn reading(view: &View, native: bool) -> Form {
    match (view.dtype, native && view.dtype == DType::F16, view.groups(4)) {
        (DType::F32, _, false) => form("f32", part!("read_f32")),
        (DType::F32, _, true) => form("vec4<f32>", part!("read_f32x4")),
        (_, true, false) => form("f16", part!("read_f16_native")),
        (_, true, true) => form("vec4<f16>", part!("read_f16x4_native")),
        (_, false, false) => form("u32", part!("read_16")),
        (_, false, true) => form("vec2<u32>", part!("read_16x4")),
    }
}

fn writing(view: &View, native: bool) -> Form {
    match (view.dtype, view.groups(4), view.groups(2)) {
        (DType::F32, true, _) => form("vec4<f32>", part!("write_f32x4")),
        (DType::F32, false, _) => form("f32", part!("write_f32")),
        (_, true, _) => form("vec2<u32>", part!("write_16x4")),
        (_, _, true) => form("u32", part!("write_16")),
        (DType::F16, ..) if native => form("f16", part!("write_f16_native")),
        _ => form("atomic<u32>", part!("write_16_ragged")),
    }
}

/// A launch that is being put together.
pub(super) struct Text<'a> {
    wgpu: &'a WgpuCapabilities,
    constants: String,
    fields: String,
    buffers: String,
    /// Rendered parts; those of the dtypes by name, each once.
    parts: String,
    words: BTreeMap<&'static str, &'static str>,
    bindings: Vec<Binding>,
    params: Vec<u8>,
    workspace: bool,
    f16: bool,
}

impl<'a> Text<'a> {
    pub(super) fn new(wgpu: &'a WgpuCapabilities) -> Text<'a> {
        Text {
            wgpu,
            constants: String::new(),
            fields: String::new(),
            buffers: String::new(),
            parts: String::new(),
            words: BTreeMap::new(),
            bindings: Vec::new(),
            params: Vec::new(),
            workspace: false,
            f16: false,
        }
    }

    /// `const NAME: u32 = value;`
    pub(super) fn constant(&mut self, name: &str, value: usize) {
        writeln!(self.constants, "const {name}: u32 = {value}u;").expect("a String");
    }

    /// `const NAME: bool = value;`
    pub(super) fn flag(&mut self, name: &str, value: bool) {
        writeln!(self.constants, "const {name}: bool = {value};").expect("a String");
    }

    /// Four numbers of the parameter block.
    pub(super) fn uints(&mut self, name: &str, values: [usize; 4]) -> u32 {
        let at = self.params.len() as u32;
        writeln!(self.fields, "    {name}: vec4<u32>,").expect("a String");
        for value in values {
            // Sizes beyond u32 occur only where they are not used: the limits on bindings
            // keep every index far below.
            let value = u32::try_from(value).unwrap_or(u32::MAX);
            self.params.extend(value.to_le_bytes());
        }
        at
    }

    /// The factors of the parameter block: s and β.
    pub(super) fn factors(&mut self, s: f32, beta: f32) {
        writeln!(self.fields, "    factor: vec4<f32>,").expect("a String");
        for value in [s, beta, 0.0, 0.0] {
            self.params.extend(value.to_le_bytes());
        }
    }

    /// `name` in the text is `operand`, which is read.
    pub(super) fn read(&mut self, name: &str, operand: Operand, view: View) {
        let form = reading(&view, self.wgpu.f16);
        self.operand(name, operand, view, Access::Read, &form);
    }

    /// As [`Text::read`], for an operand too large for one binding: bound in several windows
    /// of up to `rows` stored rows.
    pub(super) fn read_windows(&mut self, name: &str, operand: Operand, view: View, rows: usize) {
        if rows >= view.rows {
            return self.read(name, operand, view);
        }
        let windows = view.rows.div_ceil(rows);
        for (at, first) in (0..view.rows).step_by(rows).enumerate() {
            let window = view.window(first, rows.min(view.rows - first));
            self.read(&format!("{name}{at}"), operand, window);
        }
        for (function, kind) in [("at", "f32"), ("four", "vec4<f32>")] {
            let mut text = format!("fn {name}_{function}(row: u32, col: u32) -> {kind} {{\n");
            text.push_str("    var left = row;\n");
            for at in 0..windows - 1 {
                let window = format!("{name}{at}");
                text.push_str(&format!(
                    "    if (left <= p.{window}.z) {{ return {window}_{function}(left, col); }}\n    \
                     left -= p.{window}.z + 1u;\n",
                ));
            }
            let last = windows - 1;
            text.push_str(&format!("    return {name}{last}_{function}(left, col);\n}}\n"));
            self.parts.push_str(&text);
        }
    }

    /// `name` in the text is `operand`, which is written, or updated.
    pub(super) fn write(&mut self, name: &str, operand: Operand, view: View, access: Access) {
        let form = writing(&view, self.wgpu.f16);
        self.operand(name, operand, view, access, &form);
    }

    /// `name` in the text is a matrix in the workspace, `offset` elements into it.
    pub(super) fn scratch(&mut self, name: &str, view: View, offset: usize, access: Access) {
        if !self.workspace {
            self.workspace = true;
            self.bind("workspace", None, Access::Update, None, "vec4<f32>", None);
        }
        self.uints(name, [offset, view.stride, view.rows - 1, view.cols - 1]);
        let part = match access {
            Access::Read => part!("read_f32x4"),
            _ => part!("write_f32x4"),
        };
        self.parts.push_str(&part.replace("NAME", name).replace("BUFFER", "workspace"));
    }

    /// `name` in the text is no operand of this rendering.
    pub(super) fn absent(&mut self, name: &str) {
        self.parts.push_str(&part!("absent").replace("NAME", name));
    }

    /// A part that multiplies or stages: `left`'s rows with `right`'s columns, each with
    /// whether the sum runs along its storage. A part of one side leaves the other's words out.
    pub(super) fn product(&mut self, part: &str, left: (&str, bool), right: (&str, bool)) {
        self.words.insert("step", part!("step"));
        for (word, (name, along)) in [("LEFT", left), ("RIGHT", right)] {
            let line = format!("const {name}_ALONG: bool = {along};\n");
            if part.contains(word) && !self.constants.contains(&line) {
                self.constants.push_str(&line);
            }
        }
        self.parts.push_str(&part.replace("LEFT", left.0).replace("RIGHT", right.0));
    }

    /// [`Text::product`] straight from memory; `depth` is the length of the sum.
    pub(super) fn plain(&mut self, left: (&str, bool), right: (&str, bool), depth: usize) {
        self.flag(&format!("{}_{}_WHOLE", left.0, right.0), depth.is_multiple_of(4));
        self.product(PRODUCT, left, right);
    }

    /// [`Text::plain`], with `left` shared by a subgroup of which `slices` threads have parts of
    /// a sum.
    pub(super) fn shuffled(
        &mut self,
        left: (&str, bool),
        right: (&str, bool),
        depth: usize,
        slices: usize,
    ) {
        self.flag(&format!("{}_{}_WHOLE", left.0, right.0), depth.is_multiple_of(4 * slices));
        self.product(SHUFFLED, left, right);
    }

    /// [`Text::plain`], step by step.
    pub(super) fn stepwise(&mut self, left: (&str, bool), right: (&str, bool)) {
        self.product(PRODUCT_ONE, left, right);
    }

    /// One step of four columns of `right`.
    pub(super) fn column(&mut self, right: (&str, bool)) {
        self.product(COLUMN, ("", false), right);
    }

    /// shrunk, `t`, meets `b`, of which the sum runs along its storage or not; neither is
    /// an operand where there is no rank.
    pub(super) fn border(&mut self, along: bool) {
        self.column(("b", along));
        self.parts.push_str(BORDER);
    }

    /// A part that names no operand by a word.
    pub(super) fn part(&mut self, part: &str) {
        self.parts.push_str(part);
    }

    /// `form_out`, by the part for gradients. `by_rank`: stored rows are ranks.
    pub(super) fn outer(&mut self, left: &str, right: &str, out: &str, by_rank: bool) {
        self.flag(&format!("{out}_BY_RANK"), by_rank);
        let part = OUTER.replace("LEFT", left).replace("RIGHT", right).replace("OUT", out);
        self.parts.push_str(&part);
    }

    /// `rounded`: what storing as `dtype` makes of a value.
    pub(super) fn rounding(&mut self, dtype: DType) {
        self.word(dtype);
        writeln!(
            self.parts,
            "fn rounded(value: vec4<f32>) -> vec4<f32> {{ return round_{dtype}(value); }}"
        )
        .expect("a String");
    }

    /// Storage buffers of the text so far, the parameters included where they are one.
    pub(super) fn storage_buffers(&self) -> u32 {
        self.bindings.len() as u32 + u32::from(self.wgpu.storage_params)
    }

    /// The launch.
    pub(super) fn launch(
        mut self,
        kernel: &'static str,
        body: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
    ) -> Launch {
        let space = if self.wgpu.storage_params { "storage, read" } else { "uniform" };
        let mut text = String::new();
        if self.f16 {
            text.push_str("enable f16;\n\n");
        }
        text.push_str(&self.constants);
        write!(
            text,
            "\nstruct Params {{\n{}}}\n{}@group(0) @binding({}) var<{space}> p: Params;\n\n",
            self.fields,
            self.buffers,
            self.bindings.len(),
        )
        .expect("a String");
        for part in self.words.values() {
            text.push_str(part);
        }
        text.push_str(&self.parts);
        text.push('\n');
        text.push_str(body);
        self.params.resize(self.params.len().next_multiple_of(16), 0);
        Launch {
            kernel,
            source: Some(Source { language: Language::Wgsl, text: Arc::from(text), entry: kernel }),
            grid,
            block,
            shared_bytes,
            bindings: self.bindings,
            params: self.params,
        }
    }

    fn operand(&mut self, name: &str, operand: Operand, view: View, access: Access, form: &Form) {
        self.f16 |= form.element.contains("f16");
        // The packed forms and the rounding of native ones use the same words.
        self.word(view.dtype);
        let rows = view.window.map_or(view.rows, |(_, count)| count);
        // The executor adds where the first element lies.
        let at = self.uints(name, [0, view.stride, rows - 1, view.cols - 1]);
        self.bind(name, Some(operand), access, view.window, form.element, Some(at));
        let dtype = view.dtype.to_string();
        let part = form.part.replace("NAME", name).replace("BUFFER", name).replace("DTYPE", &dtype);
        self.parts.push_str(&part);
    }

    fn bind(
        &mut self,
        name: &str,
        operand: Option<Operand>,
        access: Access,
        rows: Option<(usize, usize)>,
        element: &str,
        at: Option<u32>,
    ) {
        let mode = match access {
            Access::Read if !self.wgpu.shared_buffers => "read",
            _ => "read_write",
        };
        writeln!(
            self.buffers,
            "@group(0) @binding({}) var<storage, {mode}> {name}: array<{element}>;",
            self.bindings.len(),
        )
        .expect("a String");
        self.bindings.push(Binding { operand, access, rows, at });
    }

    fn word(&mut self, dtype: DType) {
        match dtype {
            DType::F32 => self.words.insert("f32", part!("f32")),
            DType::F16 => self.words.insert("f16", part!("f16")),
            DType::Bf16 => self.words.insert("bf16", part!("bf16")),
        };
    }
}
