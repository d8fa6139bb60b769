//! The texts of `linear_f32.ptx`. What is not listed does not exist.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::{MAJORS, Text, suffixes};

/// Depth of one step: rows of 64 bytes, as in 16 bits.
const DEPTH: usize = 16;

/// A tile: `warp_rows` rows of two warps, each 32 × `32 · n_quads`.
struct Cut {
    tile: Tile,
    warp_rows: usize,
    n_quads: usize,
    stages: usize,
    resident: usize,
}

/// Eight by eight sums a thread; its ring twice fits the 100 KiB of sm_86 and sm_89.
const LARGE: Cut = Cut { tile: Tile::Large, warp_rows: 4, n_quads: 2, stages: 3, resident: 2 };
/// The same with ranks, which take registers. The border of 64 is four steps, and so many the
/// ring must hold.
const LEADER: Cut = Cut { tile: Tile::Large, warp_rows: 4, n_quads: 2, stages: 4, resident: 1 };
const SMALL: Cut = Cut { tile: Tile::Small, warp_rows: 2, n_quads: 1, stages: 4, resident: 3 };
const TF32: Cut = Cut { tile: Tile::Tf32, warp_rows: 4, n_quads: 2, stages: 3, resident: 2 };

/// Which kernel on which tile, with how many ranks, whether it loads 16 bytes at a time, and whether it gathers x; each
/// is rendered for both majors. A shrink and a merge are `Plain` with a factor.
const ROWS: &[(Kind, &Cut, usize, bool, bool)] = &[
    (Kind::Plain, &LARGE, 0, true, false),
    (Kind::Plain, &SMALL, 0, true, false),
    (Kind::Plain, &SMALL, 0, false, false),
    (Kind::Leader, &LEADER, 16, true, false),
    (Kind::Leader, &LEADER, 64, true, false),
    (Kind::Leader, &SMALL, 16, true, false),
    (Kind::Leader, &SMALL, 64, true, false),
    (Kind::Recompute, &SMALL, 16, true, false),
    (Kind::Plain, &TF32, 0, true, false),
    (Kind::Leader, &TF32, 16, true, false),
    (Kind::Plain, &SMALL, 0, true, true),
    (Kind::Plain, &SMALL, 0, false, true),
];

pub(crate) fn texts() -> Vec<Text> {
    let mut all = Vec::new();
    for (&(kind, cut, ranks, aligned, gathers), k_major) in
        ROWS.iter().flat_map(|row| MAJORS.map(|major| (row, major)))
    {
        let (rows, columns) = (32 * cut.warp_rows, 64 * cut.n_quads);
        let stage = (rows + columns + ranks) * DEPTH * 4;
        let numbers = Numbers {
            kind,
            tile: cut.tile,
            dtype: DType::F32,
            adapter: DType::F32,
            pair: false,
            k_major,
            aligned,
            gathers,
            walks: false,
            ranks,
            rows,
            columns,
            depth: DEPTH,
            stages: cut.stages,
            threads: 64 * cut.warp_rows,
            smem_bytes: cut.stages * stage,
            aside_bytes: 0,
            resident: cut.resident,
        };
        all.push(Text {
            template: "sm80/linear_f32.ptx",
            name: suffixes(&numbers),
            numbers,
            more: vec![("stage", stage), ("warp_rows", cut.warp_rows), ("n_quads", cut.n_quads)],
        });
    }
    all
}
