//! When spans start and end, by clocks that may be set meanwhile.

use std::time::{Duration, Instant, SystemTime};

use crate::report;

/// Sentry rejects a whole transaction if one span in it ends before it starts,
/// and its encodings round the start and the end of a span differently.
const MIN_DURATION: Duration = Duration::from_micros(1);

/// When a span started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTime {
    pub(crate) at: SystemTime,
    /// On the monotonic clock, which nobody can set.
    since: Instant,
}

impl StartTime {
    pub(crate) fn now() -> Self {
        Self {
            at: report::now(),
            since: Instant::now(),
        }
    }

    /// Now, inside a span that started before, and by the clock of that: so no span ends after
    /// the one around it.
    pub(crate) fn inside(outer: &Self) -> Self {
        let since = Instant::now();
        Self {
            at: outer.at + since.saturating_duration_since(outer.since),
            since,
        }
    }

    /// The end of a span that ends now. A system clock that was set meanwhile does not change
    /// its duration.
    pub(crate) fn end(&self) -> SystemTime {
        self.at + self.since.elapsed().max(MIN_DURATION)
    }
}

/// The end of a span that was finished at `ended_at`, or the earliest possible one: the clock
/// may have been set back.
pub(crate) fn end(started_at: SystemTime, ended_at: SystemTime) -> SystemTime {
    ended_at.max(started_at + MIN_DURATION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentry_core::protocol::Span;
    use std::time::UNIX_EPOCH;

    /// Start and end as Sentry reads them, in nanoseconds.
    fn as_sent(started_at: SystemTime, ended_at: SystemTime) -> (u128, u128) {
        let span = Span {
            start_timestamp: started_at,
            timestamp: Some(ended_at),
            ..Span::default()
        };
        let json = serde_json::to_value(span).unwrap();
        let start = json["start_timestamp"].as_f64().unwrap() * 1e9;
        let end = humantime::parse_rfc3339(json["timestamp"].as_str().unwrap()).unwrap();
        let end = end.duration_since(UNIX_EPOCH).unwrap();
        (start as u128, end.as_nanos())
    }

    #[test]
    fn spans_shorter_than_a_microsecond_end_after_they_start_as_sent() {
        let base = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let mut was_inverted = false;
        for nanos in (0..1_000_000_000).step_by(999_983) {
            let started_at = base + Duration::from_nanos(nanos);
            for length in [0, 1, 50, 100, 500, 999, 1_000] {
                let ended_at = started_at + Duration::from_nanos(length);
                let (start, sent_end) = as_sent(started_at, end(started_at, ended_at));
                assert!(sent_end > start, "{sent_end} is not after {start}");
                let (start, sent_end) = as_sent(started_at, ended_at);
                was_inverted |= sent_end < start;
            }
        }
        assert!(
            was_inverted,
            "the encodings have changed, and need no minimum"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_inverts_no_span() {
        let now = SystemTime::now();
        let back = now - Duration::from_secs(3600);
        assert_eq!(end(now, back), now + MIN_DURATION);
        assert_eq!(end(back, now), now);
    }
}
