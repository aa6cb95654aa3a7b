//! The `baggage` header: Sentry's members within its limits.
//!
//! See <https://www.w3.org/TR/baggage/> and
//! <https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/#baggage-header>.

use bytes::Bytes;
use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::propagation::context::members::{SENTRY_PREFIX, is_well_formed};

pub(crate) const BAGGAGE: &str = "baggage";
pub(crate) const BAGGAGE_NAME: HeaderName = HeaderName::from_static(BAGGAGE);

/// Of all values together: <https://www.w3.org/TR/baggage/#limits>.
const MAX_LEN: usize = 8192;
const MAX_MEMBERS: usize = 64;

/// Enough for the members of most traces, so that the buffer need not grow.
const USUAL_LEN: usize = 320;

/// Percent-encodes all but these, so that every implementation reads values back: also one that
/// takes `+` for a space, or splits at the last `=`.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A list of baggage members, to which more can be added.
#[derive(Debug, Default)]
pub(crate) struct BaggageWriter {
    list: String,
    members: usize,
}

impl BaggageWriter {
    /// Adds a member, if it fits. `key` is `sentry-<key>=`; neither it nor `value` needs
    /// encoding.
    pub(crate) fn push_plain(&mut self, key: &str, value: &str) {
        self.push([key, value]);
    }

    /// Adds a member with any text as its value, if it fits.
    pub(crate) fn push_text(&mut self, key: &str, value: &str) {
        self.push(std::iter::once(key).chain(utf8_percent_encode(value, VALUE)));
    }

    /// Adds the member that is made of these texts, if it fits within the limits. Returns its
    /// place in the list.
    pub(crate) fn push<'a>(&mut self, member: impl IntoIterator<Item = &'a str>) -> Option<usize> {
        let end = self.list.len();
        let start = self.append(member);
        if self.list.len() <= MAX_LEN && self.members <= MAX_MEMBERS {
            return Some(start);
        }
        self.list.truncate(end);
        self.members -= 1;
        None
    }

    fn append<'a>(&mut self, member: impl IntoIterator<Item = &'a str>) -> usize {
        match self.members {
            0 => self.list.reserve(USUAL_LEN),
            _ => self.list.push(','),
        }
        let start = self.list.len();
        self.list.extend(member);
        self.members += 1;
        start
    }

    pub(crate) fn finish(self) -> Baggage {
        let value = || HeaderValue::from_maybe_shared(Bytes::from(self.list)).ok();
        Baggage((self.members > 0).then(value).flatten())
    }
}

/// A list of baggage members, ready to be sent. Without members there is no header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Baggage(Option<HeaderValue>);

impl Baggage {
    /// `None` where there are no members.
    pub(crate) fn as_str(&self) -> Option<&str> {
        str::from_utf8(self.0.as_ref()?.as_bytes()).ok()
    }

    /// Adds these members to the `baggage` of a request.
    ///
    /// Well-formed members of others stay as they are; those of Sentry are replaced. Members that
    /// would go over the limits are left out.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        match headers.try_entry(BAGGAGE_NAME) {
            Ok(Entry::Occupied(_)) => self.merge_into(headers),
            Ok(Entry::Vacant(entry)) => {
                if let Some(value) = &self.0 {
                    let _ = entry.try_insert(value.clone());
                }
            }
            // The map is full. It may have a `baggage` all the same.
            Err(_) => {
                if headers.contains_key(BAGGAGE_NAME) {
                    self.merge_into(headers);
                }
            }
        }
    }

    fn merge_into(&self, headers: &mut HeaderMap) {
        let mut list = BaggageWriter::default();
        let mut is_sensitive = false;
        let mut has_changed = false;
        for value in headers.get_all(BAGGAGE_NAME) {
            is_sensitive |= value.is_sensitive();
            for member in value.as_bytes().split(|b| *b == b',') {
                match str::from_utf8(member) {
                    Ok(text) if is_of_others(text) => {
                        list.append([text]);
                    }
                    _ => has_changed = true,
                }
            }
        }
        for member in self.as_str().into_iter().flat_map(|own| own.split(',')) {
            has_changed |= list.push([member]).is_some();
        }
        if !has_changed {
            return;
        }
        // The map may be full: the removed name has left room for one.
        headers.remove(BAGGAGE_NAME);
        if let Self(Some(mut value)) = list.finish() {
            value.set_sensitive(is_sensitive);
            let _ = headers.try_insert(BAGGAGE_NAME, value);
        }
    }
}

/// Whether a member on a request stays there.
fn is_of_others(member: &str) -> bool {
    is_well_formed(member.as_bytes()) && !member.trim_start().starts_with(SENTRY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::context::members::{decode, sentry_members};

    fn sentry(list: &str) -> Baggage {
        let mut writer = BaggageWriter::default();
        for member in list.split(',').filter(|member| !member.is_empty()) {
            writer.push([member]);
        }
        writer.finish()
    }

    fn merged(existing: &[&[u8]], own: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in existing {
            headers.append(BAGGAGE, HeaderValue::from_bytes(value).unwrap());
        }
        sentry(own).append_to(&mut headers);
        let values = headers.get_all(BAGGAGE).into_iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn values_read_back_as_they_were_written() {
        for text in ["1.0", "/a.B/C", "a,b;c=d e+f%g\"\\", "größer", "\n", ""] {
            let mut writer = BaggageWriter::default();
            writer.push_text("sentry-x=", text);
            let baggage = writer.finish();
            let list = baggage.as_str().unwrap();
            let [member] = &sentry_members(list).collect::<Vec<_>>()[..] else {
                panic!("{list:?}");
            };
            assert_eq!(member.key, "x");
            assert_eq!(decode(member.value()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_a_request_has_stays() {
        let own = "sentry-a=1,sentry-b=2";
        for (existing, expected) in [
            (&[][..], &["sentry-a=1,sentry-b=2"][..]),
            (&[b"".as_slice()], &["sentry-a=1,sentry-b=2"]),
            (&[b"x=1"], &["x=1,sentry-a=1,sentry-b=2"]),
            (
                &[b"x=1;p=q ,y=", b"z=%2F;, z = 1"],
                &["x=1;p=q ,y=, z = 1,sentry-a=1,sentry-b=2"],
            ),
            (
                &[b"sentry-a=9,x=1, sentry-c=9"],
                &["x=1,sentry-a=1,sentry-b=2"],
            ),
            (
                &[b"x=1", b"\xff=1", b"y=2"],
                &["x=1,y=2,sentry-a=1,sentry-b=2"],
            ),
        ] {
            assert_eq!(merged(existing, own), expected);
        }
        // Of a trace that has none, none must stay of another.
        assert_eq!(merged(&[b"sentry-a=9", b"x=1"], ""), ["x=1"]);
        assert_eq!(merged(&[b"sentry-a=9"], ""), [""; 0]);
        // And nothing is touched without need.
        assert_eq!(merged(&[b"y=1", b"x=1"], ""), ["y=1", "x=1"]);
        // What is malformed goes, also where nothing comes.
        for malformed in ["y", "", " ", "sentry-a", "y=\"1\"", "y=1;"] {
            let list = format!("{malformed},x=1");
            assert_eq!(merged(&[list.as_bytes()], ""), ["x=1"], "{malformed:?}");
            assert_eq!(merged(&[malformed.as_bytes()], ""), [""; 0]);
        }
    }

    #[test]
    fn what_is_sensitive_stays_so() {
        for sensitive in [true, false] {
            let mut headers = HeaderMap::new();
            let mut value = HeaderValue::from_static("x=1");
            value.set_sensitive(sensitive);
            headers.append(BAGGAGE, value);
            sentry("sentry-a=1").append_to(&mut headers);
            let value = headers.get(BAGGAGE).unwrap();
            assert_eq!(
                (value.to_str().unwrap(), value.is_sensitive()),
                ("x=1,sentry-a=1", sensitive)
            );
        }
    }

    #[test]
    fn nothing_goes_over_the_limits() {
        let member = |n: usize, len: usize| format!("sentry-{n:04}={}", "v".repeat(len - 12));
        let list = |range: std::ops::Range<usize>, len| {
            let members: Vec<String> = range.map(|n| member(n, len)).collect();
            members.join(",")
        };
        // 64 members, and 8192 bytes.
        assert_eq!(sentry(&list(0..70, 20)).as_str(), Some(&*list(0..64, 20)));
        let full = list(0..8, 1023);
        assert_eq!(full.len(), 8191);
        assert_eq!(sentry(&full).as_str(), Some(&*full));
        // One that does not fit is left out, and not those after it.
        let too_long = format!("{},sentry-b=1", member(0, 8193));
        assert_eq!(sentry(&too_long).as_str(), Some("sentry-b=1"));

        let others = ["x=1"; 63].join(",");
        assert_eq!(
            merged(&[others.as_bytes()], "sentry-a=1,sentry-b=2"),
            [format!("{others},sentry-a=1")]
        );
        let long = format!("x={}", "v".repeat(8192 - 2 - 11));
        assert_eq!(
            merged(&[long.as_bytes()], "sentry-a=12,sentry-b=2"),
            [format!("{long},sentry-b=2")]
        );
        let over = format!("x={}", "v".repeat(9_000));
        assert_eq!(merged(&[over.as_bytes()], "sentry-a=1"), [over]);
    }
}
