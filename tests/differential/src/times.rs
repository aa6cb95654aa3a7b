//! Times as the steps in which they fall.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far a time may be off: it is written as an `f64`, and a span ends by another clock than that
/// by which it starts.
const GUARD: Duration = Duration::from_micros(5);

/// When each step began.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<i64>);

impl Times {
    /// Begins the next step.
    pub(crate) fn begin(&mut self) {
        wait(GUARD);
        self.0.push(nanos(SystemTime::now()));
        wait(GUARD);
    }

    /// The last step that began by then, from 1.
    pub(crate) fn step(&self, nanos: i64) -> usize {
        self.0.partition_point(|begun| *begun <= nanos)
    }
}

fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970 of a time as Sentry takes it: seconds, or RFC 3339.
pub(crate) fn read(value: &serde_json::Value) -> Option<i64> {
    if let Some(seconds) = value.as_f64() {
        let whole = seconds.floor();
        return Some(whole as i64 * 1_000_000_000 + ((seconds - whole) * 1e9) as i64);
    }
    let text = value.as_str()?.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let fraction = format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000_000 + fraction)
}

/// Days since 1970, by the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468
}
