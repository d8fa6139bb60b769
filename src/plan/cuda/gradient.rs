//! The launch of `gradient`: how the products are cut into tiles, the tokens into spans, and
//! where the partial sums lie until they are added.

use core::mem::offset_of;

use super::abi::{
    FLAGS, Gradient, PRODUCTS, Product as Entry, STORED_BF16, STORED_F16, STORED_F32,
};
use super::address::Address;
use super::numbers::Kind;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::variants::{self, Variant};
use super::{Building, Refusal, at_most, check_sizes, sm80};
use crate::product::Outer;
use crate::{Access, DType, Major, Problem};

/// Tokens below which a span is not worth its slab.
const SPAN: usize = 64;
/// Most bytes of slabs.
const SLABS: usize = 64 << 20;

impl Building<'_> {
    /// `da` and `db` in one launch; bytes of workspace.
    pub(super) fn gradient(
        &mut self,
        problem: &Problem,
        of: &[Option<Outer>; 2],
    ) -> Result<usize, Refusal> {
        let mut products = Vec::with_capacity(PRODUCTS);
        for of in of.iter().flatten() {
            products.push((of, Address::of_load(&of.left)?, Address::of_load(&of.right)?));
        }
        let Some((first, ..)) = products.first() else { return Ok(0) };
        let (tokens, rank, finish) = (first.tokens, first.rank, first.finish);
        let whole = products.iter().all(|(_, left, right)| left.aligned && right.aligned);
        let variant = self.gradient_variant(rank, whole)?;
        self.check_smem(variant.smem_bytes)?;
        let (ranks, width) = (variant.rows, variant.columns);
        let rank_tiles = rank.div_ceil(ranks);
        let tiles_of = |columns: usize| columns.div_ceil(width) * rank_tiles;
        let tiles: usize = products.iter().map(|(of, ..)| tiles_of(of.columns)).sum();
        let slab = ranks * width * 4;
        let slots = self.slots(variant);
        // The smallest split that fills the machine, within what slabs may take.
        let read: usize = products.iter().map(|(of, ..)| tokens * of.columns * self.size()).sum();
        let room = (read / 10).min(SLABS) / (tiles * slab).max(1);
        let most = tokens.div_ceil(SPAN).min(room).min(FLAGS / tiles.max(1)).max(1);
        let splits = slots.div_ceil(tiles.max(1)).clamp(1, most);
        let span = tokens.div_ceil(splits).next_multiple_of(32).max(32);
        let splits = tokens.div_ceil(span).max(1);
        let partials = tiles * splits;
        at_most("partial sums that have a flag", FLAGS, partials)?;
        check_sizes(&[tokens, rank], 1 << 29)?;
        for (of, ..) in &products {
            check_sizes(&[of.columns], 1 << 29)?;
        }
        let tickets = partials + tiles * (ranks / 8);

        let mut scratch = ScratchLayout::new(true);
        let mut params = self.params::<Gradient>();
        params.bind(pointer!(Gradient, header), None, Access::Update);
        params.bind(pointer!(Gradient, slabs), None, Access::Update);
        params.block = Gradient {
            slabs_offset: scratch.take(partials * slab),
            tokens: word(tokens),
            rank: word(rank),
            padded_rank: word(first.padded_rank),
            shrunk_parts: word(first.parts()),
            splits: word(splits),
            span: word(span),
            partials: word(partials),
            tickets: word(tickets),
            beta: params.beta(offset_of!(Gradient, beta), finish.old, self.scalars),
            stored_as: match finish.out.spec.dtype {
                DType::F32 => STORED_F32,
                DType::Bf16 => STORED_BF16,
                DType::F16 => STORED_F16,
            },
            ..Gradient::default()
        };
        for (index, (of, left, right)) in products.iter().enumerate() {
            let out = &of.finish.out;
            params.bind_read(pointer!(Gradient, products[index], Entry, left), left);
            params.bind_read(pointer!(Gradient, products[index], Entry, right), right);
            let at = pointer!(Gradient, products[index], Entry, out);
            params.bind(at, Some(out.operand), out.spec.access);
            let stride = out.spec.stride as u64;
            let [rank_stride, column_stride] =
                if out.major == Major::Row { [stride, 1] } else { [1, stride] };
            params.block.products[index] = Entry {
                rank_stride,
                column_stride,
                left_stride: left.stride,
                right_stride: right.stride,
                columns: word(of.columns),
                column_tiles: word(of.columns.div_ceil(width)),
                tiles: word(tiles_of(of.columns)),
                ..Entry::default()
            };
        }
        let passes = first.parts();
        self.flops += problem.flops() * passes as u64 + (2 * partials * slab / 4) as u64;
        // Slabs are met in L2: counted once, like all that one launch writes and reads.
        let again = (passes * rank_tiles - 1) * read;
        let bytes = problem.bytes() + (again + partials * slab) as u64;
        self.bytes += bytes;
        self.micros += sm80::streamed(bytes, self.cuda);
        self.push(variant, [tickets.min(slots) as u32, 1, 1], params);
        Ok(scratch.finish())
    }

    fn gradient_variant(&self, rank: usize, aligned: bool) -> Result<&'static Variant, Refusal> {
        let dtype = self.activation;
        let all = variants::of(Kind::Gradient);
        // Ranks beyond the largest tile are more tiles.
        let most = all.iter().map(|of| of.ranks).max().unwrap_or(0);
        Variant::find(
            Kind::Gradient,
            rank.min(most),
            |of| (of.dtype, of.aligned) == (dtype, aligned),
            || format!("no text of `gradient` for {dtype}"),
        )
    }
}
