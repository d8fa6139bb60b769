//! An allocator that counts what each thread asks for by itself. Whoever counts makes it the executable's:
//!
//! ```
//! use test_support::counting::Counting;
//!
//! #[global_allocator]
//! static COUNTING: Counting = Counting;
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, and a count.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may allocate after its counter has gone.
    let _ = ALLOCATIONS.try_with(|of| of.set(of.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, bytes: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.alloc(bytes) }
    }
    unsafe fn realloc(&self, at: *mut u8, bytes: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.realloc(at, bytes, len) }
    }
    unsafe fn dealloc(&self, at: *mut u8, bytes: Layout) {
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.dealloc(at, bytes) }
    }
}

/// How often this thread asks for memory meanwhile.
pub fn allocated(body: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    body();
    ALLOCATIONS.get() - before
}
