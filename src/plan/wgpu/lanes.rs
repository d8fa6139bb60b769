//! How threads share the work of `decode` and `shrink`, which read straight from memory.

use super::shader::{Shader, Size};

/// What a workgroup takes at most, where several threads share a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shared {
    /// Tokens of a workgroup.
    pub(crate) tokens: usize,
    /// Columns (ranks) of a workgroup.
    pub(crate) columns: usize,
    /// Threads of a workgroup; as many share a sum as the tile leaves.
    pub(crate) threads: usize,
}

/// Tokens of a thread where sums are shared.
const SHARED_TILE: usize = 4;

/// Few different ones, because each is a text of its own: what a problem has less of than a tile,
/// threads repeat and do not store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    /// Tokens of a thread, and its groups of four columns.
    pub(super) tile: usize,
    pub(super) fours: usize,
    /// Threads along the tokens, along the columns, and those that share a sum.
    pub(super) tokens: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
}

impl Lanes {
    pub(super) fn sharing(tokens: usize, columns: usize, most: Shared) -> Lanes {
        let tile = tokens.min(SHARED_TILE).next_power_of_two();
        let tokens = tokens.min(most.tokens).div_ceil(tile).next_power_of_two();
        let columns = if columns <= 8 { 2 } else { most.columns / 4 };
        Lanes { tile, fours: 1, tokens, columns, depth: most.threads / tokens / columns }
    }

    pub(super) fn numbers(&self, shader: &mut Shader<'_>) {
        shader.constant("TILE_TOKENS", self.tile);
        shader.constant("TILE_FOURS", self.fours);
        shader.constant("LANES_M", self.tokens);
        shader.constant("LANES_N", self.columns);
        shader.constant("LANES_K", self.depth);
    }

    /// Tokens of a workgroup.
    pub(super) fn tile_tokens(&self) -> usize {
        self.tile * self.tokens
    }

    /// Columns of a workgroup.
    pub(super) fn tile_columns(&self) -> usize {
        4 * self.fours * self.columns
    }

    fn block(&self) -> [u32; 3] {
        [self.columns as u32, self.depth as u32, self.tokens as u32]
    }

    /// Where a sum is shared, its parts meet in workgroup memory, all of them (`reduce_lanes`).
    pub(super) fn size(&self, grid: [u32; 3]) -> Size {
        let words = match self.depth {
            1 => 0,
            depth => self.tile_tokens() * self.columns * depth,
        };
        Size { grid, block: self.block(), smem_bytes: 16 * words as u32 }
    }

    /// As `size`, where half of them meet at a time (`reduce_tree`).
    pub(super) fn size_of_tree(&self, grid: [u32; 3]) -> Size {
        let words = ((self.tile_tokens() * self.columns) | self.columns) * self.depth / 2;
        Size { grid, block: self.block(), smem_bytes: 16 * words as u32 }
    }
}
