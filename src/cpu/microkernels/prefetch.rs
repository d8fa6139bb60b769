//! What a stream of rows asks the caches for ahead of itself.

use pulp::Simd;

/// Bytes between what a sum reads and what it asks the caches for: most of a page, so that the
/// next one is on its way, and found in the page tables, before the stream gets there.
const AHEAD: usize = 3072;
/// Bytes of a cache line. A stream asks once for each: asking twice was measured to be worth no
/// more than not asking.
const LINE: usize = 64;

/// Asks for what a stream of rows will read [`AHEAD`] bytes after `value`.
#[inline(always)]
pub(super) fn ahead<T>(value: &T) {
    let address = core::ptr::from_ref(value).cast::<i8>().wrapping_add(AHEAD);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: nothing is read that the program could see, and no address is wrong.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[inline(always)]
pub(super) fn vectors_of_line<S: Simd>() -> usize {
    (LINE / size_of::<S::f32s>()).max(1)
}
