//! Property tests: what holds for any trace headers.

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use sentry_core::protocol::DynamicSamplingContext;

use crate::propagation::context::baggage::{BAGGAGE, Baggage, BaggageWriter};
use crate::propagation::context::envelope_context::EnvelopeContext;
use crate::propagation::context::members::{decode, is_well_formed, sentry_members};
use crate::propagation::context::received_context::ReceivedContext;
use crate::propagation::incoming::IncomingTrace;
use crate::propagation::outgoing::TraceHeaders;
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::SentryTrace;
use crate::propagation::trace_format::TraceFormats;
use crate::propagation::traceparent;
use crate::propagation::w3c_span_context::W3cSpanContext;

const TRACE_ID: [u8; 16] = [0xab; 16];

fn read(list: &str) -> Baggage {
    ReceivedContext::read(std::iter::once(list), TRACE_ID.into()).baggage
}

fn members(list: &str) -> usize {
    list.split(',').count()
}

fn ids() -> impl Strategy<Value = ([u8; 16], [u8; 8])> {
    let are_valid = |(trace, span): &([u8; 16], [u8; 8])| *trace != [0; 16] && *span != [0; 8];
    (any::<[u8; 16]>(), any::<[u8; 8]>()).prop_filter("all zero", are_valid)
}

fn trace() -> impl Strategy<Value = SentryTrace> {
    (ids(), option::of(any::<bool>())).prop_map(|((trace, span), sampled)| SentryTrace {
        trace_id: trace.into(),
        span_id: span.into(),
        sampled,
    })
}

/// Texts that look like trace headers, valid or nearly so.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ \t]?[0-9a-fA-Fg+]{31,33}-[0-9a-f]{15,17}(-[01ft]{0,2})?",
        "(00|ff|cc|0)-[0-9a-fA-F]{31,33}-[0-9a-f]{16}-[0-9a-f+]{1,3}(-.{0,3})?",
    ]
}

/// Of the trace with that id, or of another.
fn known_member() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[0-9.e+-]{0,5}",
        "0\\.[0-9]{1,7}",
        "true|false|%74rue",
        "(%[0-9a-fA-F]{0,2}|[a-z]|é|\"){0,9}",
        Just("ab".repeat(16)),
        Just("%61b".repeat(16)),
        Just("AB".repeat(16)),
        Just("cd".repeat(16)),
    ];
    let key = "(trace_id|public_key|sample_rate|sample_rand|sampled|release|environment|\
               transaction|org_id) ?";
    (key, " ?", value, " ?(; ?[a-z=,]{0,3})?").prop_map(|(key, space, value, properties)| {
        format!("sentry-{key}={space}{value}{properties}")
    })
}

/// Members of Sentry's and others, well-formed or not.
fn list() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        "\\PC{0,9}",
        "[ \t]?(sentry-)?[a-z_]{0,12} ?=?[ -~]{0,20}",
        (0_usize..1_500).prop_map(|len| format!("sentry-long={}", "v".repeat(len))),
        "sentry-[a-z]{1,3}=(%[0-9a-fA-F]{0,2}|é|\"|\u{7f}){0,9}(;a=b)?",
        known_member(),
    ];
    (vec(member, 0..6), 1_usize..20).prop_map(|(members, times)| {
        let list = members.join(",");
        vec![list; times].join(",")
    })
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let legal = prop_oneof![Just(b'\t'), b' '..=b'~', 0x80_u8..];
    let text = |text: String| text.replace(char::is_control, "").into_bytes();
    let bytes = prop_oneof![vec(legal, 0..60), list().prop_map(text)];
    (bytes, any::<bool>()).prop_map(|(bytes, is_sensitive)| {
        let mut value = HeaderValue::from_bytes(&bytes).unwrap();
        value.set_sensitive(is_sensitive);
        value
    })
}

proptest! {
    #[test]
    fn traces_read_as_they_are_written(trace in trace()) {
        prop_assert_eq!(SentryTrace::parse(&trace.to_text()), Some(trace));
    }

    #[test]
    fn spans_of_w3c_read_as_they_are_written((trace, span) in ids(), is_sampled: bool) {
        let span = W3cSpanContext::new(trace, span, is_sampled);
        prop_assert_eq!(traceparent::parse(&span.to_string()), Some(span));
    }

    #[test]
    fn what_is_read_of_any_text_is_written_as_what_it_is(text in nearly()) {
        if let Some(trace) = SentryTrace::parse(&text) {
            prop_assert_eq!(trace.to_text(), text.trim().to_lowercase());
        }
        if let Some(span) = traceparent::parse(&text) {
            prop_assert!(text.trim().get(2..53) == span.to_string().get(2..53));
        }
    }

    #[test]
    fn any_value_of_baggage_reads_back(some in vec(any::<String>(), 0..5), times in 0_usize..20) {
        let texts = vec![some; times].concat();
        let mut writer = BaggageWriter::default();
        for text in &texts {
            writer.push_text("sentry-x=", text);
        }
        let baggage = writer.finish();
        let list = baggage.as_str().unwrap_or_default();
        prop_assert!(HeaderValue::from_str(list).is_ok());
        let read: Vec<_> = sentry_members(list).map(|member| decode(member.value())).collect();
        prop_assert!(read.len() == texts.len().min(64) || list.len() > 8192 - 1024);
        let mut texts = texts.iter();
        for read in read {
            prop_assert!(texts.any(|text| read.as_deref() == Some(text)));
        }
    }

    #[test]
    fn any_baggage_stays_within_its_limits(list in list()) {
        let baggage = read(&list);
        let text = baggage.as_str().unwrap_or_default();
        prop_assert!(text.len() <= 8192 && members(text) <= 64);
        prop_assert!(HeaderValue::from_str(text).is_ok());
        // Whoever is next reads the same.
        prop_assert_eq!(read(text), baggage);
    }

    #[test]
    fn one_pass_reads_what_a_plain_reader_reads(lists in vec(list(), 0..4)) {
        let plain = Plain::read(&lists);
        let read = ReceivedContext::read(lists.iter().map(String::as_str), TRACE_ID.into());
        let members = plain.members.join(",");
        prop_assert_eq!(read.baggage.as_str().unwrap_or_default(), members);
        prop_assert_eq!(read.sample_rate, plain.first("sample_rate", SampleRate::parse));
        prop_assert_eq!(read.sample_rand, plain.first("sample_rand", SampleRand::parse));
        prop_assert_eq!(read.org_id, plain.first("org_id", |value| value.parse().ok()));
        prop_assert_eq!(read.envelope(), plain.envelope());
    }

    #[test]
    fn what_a_request_has_of_others_stays(
        values in vec(header_value(), 0..4),
        own in list(),
    ) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(BAGGAGE, value);
        }
        let before = headers.clone();
        let own = read(&own);
        own.append_to(&mut headers);
        prop_assert_eq!(of_others(&headers), of_others(&before));
        prop_assert!(is_sensitive(&headers) || !is_sensitive(&before));
        // Of Sentry's members there are but these, as many as there is room for.
        let ours: Vec<&str> = own.as_str().into_iter().flat_map(|list| list.split(',')).collect();
        let sent = of_sentry(&headers);
        prop_assert!(sent.iter().all(|member| ours.contains(&member.as_str())));
        let len: usize = headers.get_all(BAGGAGE).iter().map(|value| value.len() + 1).sum();
        prop_assert!(sent.len() == ours.len() || len + 1_500 > 8192 || members_of(&headers) >= 64
            || ours.iter().any(|member| len + member.len() > 8192));
        let once = headers.clone();
        own.append_to(&mut headers);
        prop_assert_eq!(headers, once);
    }

    #[test]
    fn a_trace_goes_on_as_it_is(trace in trace(), list in list(), state in "[a-z=,]{0,9}") {
        let span = trace.to_w3c().with_state(state);
        let sent = TraceHeaders::new(&trace, span, read(&list));
        let mut headers = HeaderMap::new();
        sent.inject(&mut headers);
        let received = IncomingTrace::from_headers(&headers, &TraceFormats::default()).unwrap();
        prop_assert_eq!(received.trace, trace);
        let own = IncomingTrace::from_own(&sent).unwrap();
        prop_assert_eq!(own.trace, trace);
        prop_assert_eq!(&received.context, &own.context);
        // What speaks of another trace is left behind.
        prop_assert!(received.context.baggage.as_str().is_none_or(|list| sent.baggage() == Some(list)));
    }

    #[test]
    fn any_headers_are_read(
        sentry in vec(nearly(), 0..3),
        w3c in vec(nearly(), 0..2),
        baggage in vec(header_value(), 0..3),
    ) {
        let mut headers = HeaderMap::new();
        for (name, values) in [("sentry-trace", sentry), ("traceparent", w3c)] {
            for value in values {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.append(name, value);
                }
            }
        }
        for value in baggage {
            headers.append(BAGGAGE, value);
        }
        if let Some(incoming) = IncomingTrace::from_headers(&headers, &TraceFormats::default()) {
            let text = incoming.context.baggage.as_str().unwrap_or_default();
            prop_assert!(text.len() <= 8192 && members(text) <= 64);
        }
    }
}

/// A sampling context that is read in the plainest way: a member, a key and a value at a time.
#[derive(Debug, Default)]
struct Plain {
    members: Vec<String>,
    /// Keys, and values that can be decoded.
    values: Vec<(String, String)>,
}

impl Plain {
    fn read(lists: &[String]) -> Self {
        let mut plain = Self::default();
        for member in lists.join(",").split(',') {
            plain.add(member.trim());
        }
        let trace_id = plain.first("trace_id", |id| Some(id.to_lowercase()));
        if trace_id.is_some_and(|id| id != "ab".repeat(16)) {
            plain.members.clear();
            plain.values.retain(|(key, _)| key == "org_id");
        }
        plain
    }

    fn add(&mut self, member: &str) {
        let pair = member
            .strip_prefix("sentry-")
            .and_then(|pair| pair.split_once('='));
        let Some((key, _)) = pair else { return };
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~_".contains(c);
        let key = key.trim_end();
        if key.is_empty() || !key.chars().all(is_legal) {
            return;
        }
        let escaped = member.bytes().map(|byte| match byte {
            b'"' | b'\\' => format!("%{byte:02X}"),
            b'\t' | b' '..=b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        let member: String = escaped.collect();
        let mut members = self.members.clone();
        members.push(member.clone());
        if members.len() > 64 || members.join(",").len() > 8192 {
            return;
        }
        self.members = members;
        let (_, value) = member.split_once('=').unwrap();
        let value = value.split(';').next().unwrap().trim();
        if let Ok(value) = percent_decode_str(value).decode_utf8() {
            self.values.push((key.to_owned(), value.into_owned()));
        }
    }

    /// The first value that can be read.
    fn first<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut values = self.values.iter().filter(|(known, _)| known == key);
        values.find_map(|(_, value)| read(value))
    }

    fn envelope(&self) -> Option<DynamicSamplingContext> {
        let text = |key| self.first(key, |value| Some(value.to_owned()));
        let context = EnvelopeContext {
            trace_id: self.first("trace_id", |id| id.to_lowercase().parse().ok())?,
            public_key: text("public_key")?,
            sample_rate: self.first("sample_rate", SampleRate::parse),
            sample_rand: self.first("sample_rand", SampleRand::parse),
            sampled: self.first("sampled", |value| value.parse().ok()),
            release: text("release"),
            environment: text("environment"),
            transaction: text("transaction"),
            org_id: self.first("org_id", |value| value.parse().ok()),
        };
        Some(context.typed())
    }
}

fn texts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(BAGGAGE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
}

fn is_of_sentry(member: &str) -> bool {
    let member = member.trim();
    member.starts_with("sentry-") && member.contains('=')
}

fn of_sentry(headers: &HeaderMap) -> Vec<String> {
    let members = texts(headers).filter(|member| is_of_sentry(member));
    members.map(|member| member.trim().to_owned()).collect()
}

fn of_others(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(BAGGAGE).iter();
    values.flat_map(others).map(str::to_owned).collect()
}

/// The members of others, as far as the grammar allows them.
fn others(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let members = value.as_bytes().split(|byte| *byte == b',');
    members
        .filter(|member| is_well_formed(member))
        .filter_map(|member| str::from_utf8(member).ok())
        .filter(|member| !member.trim().starts_with("sentry-"))
}

fn is_sensitive(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(BAGGAGE).iter();
    values.any(|value| value.is_sensitive() && others(value).next().is_some())
}

fn members_of(headers: &HeaderMap) -> usize {
    let values = headers.get_all(BAGGAGE).iter();
    values.map(|value| value.to_str().map_or(1, members)).sum()
}
