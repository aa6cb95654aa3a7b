//! The `baggage` header.
//!
//! See <https://www.w3.org/TR/baggage/> and
//! <https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/#baggage-header>.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::OnceLock;

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub(crate) const BAGGAGE: &str = "baggage";
pub(crate) const BAGGAGE_NAME: HeaderName = HeaderName::from_static(BAGGAGE);

const SENTRY_PREFIX: &str = "sentry-";

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

/// How much of the limits is used.
#[derive(Debug, Clone, Default)]
struct Usage {
    len: usize,
    members: usize,
}

impl Usage {
    fn with(&self, len: usize) -> Self {
        let separator = usize::from(self.members > 0);
        Self {
            len: self.len + separator + len,
            members: self.members + 1,
        }
    }

    /// Whether a member of this length fits; if so, it is counted.
    fn take(&mut self, len: usize) -> bool {
        let usage = self.with(len);
        let fits = usage.len <= MAX_LEN && usage.members <= MAX_MEMBERS;
        if fits {
            *self = usage;
        }
        fits
    }
}

/// A list of baggage members within the limits, ready to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Baggage {
    list: String,
    usage: Usage,
    /// The list as a header value, made once for all requests that have no `baggage` of their
    /// own.
    header: OnceLock<Option<HeaderValue>>,
}

/// Compares the members; whether the header value was made does not matter.
impl PartialEq for Baggage {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Baggage {}

impl Baggage {
    /// `None` where there are no members.
    pub(crate) fn as_str(&self) -> Option<&str> {
        (!self.list.is_empty()).then_some(self.list.as_str())
    }

    /// The members, each with its key without the prefix.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = (&str, &str)> {
        members(&self.list).filter_map(|member| Some((sentry_key(member)?, member)))
    }

    /// Adds a member, if it fits. `key` is `sentry-<key>=`; neither it nor `value` needs
    /// encoding.
    pub(crate) fn push_plain(&mut self, key: &str, value: &str) {
        self.push([key, value]);
    }

    /// Adds a member with any text as its value, if it fits.
    pub(crate) fn push_text(&mut self, key: &str, value: &str) {
        self.push(std::iter::once(key).chain(utf8_percent_encode(value, VALUE)));
    }

    /// Adds the Sentry members of `list` as they are. Only bytes that no header may have are
    /// percent-encoded, which does not change the value. `see` is given each added member, and
    /// its key without the prefix.
    pub(crate) fn extend_sentry(&mut self, list: &str, mut see: impl FnMut(&str, &str)) {
        for member in members(list) {
            if let Some(key) = sentry_key(member).filter(|key| is_token(key)) {
                let member = escape(member);
                if self.push([&*member]) {
                    see(key, &member);
                }
            }
        }
    }

    /// Adds the member that is made of these texts, if it fits; returns whether it does.
    fn push<'a>(&mut self, member: impl IntoIterator<Item = &'a str>) -> bool {
        let end = self.list.len();
        if self.list.is_empty() {
            self.list.reserve(USUAL_LEN);
        } else {
            self.list.push(',');
        }
        let start = self.list.len();
        self.list.extend(member);
        let fits = self.usage.take(self.list.len() - start);
        if !fits {
            self.list.truncate(end);
        }
        self.header = OnceLock::new();
        fits
    }

    fn header(&self) -> Option<HeaderValue> {
        let value = || HeaderValue::from_str(self.as_str()?).ok();
        self.header.get_or_init(value).clone()
    }

    /// Adds these members to the `baggage` of a request.
    ///
    /// Members of others stay as they are; those of Sentry are replaced. Members that would go
    /// over the limits are left out.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        match headers.try_entry(BAGGAGE_NAME) {
            Ok(Entry::Occupied(_)) => self.merge_into(headers),
            Ok(Entry::Vacant(entry)) => {
                if let Some(value) = self.header() {
                    let _ = entry.try_insert(value);
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
        let mut usage = Usage::default();
        let mut list: Vec<&str> = Vec::new();
        let mut is_sensitive = false;
        let mut has_changed = false;
        // Values that are not text cannot be joined into a list. They stay.
        let mut opaque = Vec::new();
        for value in headers.get_all(BAGGAGE_NAME) {
            match value.to_str() {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    is_sensitive |= value.is_sensitive();
                    let (sentry, others): (Vec<&str>, Vec<&str>) = text
                        .split(',')
                        .partition(|member| sentry_key(member.trim()).is_some());
                    has_changed |= !sentry.is_empty();
                    list.extend(others);
                }
                Err(_) => opaque.push(value.clone()),
            }
        }
        let lens = opaque.iter().map(HeaderValue::len);
        for len in lens.chain(list.iter().map(|member| member.len())) {
            usage = usage.with(len);
        }
        for member in self.as_str().into_iter().flat_map(members) {
            if usage.take(member.len()) {
                list.push(member);
                has_changed = true;
            }
        }
        if !has_changed {
            return;
        }
        let Ok(mut value) = HeaderValue::try_from(list.join(",")) else {
            return;
        };
        value.set_sensitive(is_sensitive);
        headers.remove(BAGGAGE_NAME);
        let mut values = opaque
            .into_iter()
            .chain((!value.is_empty()).then_some(value));
        // The map may be full: the removed name has left room for one.
        if let Some(first) = values.next()
            && let Ok(Entry::Vacant(entry)) = headers.try_entry(BAGGAGE_NAME)
            && let Ok(mut entry) = entry.try_insert_entry(first)
        {
            values.for_each(|value| entry.append(value));
        }
    }
}

/// The members of a list, without the space around them.
fn members(list: &str) -> impl Iterator<Item = &str> {
    let mut left = Some(list);
    let next = move || {
        let list = left?;
        let (member, others) = match split_at(list, b',') {
            Some((member, others)) => (member, Some(others)),
            None => (list, None),
        };
        left = others;
        Some(member.trim())
    };
    std::iter::from_fn(next).filter(|member| !member.is_empty())
}

/// The key of a member of Sentry's, without its prefix.
fn sentry_key(member: &str) -> Option<&str> {
    let (key, _) = split_at(member.strip_prefix(SENTRY_PREFIX)?, b'=')?;
    Some(key.trim_end())
}

/// The value of a member, decoded, without its properties; `None` where it is
/// not UTF-8.
pub(crate) fn value(member: &str) -> Option<Cow<'_, str>> {
    let (_, value) = split_at(member, b'=')?;
    let value = split_at(value, b';')
        .map_or(value, |(value, _)| value)
        .trim();
    match value.bytes().any(|b| b == b'%') {
        true => percent_decode_str(value).decode_utf8().ok(),
        false => Some(value.into()),
    }
}

/// As `split_once`, but faster on short texts.
fn split_at(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Whether a key is made of characters that a key may have.
fn is_token(key: &str) -> bool {
    const OTHERS: &[u8] = b"!#$%&'*+-.^`|~_";
    let is_token = |b: u8| b.is_ascii_alphanumeric() || OTHERS.contains(&b);
    !key.is_empty() && key.bytes().all(is_token)
}

fn escape(member: &str) -> Cow<'_, str> {
    let is_legal = |b: u8| b == b'\t' || matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    // Checking all bytes is faster than stopping at the first illegal one: most have none.
    if member.bytes().fold(true, |all, b| all & is_legal(b)) {
        return member.into();
    }
    let mut escaped = String::with_capacity(member.len());
    for byte in member.bytes() {
        if is_legal(byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentry(list: &str) -> Baggage {
        let mut baggage = Baggage::default();
        baggage.extend_sentry(list, |_, _| ());
        baggage
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
    fn takes_sentry_members_byte_for_byte() {
        for (list, expected) in [
            ("", None),
            ("a=1,b=2", None),
            ("sentry-a=1", Some("sentry-a=1")),
            (
                " x=1 , sentry-b=%2F%zz;p=1 ,,sentry-a = 2\t",
                Some("sentry-b=%2F%zz;p=1,sentry-a = 2"),
            ),
            ("sentry-a,sentry-=1,sentry-b c=1,Sentry-d=1", None),
            (
                "sentry-a=\"b\\é\u{7f}\r\nx: y",
                Some("sentry-a=%22b%5C%C3%A9%7F%0D%0Ax: y"),
            ),
        ] {
            assert_eq!(sentry(list).as_str(), expected, "{list:?}");
        }
    }

    #[test]
    fn values_read_back_as_they_were_written() {
        for text in ["1.0", "/a.B/C", "a,b;c=d e+f%g\"\\", "größer", "\n", ""] {
            let mut baggage = Baggage::default();
            baggage.push_text("sentry-x=", text);
            let list = baggage.as_str().unwrap();
            assert!(HeaderValue::from_str(list).is_ok(), "{list:?}");
            let [member] = members(list).collect::<Vec<_>>()[..] else {
                panic!("{list:?}");
            };
            assert_eq!(sentry_key(member), Some("x"));
            assert_eq!(value(member).as_deref(), Some(text));
        }
        assert_eq!(value("a=%FF"), None);
        assert_eq!(value("a= b ;c=d").as_deref(), Some("b"));
    }

    #[test]
    fn what_a_request_has_stays() {
        let own = "sentry-a=1,sentry-b=2";
        for (existing, expected) in [
            (&[][..], &["sentry-a=1,sentry-b=2"][..]),
            (&[b"".as_slice()], &["sentry-a=1,sentry-b=2"]),
            (&[b"x=1"], &["x=1,sentry-a=1,sentry-b=2"]),
            (
                &[b"x=1;p=\"q\" ,y", b"=;, z"],
                &["x=1;p=\"q\" ,y,=;, z,sentry-a=1,sentry-b=2"],
            ),
            (
                &[b"sentry-a=9,x=1, sentry-c=9"],
                &["x=1,sentry-a=1,sentry-b=2"],
            ),
            (
                &[b"x=1", b"\xff=1", b"y=2"],
                &["\u{fffd}=1", "x=1,y=2,sentry-a=1,sentry-b=2"],
            ),
        ] {
            assert_eq!(merged(existing, own), expected);
        }
        // Of a trace that has none, none must stay of another.
        assert_eq!(merged(&[b"sentry-a=9", b"x=1"], ""), ["x=1"]);
        assert_eq!(merged(&[b"sentry-a=9"], ""), [""; 0]);
        // And nothing is touched without need.
        assert_eq!(merged(&[b"y=1", b"x=1"], ""), ["y=1", "x=1"]);
        let opaque = vec![0xff; 9_000];
        assert_eq!(merged(&[&opaque, b"y", b"x"], own).len(), 3);
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
