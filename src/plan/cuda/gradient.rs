//! The launch of `gradient`: how the products are cut into tiles, the tokens into spans, and
//! where the partial sums lie until they are added.

use super::params::Params;
use super::roles::{aligned, place};
use super::texts::{PRODUCT_TABLE, TEXTS, Text, gradient_at, product_at};
use super::{Building, FLAGS, HEADER, Refusal, Workspace, model, reason};
use crate::{Access, DType, Major, Operand};

/// Tokens below which a span is not worth its slab.
const SPAN: usize = 64;
/// Most bytes of slabs.
const SLABS: usize = 64 << 20;

impl Building<'_> {
    /// `da` and `db` in one launch; bytes of workspace.
    pub(super) fn gradient(&mut self) -> Result<usize, Refusal> {
        let problem = self.problem;
        let (tokens, rank) = (problem.tokens(), problem.rank());
        let mut whole = true;
        let mut products = Vec::new();
        for [t, z, out] in [
            [Operand::Dshrunk, Operand::X, Operand::Da],
            [Operand::Shrunk, Operand::Dy, Operand::Db],
        ] {
            let (Some(left), Some(right)) = (place(problem, t)?, place(problem, z)?) else {
                continue;
            };
            let Some(spec) = problem.spec(out) else { continue };
            let columns = right.1.cols;
            let (left, right) = (Some(left), Some(right));
            whole &= aligned(&left) && aligned(&right);
            // Strides of (rank, column): da is [rank, column], db is [column, rank].
            let along = (out == Operand::Da) == (spec.major == Major::Row);
            let strides = if along { [spec.stride, 1] } else { [1, spec.stride] };
            products.push((left, right, out, spec.access, columns, strides));
        }
        let text = self.gradient_text(whole)?;
        self.check_shared(text)?;
        let [ranks, width, _] = text.tile;
        let rank_tiles = rank.div_ceil(ranks);
        let tiles_of = |columns: usize| columns.div_ceil(width) * rank_tiles;
        let tiles: usize = products.iter().map(|of| tiles_of(of.4)).sum();
        let slab = ranks * width * 4;
        let slots = self.cuda.multiprocessors.max(1) as usize * model::resident(text, self.cuda);
        // The smallest split that fills the machine, within what slabs may take.
        let read: usize = products.iter().map(|of| tokens * of.4 * self.size()).sum();
        let room = (read / 10).min(SLABS) / (tiles * slab).max(1);
        let most = tokens.div_ceil(SPAN).min(room).min(FLAGS / tiles.max(1)).max(1);
        let splits = slots.div_ceil(tiles.max(1)).clamp(1, most);
        let span = tokens.div_ceil(splits).next_multiple_of(32).max(32);
        let splits = tokens.div_ceil(span).max(1);
        let partials = tiles * splits;
        if partials > FLAGS {
            return Err(reason(format!("{partials} partial sums, the header has {FLAGS} flags")));
        }
        if [tokens, rank].into_iter().chain(products.iter().map(|of| of.4)).any(|of| of > 1 << 29) {
            return Err(reason("a size leaves the kernel's 32-bit counts".to_owned()));
        }
        let tickets = partials + tiles * (ranks / 8);

        let mut workspace = Workspace { len: HEADER, used: true };
        let mut params = Params::new(gradient_at::LEN);
        use gradient_at as at;
        params.address(at::HEADER, None, Access::Update);
        params.address(at::SLABS, None, Access::Update);
        params.u64(at::SLABS_OFFSET, workspace.take(partials * slab));
        let stored = match problem.gradient() {
            DType::F32 => 0,
            DType::Bf16 => 1,
            DType::F16 => 2,
        };
        for (field, value) in [
            (at::TOKENS, tokens),
            (at::RANK, rank),
            (at::PART, problem.padded_rank()),
            (at::PARTS, if problem.is_precise() { 2 } else { 1 }),
            (at::SPLITS, splits),
            (at::SPAN, span),
            (at::PARTIALS, partials),
            (at::TICKETS, tickets),
            (at::STORED, stored),
        ] {
            params.u32(field, value);
        }
        params.f32(at::BETA, problem.beta());
        for (index, (t, z, out, access, columns, strides)) in products.iter().enumerate() {
            let entry = PRODUCT_TABLE + index * product_at::LEN;
            use product_at as of;
            for (operand, address, stride) in [(t, of::T, of::T_STRIDE), (z, of::Z, of::Z_STRIDE)] {
                let place = operand.as_ref().map(|(place, _)| *place);
                params.address(entry + address, place.and_then(|of| of.operand), Access::Read);
                params.u32(entry + stride, place.map_or(0, |of| of.stride as usize));
            }
            params.address(entry + of::OUT, Some(*out), *access);
            params.u64(entry + of::RANK_STRIDE, strides[0] as u64);
            params.u64(entry + of::COLUMN_STRIDE, strides[1] as u64);
            params.u32(entry + of::COLUMNS, *columns);
            params.u32(entry + of::COLUMN_TILES, columns.div_ceil(width));
            params.u32(entry + of::TILES, tiles_of(*columns));
        }
        let passes = if problem.is_precise() { 2 } else { 1 };
        self.flops += problem.flops() * passes + (2 * partials * slab / 4) as u64;
        // Slabs are met in L2: counted once, like all that one launch writes and reads.
        let again = (passes as usize * rank_tiles - 1) * read;
        let bytes = problem.bytes() + (again + partials * slab) as u64;
        self.bytes += bytes;
        self.micros += model::streamed(bytes, self.cuda);
        self.push(text, [tickets.min(slots) as u32, 1, 1], params);
        Ok(workspace.finish())
    }

    fn gradient_text(&self, aligned: bool) -> Result<&'static Text, Refusal> {
        let dtype = self.problem.activation().to_string();
        let fits = |of: &&Text| {
            of.kind == "gradient" && of.dtype == dtype.as_str() && of.aligned == aligned
        };
        let serves = |of: &&Text| of.ranks >= self.problem.rank();
        let all = || TEXTS.iter().filter(fits);
        // Ranks beyond the largest tile are more tiles.
        all()
            .filter(serves)
            .min_by_key(|of| of.ranks)
            .or_else(|| all().max_by_key(|of| of.ranks))
            .ok_or_else(|| reason(format!("no text of `gradient` for {dtype}")))
    }
}
