//! Sums of lost data, for client reports.

use std::sync::PoisonError;

use sentry_core::protocol::client_report::{ItemLoss, Reason};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Any thread adds losses; the thread of the queue takes them.
#[derive(Default)]
pub(crate) struct Losses {
    /// The taker looks often, and mostly in vain: this spares it the lock. Written with the
    /// sums locked.
    are_there: AtomicBool,
    sums: Mutex<Vec<ItemLoss>>,
}

impl Losses {
    pub(crate) fn add(&self, losses: impl IntoIterator<Item = ItemLoss>, reason: Reason) {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for mut loss in losses {
            // A report that is lost tells of what was lost before.
            loss.reason = loss.reason.or(Some(reason));
            add_to(&mut sums, loss);
        }
        self.are_there.store(true, Ordering::Release);
    }

    pub(crate) fn take(&self) -> Vec<ItemLoss> {
        if !self.are_there.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        self.are_there.store(false, Ordering::Release);
        std::mem::take(&mut *sums)
    }
}

/// One sum for each kind of data and reason.
pub(crate) fn add_to(sums: &mut Vec<ItemLoss>, loss: ItemLoss) {
    let same = |sum: &&mut ItemLoss| sum.category == loss.category && sum.reason == loss.reason;
    match sums.iter_mut().find(same) {
        Some(sum) => sum.quantity = sum.quantity.saturating_add(loss.quantity),
        None => sums.push(loss),
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use std::sync::Arc;

    use sentry_core::protocol::Event;
    use sentry_core::protocol::client_report::LossSource;

    use super::*;
    use crate::sync::{model, spawn};

    fn sum(losses: &[ItemLoss]) -> u64 {
        losses.iter().map(|loss| loss.quantity).sum()
    }

    #[test]
    fn whatever_is_added_is_taken_once() {
        model(|| {
            let losses = Arc::new(Losses::default());
            let threads = [1, 2].map(|events| {
                let losses = Arc::clone(&losses);
                spawn(move || {
                    for _ in 0..events {
                        losses.add(Event::default().losses(), Reason::QueueOverflow);
                    }
                })
            });
            let taken = [losses.take(), losses.take()].map(|losses| sum(&losses));
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(taken.iter().sum::<u64>() + sum(&losses.take()), 3);
            assert_eq!(sum(&losses.take()), 0);
        });
    }
}
