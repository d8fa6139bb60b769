//! The launch of `gradient`: how the products are cut into tiles, the tokens into spans, and
//! where the partial sums lie until they are added.

use super::abi::{Gradient, PRODUCTS, Product, STORED_BF16, STORED_F16, STORED_F32};
use super::numbers::Kind;
use super::params::{Params, pointer, word};
use super::roles::{aligned, place};
use super::scratch::ScratchLayout;
use super::variants::{self, Variant};
use super::{Building, FLAGS, Refusal, model, reason};
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
        let mut products = Vec::with_capacity(PRODUCTS);
        for [t, z, out] in [
            [Operand::Dshrunk, Operand::X, Operand::Da],
            [Operand::Shrunk, Operand::Dy, Operand::Db],
        ] {
            let (Some(left), Some(right)) = (place(problem, t)?, place(problem, z)?) else {
                continue;
            };
            let Some(spec) = problem.spec(out) else { continue };
            let columns = right.1.cols;
            whole &= aligned(&left) && aligned(&right);
            // Strides of (rank, column): da is [rank, column], db is [column, rank].
            let along = (out == Operand::Da) == (spec.major == Major::Row);
            let strides = if along { [spec.stride, 1] } else { [1, spec.stride] };
            products.push((left.0, right.0, out, spec.access, columns, strides));
        }
        let variant = self.gradient_variant(whole)?;
        self.check_smem(variant)?;
        let (ranks, width) = (variant.rows, variant.columns);
        let rank_tiles = rank.div_ceil(ranks);
        let tiles_of = |columns: usize| columns.div_ceil(width) * rank_tiles;
        let tiles: usize = products.iter().map(|of| tiles_of(of.4)).sum();
        let slab = ranks * width * 4;
        let slots = self.cuda.multiprocessors.max(1) as usize * model::resident(variant, self.cuda);
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

        let mut scratch = ScratchLayout::new(true);
        let mut params = Params::<Gradient>::default();
        params.bind(pointer!(Gradient, header), None, Access::Update);
        params.bind(pointer!(Gradient, slabs), None, Access::Update);
        params.block = Gradient {
            slabs_offset: scratch.take(partials * slab),
            tokens: word(tokens),
            rank: word(rank),
            padded_rank: word(problem.shrunk_part()),
            shrunk_parts: if problem.is_precise() { 2 } else { 1 },
            splits: word(splits),
            span: word(span),
            partials: word(partials),
            tickets: word(tickets),
            beta: problem.beta(),
            stored_as: match problem.gradient() {
                DType::F32 => STORED_F32,
                DType::Bf16 => STORED_BF16,
                DType::F16 => STORED_F16,
            },
            ..Gradient::default()
        };
        for (index, (left, right, out, access, columns, strides)) in products.iter().enumerate() {
            let (read, columns) = (Access::Read, *columns);
            params.bind(pointer!(Gradient, products[index], Product, left), left.operand, read);
            params.bind(pointer!(Gradient, products[index], Product, right), right.operand, read);
            params.bind(pointer!(Gradient, products[index], Product, out), Some(*out), *access);
            params.block.products[index] = Product {
                rank_stride: strides[0] as u64,
                column_stride: strides[1] as u64,
                left_stride: left.stride,
                right_stride: right.stride,
                columns: word(columns),
                column_tiles: word(columns.div_ceil(width)),
                tiles: word(tiles_of(columns)),
                ..Product::default()
            };
        }
        let passes = if problem.is_precise() { 2 } else { 1 };
        self.flops += problem.flops() * passes + (2 * partials * slab / 4) as u64;
        // Slabs are met in L2: counted once, like all that one launch writes and reads.
        let again = (passes as usize * rank_tiles - 1) * read;
        let bytes = problem.bytes() + (again + partials * slab) as u64;
        self.bytes += bytes;
        self.micros += model::streamed(bytes, self.cuda);
        self.push(variant, [tickets.min(slots) as u32, 1, 1], params);
        Ok(scratch.finish())
    }

    fn gradient_variant(&self, aligned: bool) -> Result<&'static Variant, Refusal> {
        let dtype = self.problem.activation();
        let all = variants::of(Kind::Gradient);
        // Ranks beyond the largest tile are more tiles.
        let most = all.iter().map(|of| of.ranks).max().unwrap_or(0);
        Variant::find(
            Kind::Gradient,
            self.problem.rank().min(most),
            |of| (of.dtype, of.aligned) == (dtype, aligned),
            || format!("no text of `gradient` for {dtype}"),
        )
    }
}
