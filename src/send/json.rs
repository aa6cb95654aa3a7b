//! Writes JSON into one buffer: most of what is sent is written by this crate's own types, without
//! maps and values in between.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sentry_core::protocol::{SpanId, TraceId, Value};
use sentry_core::types::Uuid;
use serde::Serialize;

use crate::propagation::{span_id_hex, trace_id_hex};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// A buffer of JSON.
#[derive(Debug, Default)]
pub(crate) struct Json(Vec<u8>);

/// A value that JSON or Sentry's protocol cannot express, such as a time before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwritable;

impl Json {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds text that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// Replaces what is at `at` by `json`.
    pub(crate) fn overwrite(&mut self, at: usize, json: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + json.len()) {
            place.copy_from_slice(json);
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.0.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(plain) = rest.iter().position(is_escaped) {
            self.0.extend(rest.get(..plain).unwrap_or_default());
            let escaped = rest.get(plain).copied();
            escaped.into_iter().for_each(|byte| self.escape(byte));
            rest = rest.get(plain + 1..).unwrap_or_default();
        }
        self.0.extend_from_slice(rest);
        self.0.push(b'"');
    }

    /// Adds an ASCII character that must not stand in a text.
    fn escape(&mut self, byte: u8) {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => return self.raw(&format!("\\u{byte:04x}")),
        };
        self.0.extend_from_slice(&[b'\\', short]);
    }

    pub(crate) fn integer(&mut self, number: i64) {
        if number < 0 {
            self.0.push(b'-');
        }
        self.unsigned(number.unsigned_abs());
    }

    pub(crate) fn unsigned(&mut self, number: u64) {
        self.0.extend_from_slice(digits(number, &mut [0; 20]));
    }

    pub(crate) fn trace_id(&mut self, id: TraceId) {
        self.quoted(trace_id_hex(id).as_str());
    }

    pub(crate) fn span_id(&mut self, id: SpanId) {
        self.quoted(span_id_hex(id).as_str());
    }

    /// Adds an id without hyphens.
    pub(crate) fn uuid(&mut self, id: Uuid) {
        self.quoted(id.simple().encode_lower(&mut Uuid::encode_buffer()));
    }

    /// Adds a text in which nothing has to be escaped.
    fn quoted(&mut self, text: &str) {
        self.0.push(b'"');
        self.raw(text);
        self.0.push(b'"');
    }

    /// Adds a time as seconds since 1970.
    pub(crate) fn seconds(&mut self, time: SystemTime) -> Result<(), Unwritable> {
        let since = since_1970(time)?;
        if since.subsec_nanos() > 0 {
            // More digits would not be read: a number in JSON is a float.
            return self.serialized(&since.as_secs_f64());
        }
        self.unsigned(since.as_secs());
        Ok(())
    }

    /// Adds a time in the form of RFC 3339.
    pub(crate) fn rfc3339(&mut self, time: SystemTime) -> Result<(), Unwritable> {
        let since = since_1970(time)?;
        let (year, month, day) = date(since.as_secs() / SECONDS_A_DAY).ok_or(Unwritable)?;
        let second = since.as_secs() % SECONDS_A_DAY;
        self.0.push(b'"');
        self.pair(year / 100);
        self.pair(year % 100);
        for (mark, number) in [
            (b'-', month),
            (b'-', day),
            (b'T', second / 3600),
            (b':', second / 60 % 60),
            (b':', second % 60),
        ] {
            self.0.push(mark);
            self.pair(number);
        }
        self.fraction(since);
        self.raw("Z\"");
        Ok(())
    }

    /// Adds two digits.
    fn pair(&mut self, number: u64) {
        let digit = |number: u64| b'0' + u8::try_from(number % 10).unwrap_or_default();
        self.0
            .extend_from_slice(&[digit(number / 10), digit(number)]);
    }

    /// Adds the nanoseconds of a time, without zeros at the end.
    fn fraction(&mut self, since: Duration) {
        let mut nanos = since.subsec_nanos();
        if nanos == 0 {
            return;
        }
        let mut places = 9;
        while nanos.is_multiple_of(10) {
            nanos /= 10;
            places -= 1;
        }
        let mut buffer = [b'0'; 20];
        digits(nanos.into(), &mut buffer);
        self.0.push(b'.');
        let unused = buffer.len() - places;
        self.0.extend(buffer.iter().skip(unused));
    }

    pub(crate) fn value(&mut self, value: &Value) -> Result<(), Unwritable> {
        match value {
            Value::String(text) => self.text(text),
            Value::Number(number) if number.is_i64() => {
                self.integer(number.as_i64().unwrap_or_default());
            }
            value => return self.serialized(value),
        }
        Ok(())
    }

    /// Adds a value of another type, as serde writes it.
    pub(crate) fn serialized(&mut self, value: &impl Serialize) -> Result<(), Unwritable> {
        serde_json::to_writer(&mut self.0, value).map_err(|_| Unwritable)
    }
}

/// An object that is being written: adds the commas between its members.
#[derive(Debug)]
pub(crate) struct Members<'j> {
    json: &'j mut Json,
    has_some: bool,
}

impl<'j> Members<'j> {
    /// Begins an object.
    pub(crate) fn begin(json: &'j mut Json) -> Self {
        json.raw("{");
        Self {
            json,
            has_some: false,
        }
    }

    /// Adds members to an object that is written elsewhere.
    pub(crate) fn inside(json: &'j mut Json) -> Self {
        Self {
            json,
            has_some: false,
        }
    }

    /// Begins a member with any name; its value has to follow.
    pub(crate) fn name(&mut self, name: &str) -> &mut Json {
        self.separate();
        self.json.text(name);
        self.json.raw(":");
        self.json
    }

    /// Begins with what is JSON already: a name with its colon, or whole members.
    pub(crate) fn known(&mut self, name: &str) -> &mut Json {
        self.separate();
        self.json.raw(name);
        self.json
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.has_some, true) {
            self.json.raw(",");
        }
    }

    /// Ends the object.
    pub(crate) fn end(self) {
        self.json.raw("}");
    }
}

/// The decimal digits of a number, written to the end of `buffer`.
fn digits(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    for place in buffer.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    buffer.get(start..).unwrap_or_default()
}

/// Whether a character must not stand in a text as it is.
fn is_escaped(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..b' ')
}

fn since_1970(time: SystemTime) -> Result<Duration, Unwritable> {
    time.duration_since(UNIX_EPOCH).map_err(|_| Unwritable)
}

/// Year, month and day of the day that is this many days after 1970-01-01; `None` after the year
/// 9999, for which RFC 3339 has no form.
///
/// Counts from a first of March in a year that 400 divides: so leap days are the last days of
/// years, of centuries and of periods of 400 years.
fn date(days: u64) -> Option<(u64, u64, u64)> {
    const TO_1970: u64 = 719_468;
    const PERIOD: u64 = 400 * 365 + 97;
    const CENTURY: u64 = 100 * 365 + 24;
    const FOUR_YEARS: u64 = 4 * 365 + 1;
    let days = days.checked_add(TO_1970)?;
    let (period, day) = (days / PERIOD, days % PERIOD);
    let century = (day / CENTURY).min(3);
    let day = day - century * CENTURY;
    let (fours, day) = (day / FOUR_YEARS, day % FOUR_YEARS);
    let year_of_four = (day / 365).min(3);
    let day = day - year_of_four * 365;
    // Five months from March have 153 days, and so have the five that follow.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = period * 400 + century * 100 + fours * 4 + year_of_four;
    let (year, month) = match month {
        0..10 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    (year <= 9999).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::default();
        write(&mut json);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn texts_and_numbers_are_written_as_serde_does(
            text in any::<String>(),
            number in any::<i64>(),
            unsigned in any::<u64>(),
        ) {
            prop_assert_eq!(written(|json| json.text(&text)), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(written(|json| json.integer(number)), number.to_string());
            prop_assert_eq!(written(|json| json.unsigned(unsigned)), unsigned.to_string());
        }

        #[test]
        fn times_are_those_that_others_read(seconds in 0..253_402_300_800_u64, nanos in 0..1_000_000_000_u32) {
            // Mostly few digits.
            for nanos in [nanos, nanos / 1_000 * 1_000, nanos / 1_000_000 * 1_000_000, 0] {
                let time = UNIX_EPOCH + Duration::new(seconds, nanos);
                let text = written(|json| json.rfc3339(time).unwrap());
                prop_assert_eq!(humantime::parse_rfc3339(text.trim_matches('"')).unwrap(), time);
                let number = written(|json| json.seconds(time).unwrap());
                let expected = match nanos {
                    0 => seconds.to_string(),
                    _ => {
                        let float = Duration::new(seconds, nanos).as_secs_f64();
                        serde_json::to_string(&float).unwrap()
                    }
                };
                prop_assert_eq!(number, expected);
            }
        }
    }

    #[test]
    fn control_characters_are_escaped_as_serde_does() {
        let text: String = (0..=0x7f_u8)
            .map(char::from)
            .chain("é😀\u{2028}".chars())
            .collect();
        assert_eq!(
            written(|json| json.text(&text)),
            serde_json::to_string(&text).unwrap()
        );
    }

    #[test]
    fn each_day_has_its_date() {
        let mut expected = (1970, 1, 1);
        for days in 0..2_932_897 {
            assert_eq!(date(days), Some(expected), "{days}");
            let (year, month, day) = expected;
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day == last) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
        }
        assert_eq!(date(2_932_897), None);
        assert_eq!(date(u64::MAX), None);
    }

    #[test]
    fn times_before_1970_cannot_be_written() {
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        assert_eq!(Json::default().seconds(before), Err(Unwritable));
        assert_eq!(Json::default().rfc3339(before), Err(Unwritable));
    }
}
