//! A text to be rendered: what the lists beside the templates (`kernels/sm80/*.rs`) are made of.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};

#[derive(Clone)]
pub(crate) struct Text {
    /// Its template below `kernels/`.
    pub(crate) template: &'static str,
    /// No other text has it: that of its file.
    pub(crate) name: String,
    /// What plan and template need.
    pub(crate) numbers: Numbers,
    /// What the template alone needs.
    pub(crate) more: Vec<(&'static str, usize)>,
}

impl Text {
    /// Of a kernel without tiles, whose threads go over elements, rows or columns by themselves: from the type `from` to `to`.
    pub(crate) fn without_tiles(
        template: &'static str,
        name: String,
        kind: Kind,
        [from, to]: [DType; 2],
    ) -> Text {
        let numbers = Numbers {
            kind,
            tile: Tile::Only,
            dtype: to,
            adapter: from,
            pair: false,
            k_major: false,
            aligned: false,
            gathers: false,
            walks: false,
            ranks: 0,
            rows: 0,
            columns: 0,
            depth: 0,
            stages: 0,
            threads: 256,
            smem_bytes: 0,
            aside_bytes: 0,
            resident: 1,
        };
        Text { template, name, numbers, more: Vec::new() }
    }
}

/// Types that the tensor cores multiply without rounding.
pub(crate) const HALVES: [DType; 2] = [DType::Bf16, DType::F16];
/// Values of `k_major`.
pub(crate) const MAJORS: [bool; 2] = [true, false];

/// `leader_small_r64_pair_bf16_nmajor_unaligned`, of which only what is so is said.
pub(crate) fn suffixes(of: &Numbers) -> String {
    let ranks = if of.ranks > 0 { format!("_r{}", of.ranks) } else { String::new() };
    let pair = if of.pair { "_pair" } else { "" };
    let gathers = if of.gathers { "_gathered" } else { "" };
    let major = if of.k_major { "" } else { "_nmajor" };
    let unaligned = if of.aligned { "" } else { "_unaligned" };
    let (kind, tile) = (of.kind.name(), of.tile.name());
    format!("{kind}_{tile}{ranks}{gathers}{pair}_{}{major}{unaligned}", of.dtype)
}
