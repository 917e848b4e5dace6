//! How much memory a piece of code takes, counted at the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread. Freeing on another thread than the allocating one makes the
/// figures wrong; the targets have one thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: passes everything on to the system's allocator, and counts in cells that neither allocate nor have a
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new are there together while the bytes are copied.
        grow(size);
        shrink(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn grow(size: usize) {
    let live = LIVE.get() + size as isize;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
    CALLS.set(CALLS.get() + 1);
}

fn shrink(size: usize) {
    LIVE.set(LIVE.get() - size as isize);
}

/// What a piece of code took from the allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub calls: usize,
    /// The most bytes that it held at a time, beyond those that it started with.
    pub peak: usize,
}

/// Runs `work` and counts.
pub fn count<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let (live, calls) = (LIVE.get(), CALLS.get());
    PEAK.set(live);
    let result = work();
    let taken = Taken {
        calls: CALLS.get() - calls,
        peak: (PEAK.get() - live) as usize,
    };
    (result, taken)
}
