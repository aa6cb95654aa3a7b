//! A limit on the events of one method and code.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::report::outcome::RpcOutcome;
use crate::sync::Mutex;

const WINDOW: Duration = Duration::from_secs(60);

/// Kinds beyond that share one limit, as a peer may make methods up.
const MAX_KINDS: usize = 1024;

/// The method in the key of kinds that share one limit.
const OTHERS: &str = "";

/// Holds back the events of a method that fails again and again with the same
/// code.
#[derive(Debug)]
pub(crate) struct EventLimiter {
    /// How many are sent in a minute.
    max: u32,
    kinds: Mutex<HashMap<(String, EventKind), Window>>,
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    Panic,
    Status(i32),
}

impl EventKind {
    pub(crate) fn of(outcome: &RpcOutcome<'_>) -> Self {
        match outcome.is_panic() {
            true => Self::Panic,
            false => Self::Status(outcome.code() as i32),
        }
    }
}

#[derive(Debug)]
struct Window {
    since: Instant,
    sent: u32,
    /// Held back since the last one that was sent.
    held_back: u64,
}

impl EventLimiter {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            max,
            kinds: Mutex::default(),
        }
    }

    /// How many events were held back before this one; `None` if this one is held back, too.
    pub(crate) fn admit(&self, method: &str, kind: EventKind) -> Option<u64> {
        self.admit_at(Instant::now(), method, kind)
    }

    fn admit_at(&self, now: Instant, method: &str, kind: EventKind) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kind = (method.to_owned(), kind);
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            let over = kinds.extract_if(|_, window| window.is_over(now));
            let held_back: u64 = over.map(|(_, window)| window.held_back).sum();
            if kinds.len() >= MAX_KINDS {
                kind.0 = OTHERS.to_owned();
            }
            if held_back > 0 {
                let others = kinds.entry((OTHERS.to_owned(), kind.1));
                others.or_insert_with(|| Window::new(now)).held_back += held_back;
            }
        }
        let window = kinds.entry(kind).or_insert_with(|| Window::new(now));
        if window.is_over(now) {
            window.since = now;
            window.sent = 0;
        }
        if window.sent >= self.max {
            window.held_back += 1;
            return None;
        }
        window.sent += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            sent: 0,
            held_back: 0,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn each_kind_has_a_limit_of_its_own_and_counts() {
        let limiter = EventLimiter::new(2);
        let start = Instant::now();
        let admit = |after, method, code: Code| {
            let kind = EventKind::Status(code as i32);
            limiter.admit_at(start + Duration::from_secs(after), method, kind)
        };
        assert_eq!(admit(0, "/a", Code::Internal), Some(0));
        assert_eq!(admit(1, "/a", Code::Internal), Some(0));
        assert_eq!(admit(2, "/a", Code::Internal), None);
        assert_eq!(admit(59, "/a", Code::Internal), None);
        assert_eq!(admit(59, "/a", Code::Unknown), Some(0));
        assert_eq!(admit(59, "/b", Code::Internal), Some(0));
        assert_eq!(admit(60, "/a", Code::Internal), Some(2));
        assert_eq!(admit(60, "/a", Code::Internal), Some(0));
        assert_eq!(admit(61, "/a", Code::Internal), None);
        assert_eq!(admit(500, "/a", Code::Internal), Some(1));
    }

    #[test]
    fn a_panic_is_a_kind_of_its_own() {
        let limiter = EventLimiter::new(1);
        let status = EventKind::Status(Code::Internal as i32);
        assert_eq!(limiter.admit("/a", status), Some(0));
        assert_eq!(limiter.admit("/a", EventKind::Panic), Some(0));
        assert_eq!(limiter.admit("/a", EventKind::Panic), None);
    }

    #[test]
    fn made_up_methods_do_not_fill_the_memory_nor_starve_others() {
        let limiter = EventLimiter::new(1);
        let status = EventKind::Status(Code::Unknown as i32);
        let now = Instant::now();
        for _ in 0..2 {
            let mut sent = 0;
            for i in 0..10_000 {
                let method = format!("/made/up{i}");
                sent += usize::from(limiter.admit_at(now, &method, status).is_some());
            }
            assert!(sent == MAX_KINDS + 1 || sent == 0, "{sent}");
            assert_eq!(limiter.kinds.lock().unwrap().len(), MAX_KINDS + 1);
        }
        // What is over makes room, and what was held back is not forgotten.
        let later = now + WINDOW;
        assert_eq!(limiter.admit_at(later, "/real", status), Some(0));
        assert_eq!(limiter.admit_at(later, "/other", status), Some(0));
        let held_back = limiter.admit_at(later, OTHERS, status).unwrap();
        assert_eq!(held_back, 20_000 - 1025);
        assert_eq!(limiter.kinds.lock().unwrap().len(), 3);
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use std::sync::Arc;

    use super::*;
    use crate::sync::{model, spawn};

    #[test]
    fn no_more_are_admitted_than_may_be_and_the_others_are_counted() {
        model(|| {
            let limiter = Arc::new(EventLimiter::new(1));
            let now = Instant::now();
            let threads = [(); 3].map(|()| {
                let limiter = Arc::clone(&limiter);
                spawn(move || limiter.admit_at(now, "/a", EventKind::Panic))
            });
            let admitted = threads.map(|thread| thread.join().unwrap());
            let count = admitted.iter().flatten().count();
            assert_eq!(count, 1, "{admitted:?}");
            let later = limiter.admit_at(now + WINDOW, "/a", EventKind::Panic);
            assert_eq!(later, Some(2));
        });
    }
}
