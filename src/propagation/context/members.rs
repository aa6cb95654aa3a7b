//! The members of a `baggage` list: `key=value;property,key=value`.
//!
//! See <https://www.w3.org/TR/baggage/#baggage-http-header-format>.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use percent_encoding::percent_decode_str;

pub(crate) const SENTRY_PREFIX: &str = "sentry-";

/// A member whose key has Sentry's prefix.
#[derive(Debug)]
pub(crate) struct SentryMember<'a> {
    /// The member without the space around it.
    pub(crate) text: &'a str,
    /// The key without the prefix.
    pub(crate) key: &'a str,
    /// The place of the value in the text, without its properties.
    pub(crate) value: Range<usize>,
}

impl<'a> SentryMember<'a> {
    /// Reads the member that `list` begins with, and returns the list after it. `None` for a
    /// member without a value.
    fn first(list: &'a str) -> (Option<Self>, Option<&'a str>) {
        let bytes = list.as_bytes();
        let equals = find(bytes, SENTRY_PREFIX.len(), |b| b == b'=' || b == b',');
        if bytes.get(equals) != Some(&b'=') {
            return (None, list.get(equals + 1..));
        }
        let value_end = find(bytes, equals + 1, |b| b == b';' || b == b',');
        let end = match bytes.get(value_end) {
            Some(b';') => find(bytes, value_end + 1, |b| b == b','),
            _ => value_end,
        };
        let member = || {
            let value = trim_end(list.get(equals + 1..value_end)?);
            let end_of_value = equals + 1 + value.len();
            Some(Self {
                text: trim_end(list.get(..end)?),
                key: trim_end(list.get(SENTRY_PREFIX.len()..equals)?),
                value: end_of_value - trim_start(value).len()..end_of_value,
            })
        };
        (member(), list.get(end + 1..))
    }

    /// Reads a text that is one member.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        Self::first(text).0
    }

    /// The value, which may be percent-encoded.
    pub(crate) fn value(&self) -> &'a str {
        self.text.get(self.value.clone()).unwrap_or_default()
    }
}

/// The place of the first such byte, else the end.
fn find(bytes: &[u8], from: usize, is_it: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let at = rest.iter().position(|b| is_it(*b));
    at.map_or(bytes.len(), |at| from + at)
}

/// As [`str::trim_start`], but faster where there is no space, as nearly everywhere.
fn trim_start(text: &str) -> &str {
    match text.as_bytes() {
        [b'!'..=b'~', ..] => text,
        _ => text.trim_start(),
    }
}

/// As [`str::trim_end`], likewise.
fn trim_end(text: &str) -> &str {
    match text.as_bytes() {
        [.., b'!'..=b'~'] => text,
        _ => text.trim_end(),
    }
}

/// The members of a list whose key has Sentry's prefix.
pub(crate) fn sentry_members(list: &str) -> impl Iterator<Item = SentryMember<'_>> {
    let mut left = Some(list);
    std::iter::from_fn(move || {
        while let Some(list) = left {
            let list = trim_start(list);
            let member;
            (member, left) = match list.starts_with(SENTRY_PREFIX) {
                true => SentryMember::first(list),
                false => (None, list.split_once(',').map(|(_, others)| others)),
            };
            if member.is_some() {
                return member;
            }
        }
        None
    })
}

/// Decodes a value; `None` where it is not UTF-8.
pub(crate) fn decode(value: &str) -> Option<Cow<'_, str>> {
    match value.bytes().any(|b| b == b'%') {
        true => percent_decode_str(value).decode_utf8().ok(),
        false => Some(value.into()),
    }
}

/// Whether [`decode`] can decode the value.
pub(crate) fn is_decodable(value: &str) -> bool {
    // Most are ASCII, which needs no buffer.
    let is_plain = !value.bytes().any(|b| b == b'%');
    is_plain || percent_decode_str(value).all(|b| b.is_ascii()) || decode(value).is_some()
}

/// Whether a header may have all bytes of a list.
pub(crate) fn is_legal(list: &str) -> bool {
    // Checking all bytes is faster than stopping at the first illegal one: most have none.
    list.bytes().fold(true, |all, b| all & is_legal_byte(b))
}

fn is_legal_byte(b: u8) -> bool {
    b == b'\t' || matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'
}

/// Percent-encodes the bytes that no header may have, which does not change the value.
pub(crate) fn escape(member: &str) -> String {
    let mut escaped = String::with_capacity(member.len());
    for byte in member.bytes() {
        if is_legal_byte(byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Whether W3C's grammar allows a member, which may have space around it. Some readers refuse a
/// whole list for one that it does not allow.
pub(crate) fn is_well_formed(member: &[u8]) -> bool {
    let mut parts = member.split(|b| *b == b';');
    let is_property = |part| is_pair(part) || is_token(part.trim_ascii());
    parts.next().is_some_and(is_pair) && parts.all(is_property)
}

fn is_pair(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |b| *b == b'=');
    let is_key = parts.next().is_some_and(|key| is_token(key.trim_ascii()));
    is_key
        && parts
            .next()
            .is_some_and(|value| is_value(value.trim_ascii()))
}

fn is_value(text: &[u8]) -> bool {
    let is_octet = |b: &u8| matches!(b, b'!'..=b'~') && !matches!(b, b'"' | b',' | b';' | b'\\');
    let is_escape = |text: &[u8]| match text {
        [high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    };
    text.iter().all(is_octet) && text.split(|b| *b == b'%').skip(1).all(is_escape)
}

/// Whether a key is made of characters that a key may have.
pub(crate) fn is_token(key: &[u8]) -> bool {
    let is_token = |b: &u8| match b {
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~' => true,
        b => b.is_ascii_alphanumeric(),
    };
    !key.is_empty() && key.iter().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_list_in_one_pass() {
        let read = |list| {
            let members = sentry_members(list);
            let parts = |member: SentryMember<'_>| {
                let value = member.text[member.value.clone()].to_owned();
                (member.text.to_owned(), member.key.to_owned(), value)
            };
            members.map(parts).collect::<Vec<_>>()
        };
        let member = |text: &str, key: &str, value: &str| {
            (text.to_owned(), key.to_owned(), value.to_owned())
        };
        for none in [
            "",
            ",",
            "a=1, b=2 ,",
            "sentry-a",
            "Sentry-a=1",
            "sentry-",
            "a=sentry-b=1",
        ] {
            assert_eq!(read(none), [], "{none:?}");
        }
        assert_eq!(
            read(" x=1 , sentry-b= %2F=%zz ;p=1;q ,,sentry-a = 2\t,sentry-c,sentry-=,sentry-d=\"é"),
            [
                member("sentry-b= %2F=%zz ;p=1;q", "b", "%2F=%zz"),
                member("sentry-a = 2", "a", "2"),
                member("sentry-=", "", ""),
                member("sentry-d=\"é", "d", "\"é"),
            ]
        );
    }

    #[test]
    fn decodes_what_is_utf8() {
        for (value, expected) in [
            ("", Some("")),
            ("a%", Some("a%")),
            ("%2Fhome%zz", Some("/home%zz")),
            ("gr%C3%B6%C3%9Fer", Some("größer")),
            ("%FF", None),
        ] {
            assert_eq!(decode(value).as_deref(), expected);
            assert_eq!(is_decodable(value), expected.is_some());
        }
    }

    #[test]
    fn knows_the_grammar() {
        for member in [
            "a=",
            "a=1",
            "\ta = 1 ",
            "a=1=2",
            "a=%2F/()",
            "a=1;p",
            "a=1 ; p = 2 ;q",
            "a*|~=!",
        ] {
            assert!(is_well_formed(member.as_bytes()), "{member:?}");
        }
        for member in [
            "",
            " ",
            "a",
            "not-valid",
            "=",
            "=1",
            " =1",
            "a b=1",
            "a(=1",
            "a=1 2",
            "a=\"1\"",
            "a=\\",
            "a=%",
            "a=%2",
            "a=%zz",
            "a=1;",
            "a=1; ;p",
            "a=1;p=\"",
            "a=1;p q",
            "a;p=1",
            "é=1",
            "a=é",
        ] {
            assert!(!is_well_formed(member.as_bytes()), "{member:?}");
        }
    }
}
