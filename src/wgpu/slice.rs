//! Where operands and the workspace are: parts of the caller's `wgpu::Buffer`s.

use core::hash::{Hash, Hasher};
use core::ops::Range;

use super::wgpu;
use crate::{Buffer, DType, Matrix, Place};

/// Elements in a `wgpu::Buffer`, to be read or written. f16 and bf16 lie two to a word, so an
/// operand may begin in the middle of one; where it begins at no multiple of 16 bytes, its problem says so
/// ([`Layout::align`](crate::Layout::align)). The buffer needs the usage `STORAGE`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice<'a> {
    buffer: &'a wgpu::Buffer,
    dtype: DType,
    start: u64,
    end: u64,
}

impl<'a> Slice<'a> {
    /// The whole buffer.
    pub fn new(buffer: &'a wgpu::Buffer, dtype: DType) -> Slice<'a> {
        Slice::part(buffer, dtype, 0..buffer.size())
    }

    /// A part of it, in bytes; its start is a multiple of the element's size. What lies
    /// behind the buffer's end is no part.
    pub fn part(buffer: &'a wgpu::Buffer, dtype: DType, bytes: Range<u64>) -> Slice<'a> {
        let end = bytes.end.min(buffer.size());
        Slice { buffer, dtype, start: bytes.start.min(end), end }
    }

    /// The buffer that it is a part of.
    pub fn buffer(&self) -> &'a wgpu::Buffer {
        self.buffer
    }
}

/// A whole buffer of elements of one type.
impl<'a> From<(&'a wgpu::Buffer, DType)> for Slice<'a> {
    fn from((buffer, dtype): (&'a wgpu::Buffer, DType)) -> Slice<'a> {
        Slice::new(buffer, dtype)
    }
}

impl<'a> From<Matrix<(&'a wgpu::Buffer, DType)>> for Matrix<Slice<'a>> {
    fn from(of: Matrix<(&'a wgpu::Buffer, DType)>) -> Matrix<Slice<'a>> {
        of.map(Into::into)
    }
}

impl Buffer for Slice<'_> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn len(&self) -> usize {
        let elements = (self.end - self.start) / self.dtype.size() as u64;
        usize::try_from(elements).unwrap_or(usize::MAX)
    }

    fn place(&self) -> Place {
        // wgpu hashes the number that it gives to each buffer, and nothing else.
        let mut number = Number(0);
        self.buffer.hash(&mut number);
        Place { allocation: number.0, byte: self.start }
    }
}

/// A hasher that keeps a single number as it is. More of them are mixed, and could then
/// meet; two parts of one buffer always agree, so that no overlap is missed.
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, number: u64) {
        // Odd, so that one number more is one-to-one.
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
    }
}

/// Scratch memory of a plan: [`Plan::workspace_len`](crate::Plan::workspace_len) bytes in a
/// buffer of the caller's with the usage `STORAGE`. One serves any number of plans that run
/// one after the other; what it holds between them means nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workspace<'a> {
    pub(super) buffer: Option<&'a wgpu::Buffer>,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl<'a> Workspace<'a> {
    /// None: for plans that need no bytes.
    pub fn none() -> Workspace<'a> {
        Workspace { buffer: None, start: 0, end: 0 }
    }

    /// The whole buffer.
    pub fn new(buffer: &'a wgpu::Buffer) -> Workspace<'a> {
        Workspace::part(buffer, 0..buffer.size())
    }

    /// A part of it, in bytes. Its start is rounded up to what the device binds; what lies
    /// behind the buffer's end is no part.
    pub fn part(buffer: &'a wgpu::Buffer, bytes: Range<u64>) -> Workspace<'a> {
        let end = bytes.end.min(buffer.size());
        Workspace { buffer: Some(buffer), start: bytes.start.min(end), end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_kept_and_two_are_told_apart() {
        let hash = |numbers: &[u64]| {
            let mut number = Number(0);
            numbers.iter().for_each(|&of| number.write_u64(of));
            number.finish()
        };
        assert_eq!(hash(&[7]), 7);
        assert_ne!(hash(&[0, 7]), hash(&[1, 7]));
        assert_ne!(hash(&[1, 6]), hash(&[1, 7]));
    }
}
