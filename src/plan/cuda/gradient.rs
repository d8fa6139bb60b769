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
use super::taps::{self, window_of};
use super::variants::{self, Variant};
use super::{Building, Refusal, at_most, check_sizes, sm80};
use crate::product::{Old, Outer, Store, Window};
use crate::{Access, DType, Major, Problem};

/// Tokens below which a span is not worth its slab.
const SPAN: usize = 64;
/// Most bytes of slabs.
const SLABS: usize = 64 << 20;

/// Tokens of each of `splits` spans.
fn span(tokens: usize, splits: usize) -> usize {
    tokens.div_ceil(splits).next_multiple_of(32).max(32)
}

/// The smallest split, of at most `most`, whose `tiles` times as many partial sums take within 2 % of the shortest:
/// in waves of `slots`, each as long as its span and as a slab, which costs so many tokens.
fn fullest(tokens: usize, tiles: usize, slots: usize, most: usize, slab: usize) -> usize {
    let takes = |splits: usize| (tiles * splits).div_ceil(slots) * (span(tokens, splits) + slab);
    let least = (1..=most).map(takes).min().unwrap_or(0);
    (1..=most).find(|splits| takes(*splits) <= least + least / 50).unwrap_or(1)
}

/// One of the products of a launch: `out = leftᵀ·right`.
pub(super) struct One {
    pub(super) left: Address,
    pub(super) right: Address,
    pub(super) columns: usize,
    /// Columns as often as that, those of each tap gathered; 0: `right` is what is stored.
    pub(super) taps: usize,
    pub(super) out: Store,
}

/// Products over the same tokens, of one rank.
pub(super) struct Gradients {
    pub(super) tokens: usize,
    pub(super) rank: usize,
    /// Elements from one part of `left` to the next.
    pub(super) padded_rank: usize,
    /// Of `left`.
    pub(super) parts: usize,
    pub(super) old: Old,
    pub(super) products: Vec<One>,
    /// Through which `right` is gathered where it is.
    pub(super) window: Option<Window>,
    /// Of one part, and the least bytes.
    pub(super) flops: u64,
    pub(super) bytes: u64,
}

impl Building<'_> {
    /// `da` and `db` in one launch; bytes of workspace.
    pub(super) fn gradient(
        &mut self,
        problem: &Problem,
        of: &[Option<Outer>; 2],
    ) -> Result<usize, Refusal> {
        let mut products = Vec::with_capacity(PRODUCTS);
        let mut window = None;
        for of in of.iter().flatten() {
            let (left, right) = (Address::of_load(&of.left)?, Address::of_load(&of.right)?);
            let gathered = window_of(&of.right)?;
            let (taps, columns) = gathered.map_or((0, of.columns), |of| (of.taps(), of.channels));
            window = window.or(gathered);
            products.push(One { left, right, columns, taps, out: of.finish.out });
        }
        let Some(first) = of.iter().flatten().next() else { return Ok(0) };
        let mut scratch = ScratchLayout::new(true);
        let all = Gradients {
            tokens: first.tokens,
            rank: first.rank,
            padded_rank: first.padded_rank,
            parts: first.parts(),
            old: first.finish.old,
            products,
            window,
            flops: problem.flops(),
            bytes: problem.bytes(),
        };
        self.gradients(&all, &mut scratch)?;
        Ok(scratch.finish())
    }

    /// All of them in one launch; the header is used.
    pub(super) fn gradients(
        &mut self,
        of: &Gradients,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let Gradients { tokens, rank, ref products, .. } = *of;
        let Some(first) = products.first() else { return Ok(()) };
        let whole = products.iter().all(|of| of.left.aligned && of.right.aligned);
        let variant = self.gradient_variant(rank, whole, of.window.is_some())?;
        self.check_smem(variant.smem_bytes)?;
        let (ranks, width) = (variant.rows, variant.columns);
        let rank_tiles = rank.div_ceil(ranks);
        let columns_of = |of: &One| of.columns.div_ceil(width).saturating_mul(of.taps.max(1));
        let tiles_of = |of: &One| columns_of(of).saturating_mul(rank_tiles);
        let tiles = products.iter().map(tiles_of).fold(0, usize::saturating_add);
        at_most("partial sums that have a flag", FLAGS, tiles)?;
        let slab = ranks * width * 4;
        let slots = self.slots(variant);
        let read = |of: &One| tokens * of.columns * of.taps.max(1) * self.size();
        let read: usize = products.iter().map(read).sum();
        let room = (read / 10).min(SLABS) / (tiles * slab).max(1);
        let most = tokens.div_ceil(SPAN).min(room).min(FLAGS / tiles.max(1)).max(1);
        // A slab is written and read, as so many tokens are read.
        let token = (ranks + width) * self.size();
        let splits = fullest(tokens, tiles, slots, most, (2 * slab).div_ceil(token));
        let span = span(tokens, splits);
        let splits = tokens.div_ceil(span).max(1);
        let partials = tiles * splits;
        at_most("partial sums that have a flag", FLAGS, partials)?;
        check_sizes(&[tokens, rank], 1 << 29)?;
        for of in products {
            check_sizes(&[of.columns], 1 << 29)?;
        }
        let tickets = partials + tiles * (ranks / 8);

        let mut params = self.params::<Gradient>();
        params.bind(pointer!(Gradient, header), None, Access::Update);
        params.bind(pointer!(Gradient, slabs), None, Access::Update);
        params.block = Gradient {
            slabs_offset: scratch.take(partials * slab),
            tokens: word(tokens),
            rank: word(rank),
            padded_rank: word(of.padded_rank),
            shrunk_parts: word(of.parts),
            splits: word(splits),
            span: word(span),
            partials: word(partials),
            tickets: word(tickets),
            beta: params.beta(offset_of!(Gradient, beta), of.old, self.scalars),
            stored_as: match first.out.spec.dtype {
                DType::F32 => STORED_F32,
                DType::Bf16 => STORED_BF16,
                DType::F16 => STORED_F16,
            },
            ..Gradient::default()
        };
        params.window = of.window.map(|of| taps::block(&of, tokens)).transpose()?;
        for (index, one) in products.iter().enumerate() {
            let One { left, right, columns, taps, out } = one;
            if let Some(window) = &mut params.window {
                window.operands[index].taps = word(*taps);
            }
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
                left_offset: left.offset,
                right_offset: right.offset,
                left_stride: left.stride,
                right_stride: right.stride,
                columns: word(*columns),
                column_tiles: word(columns_of(one)),
                tiles: word(tiles_of(one)),
                ..Entry::default()
            };
        }
        let passes = of.parts;
        self.flops += of.flops * passes as u64 + (2 * partials * slab / 4) as u64;
        // Slabs are met in L2: counted once, like all that one launch writes and reads.
        let again = (passes * rank_tiles - 1) * read;
        let bytes = of.bytes + (again + partials * slab) as u64;
        self.bytes += bytes;
        self.micros += sm80::streamed(bytes, self.cuda);
        self.push(variant, [tickets.min(slots) as u32, 1, 1], params);
        Ok(())
    }

    fn gradient_variant(
        &self,
        rank: usize,
        aligned: bool,
        gathers: bool,
    ) -> Result<&'static Variant, Refusal> {
        let dtype = self.activation;
        let all = variants::of(Kind::Gradient);
        // Ranks beyond the largest tile are more tiles.
        let most = all.iter().filter(|of| of.gathers == gathers).map(|of| of.ranks).max();
        Variant::find(
            Kind::Gradient,
            rank.min(most.unwrap_or(0)),
            |of| (of.dtype, of.aligned, of.gathers) == (dtype, aligned, gathers),
            || format!("no text of `gradient` for {dtype}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an H100's 396 slots 64 tiles fill all but twelve in one wave; seven spans would take a second one.
    #[test]
    fn partial_sums_fill_whole_waves() {
        assert_eq!(fullest(8192, 64, 396, 25, 57), 6);
        assert_eq!(fullest(8192, 64, 108 * 3, 25, 57), 5);
        // Never more than there may be, and none where one wave has room for no second.
        assert_eq!(fullest(8192, 64, 396, 3, 57), 3);
        assert_eq!(fullest(64, 300, 396, 1, 57), 1);
        // More tiles than slots: a split shortens the last wave.
        assert_eq!(fullest(8192, 400, 396, 25, 57), 8);
    }
}
