//! The text of `contract.ptx`: one, whatever is stored how.

use crate::DType;
use crate::numbers::Kind;
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    let types = [DType::F32; 2];
    vec![Text::without_tiles("sm80/contract.ptx", "contract".to_owned(), Kind::Contract, types)]
}
