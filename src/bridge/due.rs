//! What is due now and then.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A time that comes again and again, each time for one thread.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// When it comes next.
    at: AtomicU64,
}

impl Due {
    /// Whether it has come for who asks: for others, and again, it comes `interval` later.
    pub(crate) fn has_come(&self, now: u64, interval: u64) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        let next = now.saturating_add(interval);
        let order = Ordering::Relaxed;
        now >= at && self.at.compare_exchange(at, next, order, order).is_ok()
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{model, spawn};

    #[test]
    fn it_comes_for_one_of_all_that_ask() {
        model(|| {
            let due = Arc::new(Due::default());
            let threads = [0, 1, 2].map(|now| {
                let due = Arc::clone(&due);
                spawn(move || due.has_come(now, 10))
            });
            let came = threads.map(|thread| thread.join().unwrap());
            assert_eq!(came.iter().filter(|came| **came).count(), 1, "{came:?}");
            assert!(due.has_come(12, 10));
            assert!(!due.has_come(12, 10));
        });
    }
}
