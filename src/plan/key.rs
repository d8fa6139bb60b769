//! A short number for a long text, with which maps begin. Texts that share one are still told
//! apart: whoever looks by it compares what it found. build.rs includes this file, and numbers the
//! PTX texts with it.

use core::hash::Hasher;

/// Odd, with bits all over.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of `text`.
pub(crate) fn of(text: &str) -> u64 {
    let mut key = Key::default();
    key.write(text.as_bytes());
    key.finish()
}

/// As a hasher: quick, and not for keys of strangers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Key(u64);

impl Hasher for Key {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length tells rests apart that end in zeros.
        self.write_u64(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(23) ^ number).wrapping_mul(MIX);
        // The upper half has seen every bit, and maps look at both ends.
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}
