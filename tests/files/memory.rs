//! Counts what a thread allocates, for `speed.rs` and `mutations.rs`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn more(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
    LIVE.set(LIVE.get().wrapping_add(size));
    // Memory of another thread may be freed here: then the count lies below zero for a while.
    if LIVE.get() < usize::MAX / 2 {
        PEAK.set(PEAK.get().max(LIVE.get()));
    }
}

// SAFETY: the system's allocator does the work; beside it only numbers change.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        // SAFETY: likewise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        more(size);
        // SAFETY: likewise.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that a call allocated on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// The largest single allocation.
    pub(crate) largest: usize,
    /// At most at one time.
    pub(crate) peak: usize,
}

pub(crate) fn measured<T>(call: impl FnOnce() -> T) -> (T, Memory) {
    LARGEST.set(0);
    LIVE.set(0);
    PEAK.set(0);
    let result = call();
    (result, Memory { largest: LARGEST.get(), peak: PEAK.get() })
}
