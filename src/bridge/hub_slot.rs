//! A hub that is current on one thread at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_core::Hub;

const FREE: u64 = 0;

/// A hub of a local root, and who has it.
///
/// sentry-core panics in user code where `with_scope` runs on one hub on two
/// threads, so that a slot that one thread holds is refused to all others.
#[derive(Debug)]
pub(crate) struct HubSlot {
    pub(crate) hub: Arc<Hub>,
    /// The number of the thread that holds the slot.
    thread: AtomicU64,
    /// How often that thread has entered it; written by that thread alone.
    depth: AtomicU64,
    /// The span by which that thread came in.
    holder: AtomicU64,
}

/// The answer to a thread that wants to hold a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// Held by this thread for the first time.
    First,
    /// Held by this thread once more.
    Again,
    /// Held by another thread, by way of this span.
    HeldBy(u64),
}

impl HubSlot {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            thread: AtomicU64::new(FREE),
            depth: AtomicU64::new(0),
            holder: AtomicU64::new(0),
        }
    }

    pub(crate) fn acquire(&self, thread: u64, span: u64) -> Acquired {
        match self
            .thread
            .compare_exchange(FREE, thread, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => {
                self.depth.store(1, Ordering::Relaxed);
                self.holder.store(span, Ordering::Relaxed);
                Acquired::First
            }
            Err(holder) if holder == thread => {
                self.depth.fetch_add(1, Ordering::Relaxed);
                Acquired::Again
            }
            Err(_) => Acquired::HeldBy(self.holder.load(Ordering::Relaxed)),
        }
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
        assert_eq!(slot.acquire(1, 10), Acquired::First);
        assert_eq!(slot.acquire(1, 11), Acquired::Again);
        assert_eq!(slot.acquire(2, 12), Acquired::HeldBy(10));
        slot.release();
        assert_eq!(slot.acquire(2, 12), Acquired::HeldBy(10));
        slot.release();
        assert_eq!(slot.acquire(2, 12), Acquired::First);
    }
}
