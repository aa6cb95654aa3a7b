//! The numbers of the sampling decision: `sample_rate` and `sample_rand`.

use std::fmt;

use sentry_core::protocol::TraceId;

use crate::propagation::id::{self, Hex};

const MILLION: u32 = 1_000_000;

/// A number in `[0, 1]` with at most six digits after the point. Most are such, and they print
/// much faster than any `f64`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Millionths(u32);

impl Millionths {
    fn nearest(number: f64) -> Self {
        Self((number * f64::from(MILLION)).round() as u32)
    }

    /// `None` for a number of more digits.
    fn of(number: f64) -> Option<Self> {
        Some(Self::nearest(number)).filter(|nearest| nearest.get() == number)
    }

    fn get(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// As a number below one.
    fn digits(self) -> Digits {
        let mut text = *b"0.000000";
        let mut left = self.0;
        for digit in text.iter_mut().skip("0.".len()).rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        Digits(text)
    }
}

struct Digits([u8; 8]);

impl Digits {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A rate in `[0, 1]`. Decisions compare with the printed rate, which is what other services read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SampleRate {
    rate: f32,
    /// What the printed rate reads as.
    printed: f64,
}

impl SampleRate {
    /// A rate out of range becomes the nearest one in it; NaN becomes 0.
    pub(crate) fn new(rate: f32) -> Self {
        let rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        let of_six_digits = Millionths::nearest(rate.into()).get();
        // If that is the same `f32`, it is what the rate prints as: no other number of six digits
        // is.
        let printed = Some(of_six_digits)
            .filter(|read| *read as f32 == rate)
            .or_else(|| rate.to_string().parse().ok())
            .unwrap_or(f64::from(rate));
        Self { rate, printed }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rate: f32 = text.parse().ok()?;
        (0.0..=1.0).contains(&rate).then(|| Self::new(rate))
    }

    pub(crate) fn get(self) -> f32 {
        self.rate
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Millionths::of(self.printed) {
            Some(Millionths(0)) => f.write_str("0"),
            Some(Millionths(MILLION)) => f.write_str("1"),
            Some(rate) => f.write_str(rate.digits().as_str().trim_end_matches('0')),
            None => self.rate.fmt(f),
        }
    }
}

/// The number in `[0, 1)` that all services of a trace compare their rates
/// with, in six digits.
///
/// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#propagated-random-value>.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SampleRand(f64);

impl SampleRand {
    /// The same for each service that sees the trace.
    pub(crate) fn of_trace(trace_id: TraceId) -> Self {
        Self::between(trace_id, 0, MILLION)
    }

    /// One that agrees with a decision that was taken at `rate`.
    pub(crate) fn consistent(trace_id: TraceId, rate: SampleRate, sampled: bool) -> Self {
        let own = Self::of_trace(trace_id);
        if own.is_below(rate) == sampled {
            return own;
        }
        let below = millionths_below(rate);
        let (from, to) = match sampled {
            true => (0, below),
            false => (below, MILLION),
        };
        if from < to {
            Self::between(trace_id, from, to)
        } else {
            // The decision was not taken at that rate.
            own
        }
    }

    /// Reads what another service of the trace wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value: f64 = text.parse().ok()?;
        (0.0..1.0).contains(&value).then_some(Self(value))
    }

    /// Whether a trace with this number is sampled at `rate`.
    pub(crate) fn is_below(self, rate: SampleRate) -> bool {
        self.0 < rate.printed
    }

    pub(crate) fn get(self) -> f64 {
        self.0
    }

    fn between(trace_id: TraceId, from: u32, to: u32) -> Self {
        let span = u64::from(to - from);
        let millionths = u64::from(from) + hash(trace_id) % span;
        Self(Millionths(millionths as u32).get())
    }
}

impl fmt::Display for SampleRand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Millionths::of(self.0) {
            Some(rand @ Millionths(..MILLION)) => f.write_str(rand.digits().as_str()),
            _ => write!(f, "{:.6}", self.0),
        }
    }
}

/// How many numbers of six digits are below `rate`.
fn millionths_below(rate: SampleRate) -> u32 {
    let is_below = |millionths: u32| SampleRand(Millionths(millionths).get());
    let mut count = (rate.printed * f64::from(MILLION)).ceil() as u32;
    // The product is rounded.
    while count > 0 && !is_below(count - 1).is_below(rate) {
        count -= 1;
    }
    while count < MILLION && is_below(count).is_below(rate) {
        count += 1;
    }
    count
}

/// Spreads ids evenly however they were made: some begin with a time, some end
/// with a counter.
fn hash(trace_id: TraceId) -> u64 {
    // FNV-1a, whose high bits are good, and a final mix for the low ones.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in Hex::new(id::trace_id(trace_id)).as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u128) -> impl Iterator<Item = TraceId> {
        (1..=count).map(|n| TraceId::from(n.to_be_bytes()))
    }

    /// As another service reads it.
    fn printed(rand: SampleRand) -> f64 {
        let text = rand.to_string();
        assert_eq!(text.len(), "0.123456".len(), "{text}");
        text.parse().unwrap()
    }

    #[test]
    fn what_is_printed_agrees_with_the_decision() {
        for rate in [
            0.0,
            1e-7,
            1e-6,
            0.000_001_5,
            0.1,
            0.3,
            0.333_333_34,
            0.5,
            0.7,
            0.999_999,
            1.0,
        ] {
            let rate = SampleRate::new(rate);
            let printed_rate: f64 = rate.to_string().parse().unwrap();
            for id in ids(2_000) {
                let rand = SampleRand::of_trace(id);
                assert_eq!(rand.is_below(rate), printed(rand) < printed_rate, "{rate}");
                for sampled in [true, false] {
                    let possible = match sampled {
                        true => printed_rate > 0.0,
                        false => printed_rate < 1.0 - 1e-6,
                    };
                    if possible {
                        let rand = SampleRand::consistent(id, rate, sampled);
                        assert_eq!(printed(rand) < printed_rate, sampled, "{rate} {rand}");
                    }
                }
            }
        }
    }

    #[test]
    fn rates_on_a_digit_are_exact() {
        for millionths in (0..=MILLION).step_by(7_919) {
            let rate = SampleRate::parse(&format!("0.{millionths:06}"));
            if let Some(rate) = rate.filter(|_| millionths < MILLION) {
                assert_eq!(millionths_below(rate), millionths);
            }
        }
        assert_eq!(millionths_below(SampleRate::new(0.0)), 0);
        assert_eq!(millionths_below(SampleRate::new(1.0)), MILLION);
    }

    #[test]
    fn rates_read_as_they_are_printed() {
        for millionths in (0..=MILLION).step_by(13) {
            let decimal = f64::from(millionths) / f64::from(MILLION);
            let rate = decimal as f32;
            for rate in [rate, rate.next_up(), rate.next_down()] {
                let rate = SampleRate::new(rate);
                assert_eq!(rate.to_string().parse(), Ok(rate.printed), "{rate}");
            }
        }
    }

    #[test]
    fn a_decision_against_the_rate_still_has_a_number() {
        for id in ids(10) {
            let own = SampleRand::of_trace(id);
            assert_eq!(SampleRand::consistent(id, SampleRate::new(0.0), true), own);
            assert_eq!(SampleRand::consistent(id, SampleRate::new(1.0), false), own);
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut tenths = [0_u32; 10];
        for id in ids(10_000) {
            tenths[(SampleRand::of_trace(id).get() * 10.0) as usize] += 1;
        }
        for count in tenths {
            assert!((850..1_150).contains(&count), "{tenths:?}");
        }
    }

    #[test]
    fn reads_what_others_print_and_nothing_else() {
        for text in ["0", "0.0", "0.5", "0.123456789", "9e-1"] {
            assert!(SampleRand::parse(text).is_some(), "{text}");
        }
        for text in ["1", "1.0", "-0.1", "NaN", "inf", "", "half", "0,5"] {
            assert!(SampleRand::parse(text).is_none(), "{text}");
        }
        for text in ["0", "1", "1.0", "0.25"] {
            assert!(SampleRate::parse(text).is_some(), "{text}");
        }
        for text in ["1.1", "-0.1", "NaN", "inf", "", "half"] {
            assert!(SampleRate::parse(text).is_none(), "{text}");
        }
        for (rate, expected) in [(f32::NAN, 0.0), (-1.0, 0.0), (7.0, 1.0), (0.25, 0.25)] {
            assert_eq!(SampleRate::new(rate).get(), expected);
        }
    }
}
