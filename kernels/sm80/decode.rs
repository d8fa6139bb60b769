//! The texts of `decode.ptx` and `decode_f32.ptx`. What is not listed does not exist.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::{MAJORS, Text};

const STAGES: usize = 3;
/// Bytes of shared memory of the adapter's warp.
const ASIDE: usize = 24 << 10;
/// Most warps. Nine leave each 168 registers, eight 255: what the sums of f32 take.
const WARPS: usize = 9;
const WARPS_F32: usize = 8;

/// Activations and adapter, each in both majors.
const TYPES: [(DType, DType); 5] = [
    (DType::Bf16, DType::Bf16),
    (DType::Bf16, DType::F32),
    (DType::F16, DType::F16),
    (DType::F16, DType::F32),
    (DType::F32, DType::F32),
];

pub(crate) fn texts() -> Vec<Text> {
    let all = TYPES.into_iter().flat_map(|of| MAJORS.map(|k_major| (of, k_major)));
    all.map(|((dtype, adapter), k_major)| text(dtype, adapter, k_major)).collect()
}

fn text(dtype: DType, adapter: DType, k_major: bool) -> Text {
    let exact = dtype == DType::F32;
    // A strip of w and a step of the sum: a warp's part of a stage is 4 KiB of w, as chunks of
    // 16 bytes a lane, and behind it x of sixteen tokens.
    let (strip, depth) = match (exact, k_major) {
        (true, _) => (32, 32),
        (false, true) => (32, 64),
        (false, false) => (64, 32),
    };
    let stage = 4096 + 16 * depth * dtype.size();
    // Words of eight tokens' sums, as the kernel scatters them.
    let tile_words = match (exact, k_major) {
        (true, _) => 256,
        (false, true) => 256,
        (false, false) => 544,
    };
    let sums = 2 * tile_words * 4;
    // Of the adapter: eight chunks of four elements a lane, and x beside each two or four.
    let wide_adapter = adapter != dtype;
    let aside_stage =
        8 * 32 * if wide_adapter { 16 } else { 8 } + if k_major { 2048 } else { 1024 };
    let template = if exact { "sm80/decode_f32.ptx" } else { "sm80/decode.ptx" };
    let beside = if wide_adapter { "_f32" } else { "" };
    let major = if k_major { "" } else { "_nmajor" };
    Text {
        template,
        name: format!("decode_{dtype}{beside}{major}"),
        numbers: Numbers {
            kind: Kind::Decode,
            tile: Tile::Only,
            dtype,
            adapter,
            pair: false,
            k_major,
            aligned: true,
            gathers: false,
            walks: false,
            ranks: 64,
            rows: 16,
            columns: strip,
            depth,
            stages: STAGES,
            threads: 32 * if exact { WARPS_F32 } else { WARPS },
            // A warp that streams has its ring and its sums.
            smem_bytes: STAGES * stage + sums,
            aside_bytes: ASIDE + sums,
            resident: 1,
        },
        more: vec![
            ("wide_adapter", wide_adapter.into()),
            ("strip", strip),
            ("halves", depth / 32),
            ("tiles", strip / 16),
            ("stage", stage),
            ("tile_words", tile_words),
            ("sums", sums),
            ("aside", ASIDE),
            ("aside_stage", aside_stage),
            ("aside_stages", ASIDE / aside_stage),
        ],
    }
}
