//! The texts of `gradient.ptx`. What is not listed does not exist.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::Text;

/// Columns of a tile, and its ring.
const COLUMNS: usize = 128;
const STAGES: usize = 4;
/// Ranks of a tile, each for every type, aligned and not.
const RANKS: [usize; 2] = [16, 64];
/// Of texts that gather: between the two, so that one is enough.
const GATHERED_RANKS: usize = 32;
/// Tokens of a step.
const DEPTHS: [(DType, usize); 3] = [(DType::Bf16, 32), (DType::F16, 32), (DType::F32, 16)];

pub(crate) fn texts() -> Vec<Text> {
    let mut all = Vec::new();
    for (dtype, depth) in DEPTHS {
        let ranks = RANKS.map(|of| (of, false)).into_iter().chain([(GATHERED_RANKS, true)]);
        let rows = ranks.flat_map(|(of, gathers)| [(of, gathers, true), (of, gathers, false)]);
        for (ranks, gathers, aligned) in rows {
            let stage = (COLUMNS + ranks) * depth * dtype.size();
            let unaligned = if aligned { "" } else { "_unaligned" };
            let gathered = if gathers { "_gathered" } else { "" };
            all.push(Text {
                template: "sm80/gradient.ptx",
                name: format!("gradient_r{ranks}{gathered}_{dtype}{unaligned}"),
                numbers: Numbers {
                    kind: Kind::Gradient,
                    tile: Tile::Only,
                    dtype,
                    adapter: dtype,
                    pair: false,
                    k_major: false,
                    aligned,
                    gathers,
                    walks: false,
                    ranks,
                    rows: ranks,
                    columns: COLUMNS,
                    depth,
                    stages: STAGES,
                    threads: 128,
                    smem_bytes: STAGES * stage,
                    aside_bytes: 0,
                    resident: 3,
                },
                more: vec![("stage", stage)],
            });
        }
    }
    all
}
