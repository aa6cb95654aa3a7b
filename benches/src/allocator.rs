//! Counts what is allocated, for all binaries of this package.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::Relaxed};

static IS_COUNTED: AtomicBool = AtomicBool::new(true);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

/// How often memory was asked for, also to grow what is there.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Relaxed)
}

/// Bytes that were allocated and not freed.
pub fn live_bytes() -> isize {
    LIVE_BYTES.load(Relaxed)
}

/// Stops counting, for good: threads would meet at the counters, those the most that
/// allocate the most.
pub fn stop_counting() {
    IS_COUNTED.store(false, Relaxed);
}

struct Counting;

#[global_allocator]
static GLOBAL: Counting = Counting;

fn count(allocations: usize, bytes: isize) {
    if IS_COUNTED.load(Relaxed) {
        ALLOCATIONS.fetch_add(allocations, Relaxed);
        LIVE_BYTES.fetch_add(bytes, Relaxed);
    }
}

// A `Layout` is at most `isize::MAX` bytes.
// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, new_size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
