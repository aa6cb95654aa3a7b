//! A hub that is current on one thread at a time.

use std::sync::Arc;

use sentry_core::Hub;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const FREE: u64 = 0;

/// A hub of a local root, and the thread that holds it.
///
/// sentry-core panics in user code where `with_scope` runs on one hub on two threads. So a slot
/// that one thread holds is refused to all others.
#[derive(Debug)]
pub(crate) struct HubSlot {
    pub(crate) hub: Arc<Hub>,
    /// The number of the thread that holds the slot.
    thread: AtomicU64,
    /// How often that thread has entered it; written by that thread alone.
    depth: AtomicU64,
    /// The part of the root whose span is on the scope.
    pub(crate) part: AtomicU32,
}

impl HubSlot {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            thread: AtomicU64::new(FREE),
            depth: AtomicU64::new(0),
            part: AtomicU32::new(1),
        }
    }

    /// Holds the slot for this thread, once more where it does already;
    /// `false` where another thread holds it.
    pub(crate) fn acquire(&self, thread: u64) -> bool {
        match self
            .thread
            .compare_exchange(FREE, thread, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => self.depth.store(1, Ordering::Relaxed),
            Err(holder) if holder == thread => {
                self.depth.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return false,
        }
        true
    }

    /// Gives back one acquisition of this thread.
    pub(crate) fn release(&self) {
        if self.depth.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.thread.store(FREE, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time() {
        let slot = HubSlot::new(Arc::new(Hub::new(None, Arc::default())));
        assert!(slot.acquire(1));
        assert!(slot.acquire(1));
        assert!(!slot.acquire(2));
        slot.release();
        assert!(!slot.acquire(2));
        slot.release();
        assert!(slot.acquire(2));
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use loom::cell::UnsafeCell;
    use loom::thread::spawn;

    use super::*;
    use crate::sync::model;

    #[test]
    fn nobody_is_in_it_with_somebody_else_and_nobody_stays() {
        model(|| {
            let hub = Arc::new(Hub::new(None, Arc::default()));
            // The cell is what only one of them may write to at a time.
            let shared = Arc::new((HubSlot::new(hub), UnsafeCell::new(())));
            let threads = [1, 2, 3].map(|number| {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    let (slot, inside) = &*shared;
                    if slot.acquire(number) {
                        inside.with_mut(|_| ());
                        assert!(slot.acquire(number));
                        slot.release();
                        inside.with_mut(|_| ());
                        slot.release();
                    }
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(shared.0.acquire(4));
        });
    }
}
