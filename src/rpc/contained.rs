//! Runs foreign code whose panics must not harm a call.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic was made with.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Runs `f`; `None` where it panics. The caller must not use what `f` may have left half done.
pub(crate) fn contained<T>(f: impl FnOnce() -> T) -> Option<T> {
    caught(f).map_err(discard).ok()
}

/// Runs `f`, for a caller that deals with the payload of its panic.
#[expect(
    clippy::disallowed_methods,
    reason = "the callers deal with the payload"
)]
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Drops a payload. That may panic, with a payload that panics as it is dropped, and so on.
pub(crate) fn discard(payload: Payload) {
    if let Err(again) = caught(|| drop(payload)) {
        mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Self(self.0 + 1));
        }
    }

    #[test]
    fn nothing_gets_out() {
        assert_eq!(contained(|| 1), Some(1));
        assert_eq!(contained(|| panic!("text")), None::<()>);
        assert_eq!(contained(|| panic_any(Bomb(0))), None::<()>);
    }
}
