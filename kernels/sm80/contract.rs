//! The texts of `contract.ptx`: one for each type of factors.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    let text = |dtype| Text {
        template: "sm80/contract.ptx",
        name: format!("contract_{dtype}"),
        numbers: Numbers {
            kind: Kind::Contract,
            tile: Tile::Only,
            dtype,
            adapter: dtype,
            pair: false,
            k_major: false,
            aligned: false,
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
    };
    DType::ALL.map(text).to_vec()
}
