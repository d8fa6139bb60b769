//! The text of `backward_gain.ptx`: one, whatever is stored how.

use crate::DType;
use crate::numbers::Kind;
use crate::text::Text;

pub(crate) fn texts() -> Vec<Text> {
    let types = [DType::F32; 2];
    vec![Text::without_tiles(
        "sm80/backward_gain.ptx",
        "backward_gain".to_owned(),
        Kind::BackwardGain,
        types,
    )]
}
