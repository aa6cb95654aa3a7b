//! Property tests: what holds for any trace headers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::propagation::baggage::{BAGGAGE, Baggage, value};
use crate::propagation::incoming::IncomingTrace;
use crate::propagation::outgoing::TraceHeaders;
use crate::propagation::sentry_trace::SentryTrace;
use crate::propagation::trace_format::TraceFormats;
use crate::propagation::traceparent;
use crate::propagation::w3c_span_context::W3cSpanContext;

fn read(list: &str) -> Baggage {
    let mut baggage = Baggage::default();
    baggage.extend_sentry(list, |_, _| ());
    baggage
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

/// Members of Sentry's and others, well-formed or not.
fn list() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        "\\PC{0,9}",
        "[ \t]?(sentry-)?[a-z_]{0,12} ?=?[ -~]{0,20}",
        (0_usize..1_500).prop_map(|len| format!("sentry-long={}", "v".repeat(len))),
        "sentry-[a-z]{1,3}=(%[0-9a-fA-F]{0,2}|é|\"|\u{7f}){0,9}(;a=b)?",
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
        let mut baggage = Baggage::default();
        for text in &texts {
            baggage.push_text("sentry-x=", text);
        }
        let list = baggage.as_str().unwrap_or_default();
        prop_assert!(HeaderValue::from_str(list).is_ok());
        let read: Vec<_> = baggage.by_key().map(|(_, member)| value(member)).collect();
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
        let ours: Vec<&str> = own.by_key().map(|(_, member)| member).collect();
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
        let sent = TraceHeaders::new(&trace, span, Arc::new(read(&list)));
        let mut headers = HeaderMap::new();
        sent.inject(&mut headers);
        let received = IncomingTrace::from_headers(&headers, &TraceFormats::default()).unwrap();
        prop_assert_eq!(received.trace, trace);
        let own = IncomingTrace::from_own(&sent).unwrap();
        prop_assert_eq!(own.trace, trace);
        prop_assert_eq!(&received.baggage, &own.baggage);
        // What speaks of another trace is left behind.
        prop_assert!(received.baggage.as_str() == sent.baggage() || received.baggage.as_str().is_none());
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
            let text = incoming.baggage.as_str().unwrap_or_default();
            prop_assert!(text.len() <= 8192 && members(text) <= 64);
        }
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

/// And the values that are no text.
fn of_others(headers: &HeaderMap) -> (Vec<String>, Vec<HeaderValue>) {
    let members = texts(headers).filter(|m| !is_of_sentry(m) && !m.trim().is_empty());
    let values = headers.get_all(BAGGAGE).iter();
    let opaque = values.filter(|value| value.to_str().is_err()).cloned();
    (members.map(str::to_owned).collect(), opaque.collect())
}

fn is_sensitive(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(BAGGAGE).iter();
    let is_told = |value: &HeaderValue| value.to_str().is_ok_and(|text| !text.trim().is_empty());
    values.any(|value| is_told(value) && value.is_sensitive() && has_others(value))
}

fn has_others(value: &HeaderValue) -> bool {
    let mut members = value.to_str().unwrap_or_default().split(',');
    members.any(|member| !is_of_sentry(member) && !member.trim().is_empty())
}

fn members_of(headers: &HeaderMap) -> usize {
    let values = headers.get_all(BAGGAGE).iter();
    values.map(|value| value.to_str().map_or(1, members)).sum()
}
