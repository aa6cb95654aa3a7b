//! Waits for what other threads and processes do.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gated::LONG;

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `look` until it returns what is waited for; its errors say what is there instead.
#[track_caller]
pub(crate) fn wait_for<T, E: Debug>(mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(start.elapsed() < LONG, "{instead:?}"),
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until `look` returns `expected`.
#[track_caller]
pub(crate) fn wait_until<T: Debug + PartialEq>(expected: &T, mut look: impl FnMut() -> T) {
    wait_for(|| match look() {
        found if found == *expected => Ok(()),
        other => Err(other),
    });
}
