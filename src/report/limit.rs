//! How many events of one kind are sent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Code;

const WINDOW: Duration = Duration::from_secs(60);

/// Kinds beyond that share one limit. A peer may make methods up.
const MAX_KINDS: usize = 1024;

/// Holds back the events of a method that fails again and again with the same
/// code.
#[derive(Debug)]
pub(crate) struct EventLimiter {
    /// In a minute.
    max: u32,
    kinds: Mutex<HashMap<(String, i32), Window>>,
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

    /// How many events were held back before this one; `None` where this one is,
    /// too.
    pub(crate) fn admit(&self, method: &str, code: Code) -> Option<u64> {
        self.admit_at(Instant::now(), method, code)
    }

    fn admit_at(&self, now: Instant, method: &str, code: Code) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kind = (method.to_owned(), code as i32);
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.retain(|_, window| window.held_back > 0 || !window.is_over(now));
            if kinds.len() >= MAX_KINDS {
                kind = (String::new(), code as i32);
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

    #[test]
    fn each_kind_has_a_limit_of_its_own_and_counts() {
        let limiter = EventLimiter::new(2);
        let start = Instant::now();
        let admit = |after, method, code| {
            limiter.admit_at(start + Duration::from_secs(after), method, code)
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
    fn made_up_methods_do_not_fill_the_memory() {
        let limiter = EventLimiter::new(1);
        let now = Instant::now();
        let mut sent = 0;
        for i in 0..10_000 {
            let method = format!("/made/up{i}");
            sent += usize::from(limiter.admit_at(now, &method, Code::Unknown).is_some());
        }
        assert_eq!(sent, MAX_KINDS + 1);
        assert_eq!(limiter.kinds.lock().unwrap().len(), MAX_KINDS + 1);
        // What is over makes room.
        let later = now + WINDOW;
        assert_eq!(limiter.admit_at(later, "/real", Code::Unknown), Some(0));
        assert!(limiter.kinds.lock().unwrap().len() <= 2);
    }
}
