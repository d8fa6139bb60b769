//! The texts of `pack.ptx`: from every type to every type.

use crate::DType;
use crate::numbers::{Kind, Numbers, Tile};
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    let types = DType::ALL.into_iter().flat_map(|to| DType::ALL.map(|from| (from, to)));
    let text = |(from, to)| Text {
        template: "sm80/pack.ptx",
        name: format!("pack_{from}_{to}"),
        numbers: Numbers {
            kind: Kind::Pack,
            tile: Tile::Only,
            dtype: to,
            adapter: from,
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
    };
    types.map(text).collect()
}
