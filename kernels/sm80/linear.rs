//! The texts of `linear.ptx`. What is not listed does not exist.

use crate::numbers::{Kind, Numbers, Tile};
use crate::text::{HALVES, MAJORS, Text, suffixes};

/// Depth of one step.
const DEPTH: usize = 32;

/// A tile, and how its CTA is cut into warps: two rows of warps, `warp_columns` columns, each
/// warp `m_tiles` × `n_tiles` fragments of 16 × 8.
struct Cut {
    tile: Tile,
    m_tiles: usize,
    n_tiles: usize,
    warp_columns: usize,
    stages: usize,
    /// CTAs that a multiprocessor should hold: what ptxas divides the registers by.
    resident: usize,
}

/// 84 KiB with 64 ranks, so that it fits the 99 KiB of sm_86 and sm_89.
const LARGE: Cut =
    Cut { tile: Tile::Large, m_tiles: 4, n_tiles: 8, warp_columns: 4, stages: 3, resident: 1 };
/// Two of them fill a multiprocessor as one large tile does, and 160 large tiles are 320 of these: between the
/// waves of large tiles and what small ones bring from L2.
const MEDIUM: Cut =
    Cut { tile: Tile::Medium, m_tiles: 4, n_tiles: 8, warp_columns: 2, stages: 3, resident: 2 };
const SMALL: Cut =
    Cut { tile: Tile::Small, m_tiles: 2, n_tiles: 4, warp_columns: 2, stages: 5, resident: 2 };

/// Which kernel on which tile, with how many ranks in its main loop; each is rendered for both
/// types and both majors.
const ROWS: &[(Kind, &Cut, usize)] = &[
    (Kind::Plain, &LARGE, 0),
    (Kind::Plain, &MEDIUM, 0),
    (Kind::Plain, &SMALL, 0),
    (Kind::Leader, &LARGE, 16),
    (Kind::Leader, &LARGE, 32),
    (Kind::Leader, &LARGE, 64),
    (Kind::Leader, &MEDIUM, 16),
    (Kind::Leader, &MEDIUM, 32),
    (Kind::Leader, &SMALL, 16),
    (Kind::Leader, &SMALL, 64),
    (Kind::Recompute, &LARGE, 16),
    (Kind::Recompute, &LARGE, 32),
    (Kind::Recompute, &LARGE, 64),
    (Kind::Recompute, &MEDIUM, 16),
    (Kind::Recompute, &MEDIUM, 32),
    (Kind::Recompute, &SMALL, 16),
    (Kind::Recompute, &SMALL, 64),
    (Kind::Shrink, &SMALL, 0),
    (Kind::Merge, &SMALL, 0),
];
/// The same for an adapter that comes as a pair: of so many ranks half are its low part's.
const PAIRS: &[(Kind, &Cut, usize)] = &[
    (Kind::Plain, &LARGE, 0),
    (Kind::Plain, &MEDIUM, 0),
    (Kind::Plain, &SMALL, 0),
    (Kind::Leader, &LARGE, 16),
    (Kind::Leader, &LARGE, 32),
    (Kind::Leader, &LARGE, 64),
    (Kind::Leader, &LARGE, 128),
    (Kind::Leader, &MEDIUM, 32),
    (Kind::Leader, &SMALL, 16),
    (Kind::Leader, &SMALL, 64),
    (Kind::Leader, &SMALL, 128),
    (Kind::Recompute, &LARGE, 16),
    (Kind::Recompute, &LARGE, 32),
    (Kind::Recompute, &LARGE, 64),
    (Kind::Recompute, &MEDIUM, 32),
    (Kind::Recompute, &SMALL, 16),
    (Kind::Recompute, &SMALL, 64),
    (Kind::Recompute, &SMALL, 128),
];
/// By plain loads, from any address; one for pairs. What adds up segments alone, as a shrink and
/// a merge do, needs none for pairs.
const UNALIGNED: &[(Kind, &Cut, usize)] = &[(Kind::Plain, &SMALL, 0), (Kind::Shrink, &SMALL, 0)];
const UNALIGNED_PAIRS: &[(Kind, &Cut, usize)] = &[(Kind::Plain, &SMALL, 0)];
/// Of convolutions, whose x is gathered: a text for pairs that carries no ranks takes other adapters, too.
const GATHERED_PAIRS: &[(Kind, &Cut, usize)] = &[(Kind::Plain, &MEDIUM, 0)];
const GATHERED_UNALIGNED_PAIRS: &[(Kind, &Cut, usize)] = &[(Kind::Plain, &SMALL, 0)];
/// The same for w along the sum alone: an adapter is packed so, and a w that lies across goes in two passes.
const GATHERED_ALONG: &[(Kind, &Cut, usize)] =
    &[(Kind::Leader, &MEDIUM, 16), (Kind::Shrink, &SMALL, 0)];
const GATHERED_ALONG_UNALIGNED: &[(Kind, &Cut, usize)] = &[(Kind::Shrink, &SMALL, 0)];
const GATHERED_ALONG_PAIRS: &[(Kind, &Cut, usize)] = &[(Kind::Leader, &MEDIUM, 32)];

/// Leaders that can walk x and `down` alone before their tile. The others have a cause: on medium tiles with 32 ranks, or where
/// they gather, followers' steps would be 139 instructions instead of 123; those of 128 spill; in small tiles 16 ranks hide
/// behind what a step brings through shared memory, and of 64 so many small tiles share a multiprocessor that the walk takes
/// longer than the wait (8 % of 4096 × 1280² on 132 multiprocessors, by `tests/kernels/waves.rs`).
fn walks(kind: Kind, tile: Tile, ranks: usize, gathers: bool) -> bool {
    let carried = match tile {
        Tile::Large => 16..=64,
        Tile::Medium => 16..=16,
        _ => return false,
    };
    kind == Kind::Leader && carried.contains(&ranks) && !gathers
}

/// Whether w lies along the sum.
const BOTH: &[bool] = &MAJORS;
const ALONG: &[bool] = &[true];

pub(crate) fn texts() -> Vec<Text> {
    let lists = [
        (ROWS, true, false, false, BOTH),
        (UNALIGNED, false, false, false, BOTH),
        (PAIRS, true, true, false, BOTH),
        (UNALIGNED_PAIRS, false, true, false, BOTH),
        (GATHERED_PAIRS, true, true, true, BOTH),
        (GATHERED_UNALIGNED_PAIRS, false, true, true, BOTH),
        (GATHERED_ALONG, true, false, true, ALONG),
        (GATHERED_ALONG_UNALIGNED, false, false, true, ALONG),
        (GATHERED_ALONG_PAIRS, true, true, true, ALONG),
    ];
    let rows = lists.into_iter().flat_map(|(rows, aligned, pair, gathers, majors)| {
        rows.iter().map(move |row| (row, aligned, pair, gathers, majors))
    });
    let mut all = Vec::new();
    for (&(kind, cut, ranks), aligned, pair, gathers, majors) in rows {
        for (dtype, k_major) in
            HALVES.into_iter().flat_map(|of| majors.iter().map(move |&k| (of, k)))
        {
            let (rows, columns) = (2 * 16 * cut.m_tiles, 8 * cut.n_tiles * cut.warp_columns);
            // Rows of 32 elements of two bytes: x, w, and the ranks in the main loop.
            let stage = (rows + columns + ranks) * DEPTH * 2;
            let numbers = Numbers {
                kind,
                tile: cut.tile,
                dtype,
                adapter: dtype,
                pair,
                k_major,
                aligned,
                gathers,
                walks: walks(kind, cut.tile, ranks, gathers),
                ranks,
                rows,
                columns,
                depth: DEPTH,
                stages: cut.stages,
                threads: 64 * cut.warp_columns,
                // y's tile lies over the ring at the end.
                smem_bytes: (cut.stages * stage).max(rows * columns * 2),
                aside_bytes: 0,
                resident: cut.resident,
            };
            all.push(Text {
                template: "sm80/linear.ptx",
                name: suffixes(&numbers),
                numbers,
                more: vec![
                    ("stage", stage),
                    ("m_tiles", cut.m_tiles),
                    ("n_tiles", cut.n_tiles),
                    ("warp_columns", cut.warp_columns),
                ],
            });
        }
    }
    all
}
