//! What goes out is valid and bounded, whatever came in.

use http::HeaderMap;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::Interceptor;
use tonic::{Extensions, Request};
use tracing::span::Id;
use tracing::{Dispatch, Span, info_span};

use sentry_tonic::{SentryClientLayer, SentrySpanExt, TracePropagationInterceptor, W3cSpanContext};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::world::{RATES, World};

const SENTRY: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";

/// What ends a value, a line or a text for somebody.
const ENDS: [&str; 9] = [
    "\r\nx-injected: 1",
    "\nx-injected: 1",
    "\r",
    "\0",
    "\u{7f}\u{1b}[31m",
    "größer\u{202e}",
    "\"\\",
    "\t ",
    "%0d%0ax-injected:%201",
];

const MAX_LEN: usize = 8192;

type Carried = Vec<(&'static str, String)>;

/// Headers of a trace that make trouble, as far as those of their carrier can.
fn hostile() -> Vec<Carried> {
    let whole = |baggage: String, state: String| {
        vec![
            ("sentry-trace", SENTRY.to_owned()),
            ("baggage", baggage),
            ("traceparent", W3C.to_owned()),
            ("tracestate", state),
        ]
    };
    let mut all = Vec::new();
    for end in ENDS {
        let baggage =
            format!("vendor=1{end},sentry-release=1{end},sentry-a{end}=1,sentry-b=;{end}=1");
        all.push(whole(baggage, format!("a=1{end},b{end}=1")));
        // Of these the ends cannot be left.
        all.push(vec![("sentry-trace", format!("{SENTRY}{end}"))]);
        all.push(vec![("traceparent", format!("{W3C}{end}"))]);
        let future = format!("cc{}-{end}", &W3C[2..]);
        all.push(vec![("traceparent", future)]);
    }
    let list = |members: usize, len: usize| {
        let member = |n| format!("sentry-{n:05}={}", "v".repeat(len));
        let members: Vec<_> = (0..members).map(member).collect();
        members.join(",")
    };
    for (members, len) in [(1, 15_000), (600, 8), (30, 400), (1, 100_000), (10_000, 8)] {
        let list = list(members, len);
        // A server takes 16 kB of headers, other carriers what they like.
        all.push(whole(list.clone(), "a=1".to_owned()));
        all.push(whole(String::new(), list));
    }
    all
}

/// Whether a value is the same to all who read it.
fn is_text(value: &[u8]) -> bool {
    value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

#[track_caller]
fn assert_list(list: &str, members: usize, case: &str) {
    assert!(is_text(list.as_bytes()), "{case}: {list:?}");
    assert!(list.len() <= MAX_LEN, "{case}: {} bytes", list.len());
    assert!(list.split(',').count() <= members, "{case}");
}

#[track_caller]
fn assert_sentry_trace(value: &str, case: &str) {
    let parts: Vec<_> = value.split('-').collect();
    let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(parts.iter().all(|part| is_hex(part)), "{case}: {value:?}");
    let lens: Vec<_> = parts.iter().map(|part| part.len()).collect();
    assert!(matches!(lens[..], [32, 16] | [32, 16, 1]), "{case}");
}

/// That the headers of a request are as they should be.
#[track_caller]
fn assert_valid(headers: &HeaderMap, case: &str) {
    assert!(!headers.contains_key("x-injected"), "{case}");
    for name in ["sentry-trace", "baggage", "traceparent", "tracestate"] {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        assert_eq!(values.next(), None, "{case}: {name}");
        assert!(is_text(value.as_bytes()), "{case}: {value:?}");
        let value = value.to_str().unwrap();
        match name {
            "sentry-trace" => assert_sentry_trace(value, case),
            "traceparent" => assert_eq!(value.len(), W3C.len(), "{case}"),
            "baggage" => assert_list(value, 64, case),
            _ => assert_list(value, 32, case),
        }
    }
    assert!(headers.contains_key("sentry-trace"), "{case}");
}

/// In all ways in which a span hands its trace on.
#[track_caller]
fn assert_hands_on_what_is_valid(span: &Span, case: &str) {
    let headers = span.trace_headers().unwrap();
    assert_sentry_trace(headers.sentry_trace(), case);
    assert_eq!(headers.traceparent().len(), W3C.len(), "{case}");
    if let Some(baggage) = headers.baggage() {
        assert_list(baggage, 64, case);
    }
    for (name, value) in headers.iter() {
        assert!(is_text(value.as_bytes()), "{case}: {name}: {value:?}");
    }
    let mut map = HeaderMap::new();
    headers.inject(&mut map);
    headers.inject_traceparent(&mut map);
    assert_valid(&map, case);
    let mut interceptor = TracePropagationInterceptor::new().propagate_traceparent(true);
    let request = span.in_scope(|| interceptor.call(Request::new(())).unwrap());
    assert_valid(request.metadata().as_ref(), case);
}

#[test]
fn a_trace_of_any_carrier_goes_on_in_valid_headers() {
    for rate in RATES {
        let world = World::rated(rate, |options| options, |layer| layer);
        for carried in hostile() {
            let case = format!("{rate:?} {:.300}", format!("{carried:?}"));
            world.sync(|| {
                let span = info_span!("job");
                let carried = carried.iter().map(|(name, value)| (*name, value.as_str()));
                // Where it holds no trace, one begins.
                let _ = span.continue_trace(carried);
                assert_hands_on_what_is_valid(&span, &case);
            });
        }
    }
}

/// What a request can have of them; more than a server takes is cut off.
fn metadata_of(carried: &Carried) -> Option<MetadataMap> {
    let mut metadata = MetadataMap::new();
    let mut len = 0;
    for (name, value) in carried {
        len += value.len();
        if let Ok(value) = AsciiMetadataValue::try_from(value.as_bytes()) {
            metadata.append(*name, value);
        }
    }
    (len < 15_500).then_some(metadata)
}

#[test]
fn a_trace_of_a_request_goes_on_in_valid_headers() {
    let world = World::new();
    world.run(async {
        let (behind, arrivals) = Scripted::new().serve_unobserved().await;
        let layer = SentryClientLayer::new().propagate_traceparent(true);
        let client = behind.observed_client(layer).await;
        let greeter = Scripted::new().say_hello(move |name| {
            let mut client = client.clone();
            async move {
                client.say_hello(request(&name)).await?;
                Ok(reply(&name))
            }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        let mut count = 0;
        for carried in hostile() {
            let Some(metadata) = metadata_of(&carried) else {
                continue;
            };
            let request = Request::from_parts(metadata, Extensions::new(), request("Ferris"));
            client.say_hello(request).await.unwrap();
            let case = format!("{:.300}", format!("{carried:?}"));
            assert_valid(&arrivals.recv().unwrap(), &case);
            count += 1;
        }
        assert!(count > 40, "{count}");
        drop(client);
        server.stop().await;
        behind.stop().await;
    });
}

#[test]
fn what_an_application_is_named_goes_out_in_valid_headers() {
    for end in ENDS {
        for rate in RATES {
            let named = |options: sentry::ClientOptions| {
                let options = options.release(format!("greeter{end}"));
                options.environment(format!("{}{end}", "e".repeat(9_000)))
            };
            let world = World::rated(rate, named, |layer| layer);
            let case = format!("{end:?} {rate:?}");
            world.sync(|| {
                let span = info_span!("job", sentry.name = format!("job{end}"));
                assert_hands_on_what_is_valid(&span, &case);
                let headers = span.trace_headers().unwrap();
                let baggage = headers.baggage().unwrap();
                assert!(baggage.contains("sentry-release=greeter"), "{baggage}");
                assert!(!baggage.contains("sentry-environment"), "{baggage}");
            });
        }
    }
}

#[test]
fn a_state_that_a_hook_makes_up_is_no_header() {
    fn ids<const END: usize>(_: &Id, _: &Dispatch) -> Option<W3cSpanContext> {
        let ids = W3cSpanContext::new([1; 16], [2; 8], true);
        Some(ids.with_state(format!("a=1{}", ENDS[END])))
    }
    let hooks = [ids::<0>, ids::<2>, ids::<3>, ids::<4>, ids::<5>];
    for hook in hooks {
        let world = World::with(
            |options| options.traces_sample_rate(1.0),
            |layer| layer.otel_bridge(hook, |_, _| {}),
        );
        world.sync(|| {
            let span = info_span!("job");
            assert_hands_on_what_is_valid(&span, "a hook");
            let headers = span.trace_headers().unwrap();
            assert!(headers.traceparent().contains(&"01".repeat(16)));
        });
    }
}
