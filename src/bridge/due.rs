//! Work that is due once in a while, for whichever thread comes by.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A recurring point in time, which each time one thread alone is given.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// When it is due next, in the unit of the caller's clock.
    at: AtomicU64,
}

impl Due {
    /// Whether it is due, and the caller is the one to act. If so, it is due again after
    /// `interval`.
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
