//! The `traceparent` header of W3C.

use http::{HeaderName, HeaderValue};

use crate::propagation::id;
use crate::propagation::w3c_span_context::W3cSpanContext;

pub(crate) const TRACEPARENT: &str = "traceparent";
pub(crate) const TRACESTATE: &str = "tracestate";
pub(crate) const TRACEPARENT_NAME: HeaderName = HeaderName::from_static(TRACEPARENT);
pub(crate) const TRACESTATE_NAME: HeaderName = HeaderName::from_static(TRACESTATE);

/// Of the fields that every version has.
const LEN: usize = "00-".len() + 32 + "-".len() + 16 + "-01".len();

/// As many bytes as of `baggage`, and the number of members that W3C says:
/// <https://www.w3.org/TR/trace-context/#tracestate-header-field-values>.
const MAX_STATE_LEN: usize = 8192;
const MAX_STATE_MEMBERS: usize = 32;

/// The flag of a caller that records its part of the trace.
const SAMPLED: u8 = 1;

/// Reads `00-<32 hex>-<16 hex>-<2 hex>`, all in lower case. Of a later version it reads the same
/// places.
///
/// See <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub(crate) fn parse(value: &str) -> Option<W3cSpanContext> {
    let (fields, more) = value.trim_matches([' ', '\t']).split_at_checked(LEN)?;
    let has_upper_case = fields
        .bytes()
        .fold(false, |any, b| any | b.is_ascii_uppercase());
    let (version, fields) = fields.split_at_checked(2)?;
    let (trace_id, fields) = fields.strip_prefix('-')?.split_at_checked(32)?;
    let (span_id, fields) = fields.strip_prefix('-')?.split_at_checked(16)?;
    let flags = fields.strip_prefix('-')?;
    let is_known = more.is_empty() || more.starts_with('-') && version != "00";
    if !is_known || version == "ff" || has_upper_case {
        return None;
    }
    let [_] = id::from_hex(version)?;
    let [flags] = id::from_hex(flags)?;
    let (trace_id, span_id) = (id::parse(trace_id)?, id::parse(span_id)?);
    Some(W3cSpanContext::new(trace_id, span_id, flags & SAMPLED != 0))
}

/// The `tracestate` to pass on: its first members, which are the newest, within the limits.
/// `None` for one that is not printable ASCII, which may come by another protocol.
pub(crate) fn state_header(state: &str) -> Option<HeaderValue> {
    let mut end = None;
    for member in state.split(',').take(MAX_STATE_MEMBERS) {
        let next = end.map_or(0, |end| end + 1) + member.len();
        if next > MAX_STATE_LEN {
            break;
        }
        end = Some(next);
    }
    let state = state.get(..end?).filter(|state| !state.is_empty())?;
    let is_text = state.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    // `from_str` would accept non-ASCII text, too.
    HeaderValue::from_str(state).ok().filter(|_| is_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
    const SPAN: &str = "9cf635fa5b870b3a";

    #[test]
    fn accepts_what_w3c_allows_and_nothing_else() {
        for (value, sampled) in [
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-02"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!(" 00-{TRACE}-{SPAN}-01\t"), true),
            (format!("01-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes"), true),
        ] {
            let trace = parse(&value).unwrap();
            let ids = (trace.trace_id.to_string(), trace.span_id.to_string());
            assert_eq!(ids, (TRACE.to_owned(), SPAN.to_owned()), "{value}");
            assert_eq!(trace.is_sampled, sampled, "{value}");
        }
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01more"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}0-01"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("{TRACE}-{SPAN}-1"),
        ] {
            assert_eq!(parse(&value), None, "{value:?}");
        }
    }

    #[test]
    fn says_whether_the_trace_is_sampled() {
        let told = |flags| {
            parse(&format!("00-{TRACE}-{SPAN}-{flags}"))
                .unwrap()
                .to_string()
        };
        assert_eq!(told("01"), format!("00-{TRACE}-{SPAN}-01"));
        assert_eq!(told("00"), format!("00-{TRACE}-{SPAN}-00"));
    }

    #[test]
    fn of_a_state_goes_on_what_is_text_within_the_limits() {
        let list = |members: usize, len: usize| vec!["v".repeat(len); members].join(",");
        for (state, expected) in [
            ("", None),
            ("a=1", Some("a=1")),
            ("a=1, b=2\t,,c=3", Some("a=1, b=2\t,,c=3")),
            ("a=1\r\nx: y", None),
            ("a=\u{7f}", None),
            ("a=ä", None),
            (&list(33, 3), Some(&*list(32, 3))),
            (&list(8, 1023), Some(&*list(8, 1023))),
            (&list(9, 1023), Some(&*list(8, 1023))),
            (&list(1, 8193), None),
        ] {
            let header = state_header(state);
            let header = header.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(header, expected, "{state:?}");
        }
    }
}
