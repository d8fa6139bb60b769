//! The text of `backward_gain.ptx`: one, whatever is stored how.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    vec![Text {
        template: "sm80/backward_gain.ptx",
        name: "backward_gain".to_owned(),
        numbers: Numbers {
            kind: Kind::BackwardGain,
            tile: Tile::Only,
            dtype: DType::F32,
            adapter: DType::F32,
            pair: false,
            k_major: false,
            aligned: false,
            gathers: false,
            ranks: 0,
            rows: 0,
            columns: 0,
            depth: 0,
            stages: 0,
            threads: 256,
            smem_bytes: 0,
            aside_bytes: 0,
            resident: 1,
        },
        more: Vec::new(),
    }]
}
