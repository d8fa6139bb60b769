//! Where the elements of a matrix that `wgmma` reads lie in shared memory: the descriptor's fields, and
//! the ISA's canonical layouts. A chunk is 16 bytes; along k, or along the rows (columns) of the operand
//! when these lie together.

use crate::tensor::Swizzle;

/// A descriptor, taken apart; all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) start: u32,
    pub(crate) leading: u32,
    pub(crate) stride: u32,
    pub(crate) swizzle: Swizzle,
}

impl Descriptor {
    pub(crate) fn new(bits: u64) -> Result<Descriptor, String> {
        let field = |at: u32| ((bits >> at) as u32 & 0x3FFF) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        let stray = bits & !(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62);
        if stray != 0 {
            return Err(format!(
                "the descriptor {bits:#018x} has bits that mean nothing: {stray:#x}"
            ));
        }
        if bits >> 49 & 7 != 0 {
            return Err(format!("the descriptor {bits:#018x} has a base offset: not simulated"));
        }
        let descriptor =
            Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle };
        // Bits that the swizzle takes for the row must be those of row 0.
        let rows = swizzle.period().saturating_sub(1) & !swizzle.span().saturating_sub(1);
        if descriptor.start & rows != 0 {
            return Err(format!(
                "the matrix begins at {:#x}, inside of an atom of {} bytes: without a base offset it is \
                 aligned to that",
                descriptor.start,
                swizzle.period()
            ));
        }
        Ok(descriptor)
    }

    /// Chunk `c` of k in `row`, where k lies together.
    pub(crate) fn along_k(&self, row: u32, c: u32) -> u32 {
        let (eight, one) = (row / 8, row % 8);
        let plain = match self.swizzle {
            Swizzle::None => self.start + eight * self.stride + one * 16 + c * self.leading,
            s => self.start + eight * self.stride + one * s.span() + c * 16,
        };
        self.swizzle.apply(plain)
    }

    /// Rows `8c` to `8c + 7` of one `k`, where rows lie together (elements of 16 bits).
    pub(crate) fn along_rows(&self, k: u32, c: u32) -> u32 {
        let (eight, one) = (k / 8, k % 8);
        let plain = match self.swizzle {
            Swizzle::None => self.start + c * self.stride + one * 16 + eight * self.leading,
            s => {
                let wide = s.span() / 16;
                self.start
                    + c % wide * 16
                    + c / wide * self.leading
                    + one * s.span()
                    + eight * self.stride
            }
        };
        self.swizzle.apply(plain)
    }
}
