//! Products of a LoKr's w2 with a matrix whose columns are blocks, each block of a row a row of its own; sums in f32 in the
//! workspace. Called by `kronecker`.
//!
//! On images blocks are gathered as whole pixels are, through a window of their own: no kernel knows of them. With j a block
//! of pixel x of a line, row (m,j) of the product is
//!
//! ```text
//! where no pixel of a line is skipped    pixel x·blocks + j of lines so many times as long: x lies as it is, and the taps,
//!                                        the padding and m's own place along the line are so many times as far
//! elsewhere                              pixel x of image (j, image) in a copy of x block by block
//! ```

use super::abi::{self, Tapped};
use super::address::{Address, VECTOR};
use super::contract::{Strided, Sum, steps_of};
use super::factor::Factor;
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::params::word;
use super::scratch::ScratchLayout;
use super::taps::{self, tap_bytes};
use super::variants::Variant;
use super::{Building, Refusal, at_most, check_sizes};
use crate::DType;
use crate::product::{Load, Multiplier, Window};

/// A matrix in f32 in the workspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wide {
    offset: u64,
    /// Elements from row to row.
    pub(super) pitch: usize,
}

impl Wide {
    fn take(rows: usize, columns: usize, scratch: &mut ScratchLayout) -> Wide {
        let pitch = columns.next_multiple_of(VECTOR / 4);
        let bytes = rows.saturating_mul(pitch).saturating_mul(4);
        Wide { offset: scratch.take(bytes), pitch }
    }

    fn address(&self) -> Address {
        Address::in_scratch(self.offset, word(self.pitch.saturating_mul(4)))
    }

    pub(super) fn strided<const N: usize>(&self, steps: [usize; N]) -> Strided<N> {
        Strided::in_scratch(self.offset, DType::F32, steps)
    }
}

/// A matrix of which each block of a row is a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) address: Address,
    pub(super) rows: usize,
    /// Rows from one token to the next, and from one of its blocks to the next.
    pub(super) token: usize,
    pub(super) block: usize,
    /// Through which the rows are gathered.
    pub(super) window: Option<Window>,
}

/// A product that one launch forms in f32.
pub(super) struct InF32<'a> {
    pub(super) variant: &'static Variant,
    /// x and w of one tap, and how long the sum is.
    pub(super) segments: &'a [(Address, Address, usize)],
    /// Through which x is gathered, and bytes from one tap of w to the next.
    pub(super) window: Option<(Window, u64)>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Bytes that it reads.
    pub(super) read: u64,
}

/// The product of sizes.
pub(super) fn all<const N: usize>(sizes: [usize; N]) -> u64 {
    sizes.into_iter().fold(1, |all, of| all.saturating_mul(of as u64))
}

/// The window of rows whose `blocks` are pixels beside each other in a line.
fn side_by_side(of: Window, blocks: usize, width: usize) -> Result<Window, Refusal> {
    let beside = |[line, along]: [usize; 2]| [line, along.saturating_mul(blocks)];
    let wide = Window {
        pixels: beside(of.pixels),
        image: beside(of.image),
        padding: beside(of.padding),
        dilation: beside(of.dilation),
        channels: width,
        ..of
    };
    // As kernels count along an axis.
    let reach = wide.dilation[1].saturating_mul(wide.kernel[1]);
    let ends = [wide.pixels[1], wide.image[1], wide.padding[1], reach];
    let far = ends.into_iter().fold(0, usize::saturating_add);
    check_sizes(&[far], i32::MAX as usize)?;
    Ok(wide)
}

impl Building<'_> {
    pub(super) fn multiplied<const N: usize>(&mut self, sizes: [usize; N]) {
        self.flops = self.flops.saturating_add(all(sizes).saturating_mul(2));
    }

    /// The blocks where they lie; or copied, where rows do not follow each other or may not be loaded 16 bytes at a time, or
    /// where a window skips pixels.
    pub(super) fn blocks_of(
        &mut self,
        load: &Load,
        window: Option<Window>,
        [tokens, blocks, width]: [usize; 3],
        scratch: &mut ScratchLayout,
    ) -> Result<Blocks, Refusal> {
        let (there, size) = (Address::of_load(load)?, self.size());
        let stored = window.map_or(tokens, |_| load.spec.rows);
        let beside = window.is_none_or(|of| of.stride[1] == 1);
        let rows = tokens.saturating_mul(blocks);
        let (token, block) = if beside { (blocks, 1) } else { (1, tokens) };
        let window = match window {
            Some(of) if beside => Some(side_by_side(of, blocks, width)?),
            window => window.map(|of| Window { channels: width, ..of }),
        };
        let follow = load.spec.stride == blocks * width || stored <= 1;
        if beside && follow && there.aligned && (width * size).is_multiple_of(VECTOR) {
            let address = Address { stride: word(width * size), ..there };
            return Ok(Blocks { address, rows, token, block, window });
        }
        let pitch = width.next_multiple_of(VECTOR / size);
        let bytes = stored.saturating_mul(blocks).saturating_mul(pitch).saturating_mul(size);
        let offset = scratch.take(bytes);
        let stride = load.spec.stride;
        let (steps, sizes) = match beside {
            true => ([stride, width], [stored, blocks]),
            false => ([width, stride], [blocks, stored]),
        };
        let from = Strided::of_operand(load, [steps[0], steps[1], 0, 0, 1, 0, 0]);
        let to = Strided::in_scratch(offset, self.activation, [pitch, 1]);
        self.sum(&Sum::copy(from, to, [sizes[0], sizes[1], 1, width]))?;
        let address = Address::in_scratch(offset, word(pitch.saturating_mul(size)));
        Ok(Blocks { address, rows, token, block, window })
    }

    /// `x·fᵀ` of a factor of `[columns, depth]` for each tap, in f32; one of another type than the activations' comes in two
    /// parts. `transposed`: its rows count the taps, not its depth.
    pub(super) fn times(
        &mut self,
        tile: Tile,
        x: &Blocks,
        factor: &Load,
        [columns, depth]: [usize; 2],
        transposed: bool,
        scratch: &mut ScratchLayout,
    ) -> Result<Wide, Refusal> {
        let (size, k_major, taps) =
            (self.size(), factor.k_major, x.window.map_or(1, |of| of.taps()));
        let of_tap = if transposed { columns } else { depth };
        let along = k_major != transposed;
        let parts = if along && taps > 1 && !(of_tap * size).is_multiple_of(VECTOR) {
            let others = if transposed { depth } else { columns };
            self.taps_apart(factor, [others, taps, of_tap], transposed, scratch)?
        } else {
            let mut jobs = Vec::new();
            let factor = Factor::new(factor, factor.shape(), self.activation)?;
            let factor = factor.place(k_major, true, None, scratch, &mut jobs);
            self.pack(&jobs)?;
            [Some(factor.high), factor.low]
        };
        let apart = if along { of_tap.next_multiple_of(VECTOR / size) } else { of_tap };
        let segments: Vec<_> =
            parts.into_iter().flatten().map(|of| (x.address, of, depth)).collect();
        let tap = segments.first().map_or(0, |(_, of, _)| tap_bytes(of, along, apart, size));
        let gathers = x.window.is_some();
        let variant = variant(Kind::Plain, tile, self.activation, None, k_major, true, gathers)?;
        let count = segments.len();
        let read = all([size, x.rows, depth, count])
            .saturating_add(all([size, columns, taps, depth, count]));
        let window = x.window.map(|of| (of, tap));
        let (segments, rows) = (&segments[..], x.rows);
        self.in_f32(&InF32 { variant, segments, window, rows, columns, read }, scratch)
    }

    /// A factor `[others, (taps, of_tap)]` in its parts, along whose rows each tap begins where 16 bytes can be loaded.
    fn taps_apart(
        &mut self,
        factor: &Load,
        [others, taps, of_tap]: [usize; 3],
        transposed: bool,
        scratch: &mut ScratchLayout,
    ) -> Result<[Option<Address>; 2], Refusal> {
        let (size, dtype) = (self.size(), self.activation);
        let pitch = of_tap.next_multiple_of(VECTOR / size);
        let stride = taps.saturating_mul(pitch).saturating_mul(size);
        at_most("bytes from row to row", u32::MAX as usize, stride)?;
        let bytes = others.saturating_mul(stride);
        let is_pair = dtype != DType::F32 && factor.spec.dtype != dtype;
        let offset = scratch.take(bytes.saturating_mul(if is_pair { 2 } else { 1 }));
        let [row, along] = match (steps_of(factor), transposed) {
            (steps, false) => steps,
            ([row, depth], true) => [depth, row],
        };
        let from = Strided::of_operand(factor, [row, of_tap * along, 0, 0, along, 0, 0]);
        let to = Strided::in_scratch(offset, dtype, [pitch, 1]);
        let copy = Sum::copy(from, to, [others, taps, 1, of_tap]);
        self.sum(&Sum { low_offset: if is_pair { bytes as u64 } else { 0 }, ..copy })?;
        let high = Address::in_scratch(offset, word(stride));
        let low = Address { offset: offset.saturating_add(bytes as u64), ..high };
        Ok([Some(high), is_pair.then_some(low)])
    }

    pub(super) fn in_f32(
        &mut self,
        of: &InF32<'_>,
        scratch: &mut ScratchLayout,
    ) -> Result<Wide, Refusal> {
        let InF32 { variant, segments, window, rows, columns, read } = *of;
        let (depth, parts) = (segments[0].2, segments.len());
        let taps = window.map_or(1, |(of, _)| of.taps());
        let block = |(of, tap): (Window, u64)| -> Result<abi::Window, Refusal> {
            let mut block = taps::block(&of, rows)?;
            block.operands[..parts].fill(Tapped { tap, taps: word(taps), reserved: 0 });
            Ok(block)
        };
        let window = window.map(block).transpose()?;
        let out = Wide::take(rows, columns, scratch);
        self.multiplied([rows, taps, depth, columns, parts]);
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments,
            window,
            rows,
            columns,
            stored_columns: columns,
            rank: 0,
            shrunk: None,
            main_steps: parts.saturating_mul(taps).saturating_mul(depth.div_ceil(variant.depth)),
            border_steps: 0,
            y: out.address(),
            y_dtype: DType::F32,
            finish: None,
            factor: Multiplier::One,
            carried: 0,
            bytes: read.saturating_add(all([4, rows, columns])),
        })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channels, Convolution};

    /// The pixel of all images that `row` sees under a tap, as `load.pixel` works it out.
    fn seen(of: &abi::Window, row: u32, tap: u32) -> Option<u32> {
        let tap = [tap / of.kernel, tap % of.kernel];
        let (line, along) = (row / of.pixels, row % of.pixels);
        let axis = |at: u32, step: u32, tap: u32, reach: u32, shift: u32, unit: u32, size: u32| {
            let moved = tap.wrapping_mul(reach).wrapping_add(shift);
            let at = at.wrapping_mul(step).wrapping_add(moved);
            let inside = at as i32 >= 0 && at.is_multiple_of(unit) && at / unit < size;
            inside.then_some(at / unit)
        };
        let y =
            axis(line % of.lines, of.step_y, tap[0], of.reach_y, of.shift_y, of.unit_y, of.height);
        let x = axis(along, of.step_x, tap[1], of.reach_x, of.shift_x, of.unit_x, of.width);
        Some((line / of.lines * of.height + y?) * of.width + x?)
    }

    /// Block j of token m sees block j of the pixel that m sees: beside it in a line, or in an image behind all others.
    #[test]
    fn blocks_see_what_their_token_sees() {
        let all = [
            Convolution::new(2, [5, 4], [3, 3]).padding([1, 1]),
            Convolution::new(2, [6, 5], [3, 2]).padding([2, 1]).stride([2, 1]).dilation([1, 2]),
            Convolution::new(3, [4, 7], [2, 3]).padding([0, 2]).stride([1, 2]),
        ];
        let windows = all.iter().flat_map(|of| {
            let of = of.channels(Channels::Last);
            [Window::of_input(&of, 12), Window::of_output(&of, 12, Channels::Last)]
                .map(|window| (of.images, window))
        });
        for (images, window) in windows {
            let [tokens, stored] =
                [window.pixels, window.image].map(|[lines, pixels]| images * lines * pixels);
            let one = taps::block(&window, tokens).ok().unwrap();
            for blocks in [1, 2, 3] {
                let beside = window.stride[1] == 1;
                let of_blocks = match beside {
                    true => side_by_side(window, blocks, 12 / blocks).ok().unwrap(),
                    false => window,
                };
                let many = taps::block(&of_blocks, tokens * blocks).ok().unwrap();
                for (m, j) in (0..tokens).flat_map(|m| (0..blocks).map(move |j| (m, j))) {
                    for tap in 0..window.taps() as u32 {
                        let (row, place) = match beside {
                            true => (m * blocks + j, [blocks, j]),
                            false => (j * tokens + m, [1, j * stored]),
                        };
                        let want = seen(&one, m as u32, tap)
                            .map(|pixel| pixel as usize * place[0] + place[1]);
                        let got = seen(&many, row as u32, tap).map(|of| of as usize);
                        assert_eq!(got, want, "{window:?}, {blocks} blocks: {m}, {j}, tap {tap}");
                    }
                }
            }
        }
    }

    /// A line of so many blocks that kernels cannot count along it is refused.
    #[test]
    fn lines_are_counted_in_32_bits() {
        let of = Convolution::new(1, [1, 1 << 20], [1, 3]).padding([0, 1]).channels(Channels::Last);
        let window = Window::of_input(&of, 1 << 12);
        assert!(side_by_side(window, 1 << 8, 1 << 4).is_ok());
        let refused = side_by_side(window, 1 << 11, 2);
        assert!(matches!(refused, Err(Refusal::Limit(_))));
    }
}
