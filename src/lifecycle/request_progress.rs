//! How far the request of a watched call has come.

use std::sync::OnceLock;

use crate::rpc::Outcome;
use crate::sync::atomic::{AtomicU64, Ordering};

const UNKNOWN: u64 = u64::MAX;

/// How far a request body has come. The body may outlive its RPC, and live on another thread.
#[derive(Debug, Default)]
pub struct RequestProgress {
    messages: AtomicU64,
    cut: OnceLock<Outcome>,
}

impl RequestProgress {
    /// Sets how many messages have come; `None` where that is not known.
    pub(crate) fn set_messages(&self, messages: Option<u32>) {
        self.messages
            .store(messages.map_or(UNKNOWN, u64::from), Ordering::Relaxed);
    }

    pub(crate) fn messages(&self) -> Option<u32> {
        u32::try_from(self.messages.load(Ordering::Relaxed)).ok()
    }

    /// What the body failed with: the caller hung up, or the connection broke.
    pub(crate) fn cut(&self) -> Option<&Outcome> {
        self.cut.get()
    }

    /// Sets what the body failed with, once.
    pub(crate) fn set_cut(&self, cut: Outcome) {
        let _ = self.cut.set(cut);
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{model, spawn};

    #[test]
    fn messages_are_never_taken_back_and_all_are_there_at_the_end() {
        model(|| {
            let progress = Arc::new(RequestProgress::default());
            let body = Arc::clone(&progress);
            let body = spawn(move || {
                for messages in 1..=3 {
                    body.set_messages(Some(messages));
                }
            });
            let seen = [progress.messages(), progress.messages()].map(Option::unwrap);
            assert!(seen.is_sorted(), "{seen:?}");
            body.join().unwrap();
            assert_eq!(progress.messages(), Some(3));
        });
    }
}
