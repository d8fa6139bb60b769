//! The texts of `pack.ptx`: from every type to every type.

use crate::DType;
use crate::numbers::Kind;
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    let types = DType::ALL.into_iter().flat_map(|to| DType::ALL.map(|from| [from, to]));
    let text = |[from, to]: [DType; 2]| {
        let name = format!("pack_{from}_{to}");
        Text::without_tiles("sm80/pack.ptx", name, Kind::Pack, [from, to])
    };
    types.map(text).collect()
}
