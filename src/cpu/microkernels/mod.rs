//! The products that the kernels are made of: tiles by the `gemm` crate, and for few tokens dot
//! products and scaled sums of our own, because `gemm` packs what is read but once.
//!
//! | file | computes | called for |
//! |---|---|---|
//! | `tile` | `tile = keep·tile + factor·lhs·rhsᵀ` | blocks of many rows |
//! | `ordered` | the same in an order that depends on the sum's length alone | `Problem::with_batch_invariant` |
//! | `dots` | dot products of rows | few tokens, w K-major |
//! | `scaled` | sums of scaled columns, several at a time | few tokens, w not K-major |
//! | `narrow` | the same in registers | one token, few columns: a shrink |
//! | `streamed` | the same one column after the other | one token, long columns |
//! | `halves` | dots and scaled sums of bf16, widened on the way | one or two tokens |
//! | `strided` | sums over seven indices, by strides | factors: composed, and their gradients |
//! | `prefetch` | the hint that streams give the caches | |

mod dots;
mod halves;
mod narrow;
mod ordered;
mod prefetch;
mod scaled;
mod streamed;
mod strided;
mod tile;

use core::ops::RangeInclusive;

pub(super) use self::dots::dots;
pub(super) use self::halves::{WIDENED, dots_of_halves, scaled_halves, streamed_halves};
pub(super) use self::narrow::{NARROW, narrow_sums};
pub(super) use self::scaled::scaled_sums;
pub(super) use self::streamed::streamed_sums;
pub(super) use self::strided::{Sums, Values, strided_sums};
pub(super) use self::tile::Tile;

/// Stored rows up to this length come from memory fastest one after the other; of longer ones
/// several side by side keep more of them on the way.
const SHORT: usize = 2048;
/// Columns that [`streamed_sums`] and [`streamed_halves`] are for.
pub(super) const STREAMED: RangeInclusive<usize> = NARROW + 1..=SHORT;
