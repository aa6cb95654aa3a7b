//! Ids of Sentry as bytes and as text.

use std::fmt::Display;
use std::hash::{Hash, Hasher};

use sentry_core::protocol::{SpanId, TraceId};

const TRACE_ID_LEN: usize = 16;
const SPAN_ID_LEN: usize = 8;

pub(crate) fn trace_id(id: TraceId) -> [u8; TRACE_ID_LEN] {
    bytes(&id)
}

pub(crate) fn span_id(id: SpanId) -> [u8; SPAN_ID_LEN] {
    bytes(&id)
}

pub(crate) fn trace_id_hex(id: TraceId) -> Hex<TRACE_ID_LEN> {
    Hex::new(trace_id(id))
}

pub(crate) fn span_id_hex(id: SpanId) -> Hex<SPAN_ID_LEN> {
    Hex::new(span_id(id))
}

/// An id as text, in lower case.
pub(crate) struct Hex<const LEN: usize>([[u8; 2]; LEN]);

impl<const LEN: usize> Hex<LEN> {
    pub(crate) fn new(id: [u8; LEN]) -> Self {
        Self(id.map(|byte| [digit(byte >> 4), digit(byte & 0xf)]))
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(self.0.as_flattened()).unwrap_or_default()
    }
}

const fn digit(value: u8) -> u8 {
    match value {
        0..10 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

const NO_DIGIT: u8 = 0xff;

#[expect(
    clippy::indexing_slicing,
    reason = "an index out of range would not compile"
)]
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let digit = digit(value);
        digits[digit as usize] = value;
        digits[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
};

/// Reads an id in any case; `None` for one that is all zero.
pub(crate) fn parse<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    from_hex(text).filter(|bytes| *bytes != [0; LEN])
}

/// Reads bytes in any case.
pub(crate) fn from_hex<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let pairs: &[[u8; 2]; LEN] = pairs.try_into().ok()?;
    let value = |digit: u8| DIGITS.get(usize::from(digit)).copied().unwrap_or(NO_DIGIT);
    let mut seen = 0;
    let bytes = pairs.map(|[high, low]| {
        let (high, low) = (value(high), value(low));
        seen |= high | low;
        high << 4 | low
    });
    (seen < 16).then_some(bytes)
}

/// sentry-types gives ids out only as text, and formatting them would take longer than all else
/// that is done with them. But hashing an id shows its bytes.
fn bytes<const LEN: usize>(id: &(impl Hash + Display)) -> [u8; LEN] {
    let mut taken = HashedBytes(None);
    id.hash(&mut taken);
    taken.0.unwrap_or_else(|| of_text(&id.to_string()))
}

fn of_text<const LEN: usize>(text: &str) -> [u8; LEN] {
    let bits = u128::from_str_radix(text, 16).unwrap_or_default();
    let bytes = bits.to_be_bytes();
    bytes.last_chunk().copied().unwrap_or([0; LEN])
}

/// A hasher that keeps the last bytes of this length.
struct HashedBytes<const LEN: usize>(Option<[u8; LEN]>);

impl<const LEN: usize> Hasher for HashedBytes<LEN> {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.try_into().ok().or(self.0);
    }

    /// Ignores the length that arrays hash first.
    fn write_usize(&mut self, _: usize) {}

    // The byte order of a number depends on the machine: an id that is hashed as one is read as
    // text.
    fn write_u64(&mut self, _: u64) {}
    fn write_u128(&mut self, _: u128) {}

    /// Not used.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_text() {
        for _ in 0..100 {
            let (trace, span) = (TraceId::default(), SpanId::default());
            assert_eq!(trace_id(trace), of_text(&trace.to_string()));
            assert_eq!(span_id(span), of_text(&span.to_string()));
            assert_eq!(Hex::new(trace_id(trace)).as_str(), trace.to_string());
        }
        let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255];
        assert_eq!(trace_id(TraceId::from(id)), id);
    }

    #[derive(Hash)]
    struct Number<T>(T);

    impl<T: std::fmt::LowerHex> Display for Number<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    #[test]
    fn ids_that_are_numbers_are_read_as_text() {
        let id = 0x0102_0304_0506_0708_u64;
        assert_eq!(bytes(&Number(id)), id.to_be_bytes());
        let id = u128::from(id) << 60;
        assert_eq!(bytes(&Number(id)), id.to_be_bytes());
    }
}
