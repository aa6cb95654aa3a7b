//! Preloaded into a process, it has the wall clock be off by as many seconds as the file says
//! that `CLOCK_STEP_FILE` names, as eight bytes in the order of the machine.
//!
//! `tests/it/clocks.rs` compiles it; it is no part of the crate.

use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

const REALTIME: c_int = 0;
const SHARED: c_int = 1;
const READ: c_int = 1;

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mmap(
        at: *mut c_void,
        bytes: usize,
        how: c_int,
        flags: c_int,
        fd: c_int,
        from: i64,
    ) -> *mut c_void;
}

/// Those of the file: it is mapped, for whoever reads the clock may be out of files.
fn offset() -> Option<&'static AtomicI64> {
    static OFFSET: OnceLock<Option<&'static AtomicI64>> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let file = File::open(std::env::var_os("CLOCK_STEP_FILE")?).ok()?;
        // SAFETY: the file has eight bytes, and is mapped for good.
        let mapped = unsafe { mmap(null_mut(), 8, READ, SHARED, file.as_raw_fd(), 0) };
        if mapped as isize == -1 {
            return None;
        }
        // SAFETY: of a page's alignment, and only ever read here.
        Some(unsafe { AtomicI64::from_ptr(mapped.cast()) })
    })
}

/// # Safety
///
/// As that of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: it is the caller's pointer, and the kernel checks it.
    let result = unsafe { syscall(CLOCK_GETTIME, c_long::from(clock), time) };
    if result == 0 && clock == REALTIME {
        let off = offset().map_or(0, |off| off.load(Ordering::SeqCst));
        // SAFETY: the kernel has just written to it.
        unsafe { (*time).seconds += off };
    }
    result as c_int
}
