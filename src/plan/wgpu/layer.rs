//! A bordered product as kernels of wgpu see it, its operands by the names that they have in the
//! texts: `x` is the product's left, `w` its right, `a` goes down to the rank and `b` comes up. What
//! of them a kernel binds, and what that costs. Read by the kernels' files.

use super::limits;
use super::matrix::StoredMatrix;
use super::shader::{self, Shader};
use super::shader::{Word, parts::chosen};
use super::{Refusal, WgpuCapabilities};
use crate::problem::Scalars;
use crate::product::{self, Bordered, Multiplier, Old, Summand, Window};
use crate::{Access, DType, Major, Operand, Problem};

/// First token of a band, and how many.
pub(super) type Rows = (usize, usize);

/// Columns of a layer that a launch of its own forms, because no binding holds all of w: w's stored rows are
/// columns then, and these are what is bound of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) first: usize,
    pub(super) columns: usize,
}

/// An operand that is read, and whether the sum runs along its stored rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) operand: Operand,
    pub(super) matrix: StoredMatrix,
    pub(super) k_major: bool,
    pub(super) seen: Seen,
}

/// How the elements of a load come of those that are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Stored,
    /// Through a convolution's window, from this row on.
    Window(Window, usize),
    /// By taps, and whether its rows are stored rows.
    Turned(Turned, bool),
    /// As a launch before has left them in the workspace.
    Formed,
}

/// A matrix with a column for each channel and tap, as its product has it: rows of `depth` in each tap, and columns of
/// channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned {
    pub(super) depth: usize,
    /// Columns from one channel to the next, and from one tap to the next.
    pub(super) channel: usize,
    pub(super) tap: usize,
    /// A Kronecker product is added to what is stored.
    pub(super) summed: bool,
}

/// An output whose columns are planes of images: rows `first` to `rows` of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planar {
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) pixels: usize,
    pub(super) columns: usize,
}

/// An operand that is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) operand: Operand,
    pub(super) matrix: StoredMatrix,
    pub(super) access: Access,
    pub(super) planes: Option<Planar>,
}

impl Load {
    pub(super) fn new(load: &product::Load) -> Load {
        let matrix = StoredMatrix::new(&load.spec);
        let seen = load.window.map_or(Seen::Stored, |window| Seen::Window(window, 0));
        Load { operand: load.operand, matrix, k_major: load.k_major, seen }
    }

    /// The weight of a convolution, or lora_A, on the way back.
    pub(super) fn turned(load: &product::Load, of: Turned) -> Load {
        let is_rows = load.spec.major == Major::Row;
        Load { k_major: false, seen: Seen::Turned(of, is_rows), ..Load::new(load) }
    }

    /// Whether rows are stored rows, of which a part can be bound.
    pub(super) fn has_rows(&self) -> bool {
        matches!(self.seen, Seen::Stored)
    }

    /// Bytes of `rows` rows; of images, all.
    pub(super) fn bytes_of(&self, rows: usize) -> u64 {
        match self.has_rows() {
            true => self.matrix.bytes_of(rows),
            false => self.matrix.bytes(),
        }
    }

    pub(super) fn window(self, rows: Rows) -> Load {
        match self.seen {
            Seen::Stored => Load { matrix: self.matrix.window(rows), ..self },
            Seen::Window(window, _) => Load { seen: Seen::Window(window, rows.0), ..self },
            Seen::Turned(..) | Seen::Formed => self,
        }
    }
}

impl Output {
    pub(super) fn new(store: &product::Store) -> Output {
        let matrix = StoredMatrix::new(&store.spec);
        let planes = store.planes.map(|product::Planes { pixels, columns }| Planar {
            first: 0,
            rows: store.spec.rows / columns * pixels,
            pixels,
            columns,
        });
        Output { operand: store.operand, matrix, access: store.spec.access, planes }
    }

    pub(super) fn window(self, rows: Rows) -> Output {
        match self.planes {
            None => Output { matrix: self.matrix.window(rows), ..self },
            Some(of) => {
                let (first, rows) = (rows.0, rows.0 + rows.1);
                Output { planes: Some(Planar { first, rows, ..of }), ..self }
            }
        }
    }

    /// Bytes of `rows` rows, written and perhaps read.
    pub(super) fn bytes_of(&self, rows: usize) -> u64 {
        let times = if self.access == Access::Update { 2 } else { 1 };
        let cols = self.planes.map_or(self.matrix.cols, |of| of.columns);
        StoredMatrix { cols, ..self.matrix }.bytes_of(rows).saturating_mul(times)
    }
}

/// Who is told what a launch binds, in the order of its bindings: the text, and the count of
/// buffers before there is one.
pub(super) trait Bind {
    /// `name` in the text is `load`.
    fn read(&mut self, name: &'static str, load: &Load);
    /// As `read`, for an operand too large for one binding: bound in several windows of up to
    /// `rows` stored rows.
    fn read_windows(&mut self, name: &'static str, load: &Load, rows: usize);
    /// `name` in the text is `output`.
    fn write(&mut self, name: &'static str, output: &Output);
    /// `name` in the text is a matrix in the workspace, `offset` elements into it.
    fn scratch(&mut self, name: &'static str, matrix: &StoredMatrix, offset: usize, access: Access);
}

/// Counts storage buffers, the parameters included where they are one.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) count: u32,
    workspace: bool,
}

impl Buffers {
    pub(super) fn new(wgpu: &WgpuCapabilities) -> Buffers {
        Buffers { count: u32::from(wgpu.storage_params), workspace: false }
    }
}

impl Bind for Buffers {
    fn read(&mut self, _: &'static str, _: &Load) {
        self.count += 1;
    }
    fn read_windows(&mut self, _: &'static str, load: &Load, rows: usize) {
        self.count += load.matrix.rows.div_ceil(rows) as u32;
    }
    fn write(&mut self, _: &'static str, _: &Output) {
        self.count += 1;
    }
    fn scratch(&mut self, _: &'static str, _: &StoredMatrix, _: usize, _: Access) {
        self.count += u32::from(!std::mem::replace(&mut self.workspace, true));
    }
}

/// The layer itself: w, and what becomes of its sums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) w: Load,
    /// What it has beside what is stored.
    pub(super) summand: Option<Summand>,
    pub(super) columns: usize,
    pub(super) y: Output,
    pub(super) gain: Option<Load>,
    pub(super) bias: Option<Load>,
    pub(super) old: Old,
}

/// What goes down to the rank, and comes back up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Border {
    pub(super) a: Load,
    /// Not where only shrunk is asked for.
    pub(super) b: Option<Load>,
    pub(super) rank: usize,
    pub(super) padded_rank: usize,
    pub(super) precise: bool,
    /// As which shrunk is stored.
    pub(super) dtype: DType,
    /// The caller's copy of it.
    pub(super) kept: Option<Output>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) wgpu: &'a WgpuCapabilities,
    scalars: Scalars,
    pub(super) tokens: usize,
    /// Tokens that launches are shaped for, where these may not depend on those that there are.
    batch: Option<usize>,
    /// Length of the sums.
    pub(super) depth: usize,
    pub(super) x: Load,
    pub(super) body: Option<Body>,
    pub(super) border: Option<Border>,
    /// The part that `body` is; `None`: all of it.
    part: Option<Part>,
}

/// Columns of a part are a multiple of so many, where a binding holds as many.
const PART: usize = 64;

impl<'a> Layer<'a> {
    pub(super) fn new(
        problem: &Problem,
        product: &Bordered,
        wgpu: &'a WgpuCapabilities,
    ) -> Layer<'a> {
        let body = product.body.as_ref().map(|body: &product::Body| Body {
            w: Load::new(&body.right),
            summand: body.summand,
            columns: body.columns,
            y: Output::new(&body.finish.out),
            gain: body.finish.gain.as_ref().map(Load::new),
            bias: body.finish.bias.as_ref().map(Load::new),
            old: body.finish.old,
        });
        let border = product.border.as_ref().map(|border: &product::Border| Border {
            a: Load::new(&border.down),
            b: border.up.as_ref().map(Load::new),
            rank: border.rank,
            padded_rank: border.shrunk.padded_rank,
            precise: border.shrunk.precise,
            dtype: border.shrunk.dtype,
            kept: border.shrunk.kept.as_ref().map(Output::new),
        });
        let (tokens, depth, x) = (product.rows, product.depth, Load::new(&product.left));
        let batch = problem.is_batch_invariant().then_some(Problem::BATCH);
        let scalars = Scalars::of(problem);
        Layer { wgpu, scalars, tokens, batch, depth, x, body, border, part: None }
    }

    /// The parts that the layer is cut into, each with launches of its own.
    pub(super) fn parts(&self) -> Result<Vec<Part>, Refusal> {
        let columns = self.body.map_or(0, |body| body.columns);
        let whole = Part { first: 0, columns };
        let Some(w) = self.body.map(|body| body.w).filter(|w| w.k_major) else {
            return Ok(vec![whole]);
        };
        if self.body.is_some_and(|body| body.y.planes.is_some()) {
            limits::whole(w.operand, &w.matrix, self.wgpu)?;
        }
        let most = limits::rows(w.operand, &w.matrix, self.wgpu)?;
        if most >= columns {
            return Ok(vec![whole]);
        }
        // Whole tiles, and vectors of y.
        let most = if most > PART { most - most % PART } else { most };
        limits::few_windows(w.operand, columns, most)?;
        let firsts = (0..columns).step_by(most);
        Ok(firsts.map(|first| Part { first, columns: most.min(columns - first) }).collect())
    }

    /// The layer that has no columns but those of `part`.
    pub(super) fn of_part(&self, part: Part) -> Layer<'a> {
        let Part { first, columns } = part;
        if self.body.is_none_or(|body| body.columns == columns) {
            return Layer { part: None, ..*self };
        }
        let body = self.body.map(|body| {
            // Stores end with the part's last column.
            let y = StoredMatrix { cols: first + columns, ..body.y.matrix };
            let y = Output { matrix: y, ..body.y };
            Body { w: body.w.window((first, columns)), columns, y, ..body }
        });
        Layer { body, part: Some(part), ..*self }
    }

    /// Tokens that a launch of `tokens` is shaped for: who shares a sum may depend on no others.
    pub(super) fn shaped_for(&self, tokens: usize) -> usize {
        self.batch.unwrap_or(tokens)
    }

    pub(super) fn rank(&self) -> usize {
        self.border.map_or(0, |border| border.rank)
    }

    /// Operations of the layer on `tokens`, its border included.
    pub(super) fn flops(&self, tokens: usize) -> u64 {
        let columns = self.body.map_or(0, |body| body.columns);
        2 * multiply([tokens, columns, self.depth + self.rank()])
    }

    pub(super) fn shrink_flops(&self, tokens: usize) -> u64 {
        2 * multiply([tokens, self.depth, self.rank()])
    }

    /// Bytes of `tokens` rows of x.
    pub(super) fn x_bytes(&self, tokens: usize) -> u64 {
        self.x.bytes_of(tokens)
    }

    /// What a shrink of `tokens` moves, cut into `tiles` of them and `groups` of ranks.
    pub(super) fn shrink_bytes(&self, tokens: usize, tiles: usize, groups: usize) -> u64 {
        let scratch = self.t_bytes(tokens);
        self.x_bytes(tokens) * groups as u64
            + self.border.map_or(0, |border| border.a.matrix.bytes()) * tiles as u64
            + self.kept_bytes(tokens)
            + scratch
    }

    /// What the layer itself moves, cut into `tiles` of tokens and `cols` of columns.
    pub(super) fn layer_bytes(&self, tokens: usize, tiles: usize, cols: usize) -> u64 {
        (self.x_bytes(tokens) + self.t_bytes(tokens)) * cols as u64
            + self.weight_bytes() * tiles as u64
            + self.y_bytes(tokens)
    }

    /// What a layer on `slices` of shrunk moves beside `layer_bytes`: all slices but one, for each of `cols`
    /// cuts of the columns, and the caller's copy.
    pub(super) fn slices_bytes(&self, tokens: usize, slices: usize, cols: usize) -> u64 {
        let more = (slices - 1) as u64 * cols as u64;
        self.t_bytes(tokens).saturating_mul(more) + self.kept_bytes(tokens)
    }

    /// Bytes of w and of b.
    pub(super) fn weight_bytes(&self) -> u64 {
        let b = self.border.and_then(|border| border.b);
        let loads = self.body.map(|body| body.w).into_iter().chain(b);
        let summand = self.body.and_then(|body| body.summand);
        let factors = summand.map_or(0, |of| of.loads().map(|of| of.spec.bytes()).iter().sum());
        loads.map(|load| load.matrix.bytes_of(load.matrix.bound_rows())).sum::<u64>() + factors
    }

    /// Bytes of y, written and perhaps read, and of gain and bias.
    pub(super) fn y_bytes(&self, tokens: usize) -> u64 {
        self.body.map_or(0, |body| {
            let y = StoredMatrix { cols: body.columns, ..body.y.matrix };
            let columns = [body.gain, body.bias].into_iter().flatten();
            Output { matrix: y, ..body.y }.bytes_of(tokens)
                + columns.map(|of| of.matrix.bytes()).sum::<u64>()
        })
    }

    /// Bytes of `tokens` rows of shrunk in the workspace.
    pub(super) fn t_bytes(&self, tokens: usize) -> u64 {
        self.t(tokens).map_or(0, |t| t.bytes())
    }

    /// Bytes of the shrunk that the caller keeps.
    pub(super) fn kept_bytes(&self, tokens: usize) -> u64 {
        let kept = self.border.and_then(|border| border.kept);
        kept.map_or(0, |kept| kept.matrix.bytes_of(tokens))
    }

    /// shrunk of `tokens` in the workspace.
    pub(super) fn t(&self, tokens: usize) -> Option<StoredMatrix> {
        let border = self.border.filter(|border| border.b.is_some())?;
        Some(StoredMatrix::scratch(tokens, border.padded_rank))
    }

    pub(super) fn bind_x(&self, to: &mut impl Bind, rows: Rows) {
        to.read("x", &self.x.window(rows));
    }

    /// What makes shrunk.
    pub(super) fn bind_a(&self, to: &mut impl Bind) {
        if let Some(border) = self.border {
            to.read("a", &border.a);
        }
    }

    /// The caller's copy of shrunk.
    pub(super) fn bind_kept(&self, to: &mut impl Bind, rows: Rows) {
        if let Some(kept) = self.border.and_then(|border| border.kept) {
            to.write("kept", &kept.window(rows));
        }
    }

    /// What makes shrunk, and the caller's copy.
    pub(super) fn bind_shrink(&self, to: &mut impl Bind, rows: Rows) {
        self.bind_a(to);
        self.bind_kept(to, rows);
    }

    /// shrunk in the workspace as `slices` of its sums, each of `tokens` rows.
    pub(super) fn slices(&self, slices: usize, tokens: usize) -> Option<StoredMatrix> {
        self.t(slices.saturating_mul(tokens))
    }

    pub(super) fn bind_slices(
        &self,
        to: &mut impl Bind,
        slices: usize,
        tokens: usize,
        access: Access,
    ) {
        if let Some(matrix) = self.slices(slices, tokens) {
            to.scratch("slices", &matrix, 0, access);
        }
    }

    /// All that a layer on slices of shrunk reads and writes, but w.
    pub(super) fn bind_on_slices(&self, to: &mut impl Bind, rows: Rows, slices: usize) {
        self.bind_x(to, rows);
        self.bind_finish(to, rows);
        self.bind_slices(to, slices, rows.1, Access::Read);
        if let Some(b) = self.border.and_then(|border| border.b) {
            to.read("b", &b);
        }
        self.bind_kept(to, rows);
    }

    /// What such a layer's text has beside other layers' numbers; `part` multiplies shrunk with b, and
    /// takes `at_a_time` steps at a time.
    pub(super) fn on_slices(
        &self,
        shader: &mut Shader<'_>,
        rows: Rows,
        slices: usize,
        part: &'static shader::part::Part,
        at_a_time: usize,
    ) {
        let Some(border) = self.border else { return };
        shader.constant("SLICES", slices);
        shader.uint("tokens", rows.1);
        shader.offer(&chosen::SLICES, []);
        shader.product(part, "t", "b", border.rank.is_multiple_of(at_a_time));
    }

    /// shrunk in the workspace, where the layer finds it.
    pub(super) fn bind_t(&self, to: &mut impl Bind, tokens: usize) {
        if let Some(t) = self.t(tokens) {
            to.scratch("t", &t, 0, Access::Write);
        }
    }

    /// What w has beside what is stored, and what finishes y: gain, bias and β.
    pub(super) fn bind_finish(&self, to: &mut impl Bind, rows: Rows) {
        let Some(body) = self.body else { return };
        if let Some(summand) = &body.summand {
            bind_summand(to, summand);
        }
        if let Some(gain) = body.gain {
            to.read("gain", &gain);
        }
        if let Some(bias) = body.bias {
            to.read("bias", &bias);
        }
        to.write("y", &body.y.window(rows));
    }

    /// What comes back up: shrunk in the workspace, and b.
    fn bind_border(&self, to: &mut impl Bind, tokens: usize) {
        let Some((t, b)) = self.t(tokens).zip(self.border.and_then(|border| border.b)) else {
            return;
        };
        to.scratch("t", &t, 0, Access::Read);
        to.read("b", &b);
    }

    /// All that a layer on a shrunk in the workspace reads and writes, but w.
    pub(super) fn bind_but_w(&self, to: &mut impl Bind, rows: Rows) {
        self.bind_x(to, rows);
        self.bind_finish(to, rows);
        self.bind_border(to, rows.1);
    }

    pub(super) fn buffers_but_w(&self, rows: Rows) -> Buffers {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind_but_w(&mut buffers, rows);
        buffers
    }

    /// Stored rows of w that one binding holds; the bindings that `bound` counted leave it so many.
    pub(super) fn w_rows(&self, bound: &Buffers) -> Result<usize, Refusal> {
        let Some(Body { w, .. }) = self.body else { return Ok(1) };
        if self.part.is_some() {
            return Ok(w.matrix.rows);
        }
        limits::windows(w.operand, &w.matrix, self.wgpu, bound.count)
    }

    /// w, last of all, in windows of `rows`.
    pub(super) fn bind_w(&self, to: &mut impl Bind, rows: usize) {
        if let Some(body) = self.body {
            if let Seen::Formed = body.w.seen {
                return to.scratch("w", &body.w.matrix, 0, Access::Read);
            }
            let name = if body.summand.is_some() { "base" } else { "w" };
            to.read_windows(name, &body.w, rows);
        }
    }

    /// The numbers, conditions and parts that kernels may need, whichever they are.
    pub(super) fn numbers(&self, shader: &mut Shader<'_>) {
        shader.uint("depth", self.depth);
        shader.condition("part", self.part.is_some());
        if let Some(part) = self.part {
            shader.uint("first_col", part.first);
        }
        if let Some(body) = self.body {
            shader.beta(body.old, self.scalars);
            if let Seen::Formed = body.w.seen {
                shader.k_major("w", &body.w);
            }
            if let Some(summand) = &body.summand {
                shader.k_major("w", &body.w);
                shader.scale(Multiplier::Scale, self.scalars);
                summand_numbers(shader, summand, body.w.k_major);
                shader.offer(&chosen::SUMMED, []);
            }
        }
        if let Some(border) = self.border {
            shader.uint("rank", border.rank);
            shader.uint("padded_rank", border.padded_rank);
            shader.scale(Multiplier::Scale, self.scalars);
            shader.condition("border", true);
            shader.condition("precise", border.precise);
            shader.offer(&chosen::SHRUNK, [(Word::DType, border.dtype.name())]);
        }
    }

    /// `add_x_right`, which takes so many steps of the sum at a time.
    pub(super) fn product(
        &self,
        shader: &mut Shader<'_>,
        part: &'static shader::part::Part,
        right: &'static str,
        at_a_time: usize,
    ) {
        shader.product(part, "x", right, self.depth.is_multiple_of(at_a_time));
    }
}

/// All of an operand as one row, in which an element is found by its place.
pub(super) fn flat(of: &product::Load) -> Load {
    let matrix = StoredMatrix::new(&of.spec);
    let extent = matrix.rows.saturating_sub(1) * matrix.stride + matrix.cols;
    // One by one: less than a vector is promised.
    let align = of.spec.dtype.size();
    let matrix = StoredMatrix { rows: 1, cols: extent, stride: extent, align, ..matrix };
    Load { operand: of.operand, matrix, k_major: true, seen: Seen::Stored }
}

/// What a row and a column of its shape add to an element's place.
pub(super) fn steps(of: &product::Load) -> [usize; 2] {
    let stride = StoredMatrix::new(&of.spec).stride;
    match of.spec.major {
        Major::Row => [stride, 1],
        Major::Col => [1, stride],
    }
}

pub(super) fn bind_summand(to: &mut impl Bind, of: &Summand) {
    to.read("w1", &flat(&of.w1));
    to.read("w2", &flat(&of.w2));
}

/// What `summand` needs: of a load whose sum runs along its stored rows (`k_major`), or across them.
pub(super) fn summand_numbers(shader: &mut Shader<'_>, of: &Summand, k_major: bool) {
    // By the product's rows and depth, and by stored rows and columns.
    let along = |load: &product::Load| {
        let stride = StoredMatrix::new(&load.spec).stride;
        if load.k_major { [stride, 1] } else { [1, stride] }
    };
    let stored = |[rows, depth]: [usize; 2]| if k_major { [rows, depth] } else { [depth, rows] };
    let (w1, w2, taps) = (stored(along(&of.w1)), stored(along(&of.w2)), stored(of.taps_along()));
    let block = stored(of.block());
    let block = [0, 1].map(|at| block[at] / taps[at]);
    if taps == [1, 1] {
        shader.offer(&chosen::SUMMAND, []);
    } else {
        let blocks = stored(of.w1.shape());
        // What counts no taps has all in one.
        let of_tap =
            |at: usize| if taps[at] > 1 { blocks[at] * block[at] } else { u32::MAX as usize };
        shader.uint("tap_rows", of_tap(0));
        shader.uint("tap_cols", of_tap(1));
        shader.offer(&chosen::SUMMAND_TAPS, []);
    }
    for (name, value) in [
        ("block_rows", block[0]),
        ("block_cols", block[1]),
        ("w1_row", w1[0]),
        ("w1_col", w1[1]),
        ("w2_row", w2[0]),
        ("w2_col", w2[1]),
    ] {
        shader.uint(name, value);
    }
}

pub(super) fn multiply<const N: usize>(factors: [usize; N]) -> u64 {
    factors.into_iter().fold(1, |all, factor| all.saturating_mul(factor as u64))
}
