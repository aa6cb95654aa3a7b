//! What leaves the process, as bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sentry::{Client, ClientOptions, Envelope, Hub, Transport};
use sentry_tonic::{SentrySpanExt, SentryTracingLayer, TraceTransport};
use serde_json::{Value, json};
use tracing::{error, info_span};
use tracing_subscriber::layer::SubscriberExt;

const HEADERS: [(&str, &str); 2] = [
    (
        "sentry-trace",
        "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1",
    ),
    (
        "baggage",
        "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=head",
    ),
];

/// As sentry's HTTP transports: filters each envelope, and writes it.
#[derive(Default)]
struct Filtering {
    sent: Mutex<Vec<Vec<u8>>>,
    flushed: Mutex<Vec<&'static str>>,
}

impl Transport for Filtering {
    fn send_envelope(&self, envelope: Envelope) {
        let all = sentry::protocol::EnvelopeFilterCallbacks::new(|_: &_| true, |_| {});
        let Some(envelope) = envelope.filter(all) else {
            return;
        };
        let mut bytes = Vec::new();
        envelope.to_writer(&mut bytes).unwrap();
        self.sent.lock().unwrap().push(bytes);
    }

    fn flush(&self, _: Duration) -> bool {
        self.flushed.lock().unwrap().push("flush");
        true
    }

    fn shutdown(&self, _: Duration) -> bool {
        self.flushed.lock().unwrap().push("shutdown");
        true
    }
}

/// Type of the first item, and the header of the envelope.
fn sent(transport: &Filtering) -> Vec<(String, Value)> {
    let sent = std::mem::take(&mut *transport.sent.lock().unwrap());
    let parse = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.lines().map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            value
        });
        let (mut header, item) = (lines.next().unwrap(), lines.next().unwrap());
        let kind = item["type"].as_str().unwrap();
        let members = header.as_object_mut().unwrap();
        members.remove("event_id");
        if let Some(sent_at) = members.get_mut("sent_at") {
            humantime::parse_rfc3339(sent_at.as_str().unwrap()).unwrap();
            *sent_at = "a time".into();
        }
        (kind.to_owned(), header)
    };
    sent.into_iter().map(parse).collect()
}

fn with_transport(wrap: bool, f: impl FnOnce(&Arc<Hub>)) -> Arc<Filtering> {
    let inner = Arc::new(Filtering::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0);
    let options = match wrap {
        true => options.transport(TraceTransport::new(Arc::clone(&inner))),
        false => options.transport(Arc::clone(&inner)),
    };
    let client = Arc::new(Client::from(options));
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    let layer = SentryTracingLayer::new().hub(Arc::clone(&hub));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || f(&hub));
    assert!(hub.client().unwrap().flush(None));
    inner
}

fn job(fails: bool) {
    let span = info_span!(target: "test", "job");
    span.continue_trace(HEADERS).unwrap();
    span.in_scope(|| {
        if fails {
            error!(target: "test", "failed");
            sentry::capture_message("captured", sentry::Level::Info);
        }
    });
}

fn head() -> Value {
    json!({
        "trace": { "trace_id": "09e04486820349518ac7b5d2adbf6ba5", "public_key": "head" }
    })
}

/// The headers of an envelope that has the sampling context of its trace.
fn headers(kind: &str) -> Value {
    let mut headers = head();
    if kind == "transaction" {
        headers["sent_at"] = "a time".into();
    }
    headers
}

#[test]
fn what_is_said_of_a_trace_arrives_with_a_trace_transport_and_only_so() {
    let inner = with_transport(false, |_| job(true));
    let bare = json!({});
    let kinds = ["event", "event", "transaction"];
    let expected: Vec<_> = kinds.map(|kind| (kind.to_owned(), bare.clone())).into();
    assert_eq!(sent(&inner), expected);

    let inner = with_transport(true, |_| job(true));
    let expected: Vec<_> = kinds.map(|kind| (kind.to_owned(), headers(kind))).into();
    assert_eq!(sent(&inner), expected);
}

#[test]
fn errors_outside_of_any_trace_of_ours_go_as_they_are() {
    let inner = with_transport(true, |hub| {
        Hub::run(Arc::clone(hub), || {
            sentry::capture_message("outside", sentry::Level::Info);
        });
        job(false);
        // Nor have they what the last one on their thread had.
        Hub::run(Arc::clone(hub), || {
            sentry::capture_message("outside", sentry::Level::Info);
        });
    });
    let sent = sent(&inner);
    let kinds: Vec<_> = sent.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["event", "transaction", "event"]);
    assert_eq!((&sent[0].1, &sent[2].1), (&json!({}), &json!({})));
}

#[test]
fn an_error_that_is_not_sent_leaves_nothing_behind() {
    let inner = Arc::new(Filtering::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .before_send(|event| {
            event
                .message
                .as_deref()
                .is_some_and(|m| m == "kept")
                .then_some(event)
        })
        .transport(TraceTransport::new(Arc::clone(&inner)));
    let client = Arc::new(Client::from(options));
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    let layer = SentryTracingLayer::new().hub(Arc::clone(&hub));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || job(true));
    Hub::run(Arc::clone(&hub), || {
        sentry::capture_message("kept", sentry::Level::Info);
    });
    assert!(hub.client().unwrap().flush(None));
    assert_eq!(sent(&inner), [("event".to_owned(), json!({}))]);
}

#[test]
fn it_is_flushed_and_shut_down_as_the_transport_inside() {
    let inner = with_transport(true, |hub| {
        let client = hub.client().unwrap();
        assert!(client.flush(None));
        assert!(client.close(None));
    });
    let calls = inner.flushed.lock().unwrap().clone();
    assert!(calls.contains(&"flush"));
    assert!(calls.contains(&"shutdown"));
}

#[test]
fn an_error_of_another_trace_says_nothing_of_this_one() {
    let inner = with_transport(true, |_| {
        let span = info_span!(target: "test", "job");
        span.continue_trace(HEADERS).unwrap();
        span.in_scope(|| {
            sentry::configure_scope(|scope| {
                let own = sentry::start_transaction(sentry::TransactionContext::new("a", "b"));
                scope.set_span(Some(own.into()));
            });
            sentry::capture_message("of its own trace", sentry::Level::Info);
        });
    });
    let sent = sent(&inner);
    assert_eq!(sent[0], ("event".to_owned(), json!({})));
    assert_eq!(sent[1], ("transaction".to_owned(), headers("transaction")));
}

#[test]
fn an_error_that_is_captured_while_another_is_sent_takes_nothing_from_it() {
    let inner = Arc::new(Filtering::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .before_send(|event| {
            if event.message.as_deref() == Some("captured") {
                sentry::capture_message("meanwhile", sentry::Level::Info);
            }
            Some(event)
        })
        .transport(TraceTransport::new(Arc::clone(&inner)));
    let client = Arc::new(Client::from(options));
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    let layer = SentryTracingLayer::new()
        .hub(Arc::clone(&hub))
        .capture_errors(false);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || job(true));
    assert!(hub.client().unwrap().flush(None));
    let expected = ("event".to_owned(), head());
    assert_eq!(sent(&inner), [expected.clone(), expected]);
}

#[test]
fn what_was_not_sampled_is_reported_along() {
    let inner = with_transport(true, |hub| {
        job(false);
        let loss = hub.start_transaction({
            let mut context = sentry::TransactionContext::new("a", "b");
            context.set_sampled(false);
            context
        });
        loss.finish();
        job(false);
    });
    let sent = inner.sent.lock().unwrap();
    let kinds = |bytes: &[u8]| -> Vec<String> {
        let lines = std::str::from_utf8(bytes).unwrap().lines();
        let types = lines.filter_map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            value["type"].as_str().map(str::to_owned)
        });
        types.collect()
    };
    let sent: Vec<_> = sent.iter().map(|bytes| kinds(bytes)).collect();
    // By itself: sentry's transports report again what they lose of reports, but
    // not what they lose of bytes.
    assert_eq!(sent, [["transaction"], ["transaction"], ["client_report"]]);
}

#[test]
fn what_has_nothing_to_lose_goes_as_it_is() {
    let inner = sentry::test::TestTransport::new();
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .transport(TraceTransport::new(Arc::clone(&inner)));
    let client = Arc::new(Client::from(options));
    let hub = Hub::new(Some(client), Arc::default());
    hub.capture_message("outside", sentry::Level::Info);
    assert!(hub.client().unwrap().flush(None));
    let envelopes = inner.fetch_and_clear_envelopes();
    assert_eq!(envelopes.len(), 1);
    assert!(envelopes[0].event().is_some());
}

#[test]
fn large_and_small_ones_are_written_each_for_itself() {
    let sizes = [1_000, 300_000, 10, 70_000, 2_000];
    let inner = with_transport(true, |_| {
        for size in sizes {
            info_span!(target: "test", "job").in_scope(|| {
                // A field of a span would be cut.
                let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
                span.set_data("text", "x".repeat(size).into());
            });
        }
    });
    let sent = inner.sent.lock().unwrap();
    assert_eq!(sent.len(), sizes.len());
    for (bytes, size) in sent.iter().zip(sizes) {
        let lines: Vec<&str> = std::str::from_utf8(bytes).unwrap().lines().collect();
        let [_, item, payload] = lines[..] else {
            panic!("{} lines", lines.len());
        };
        let item: Value = serde_json::from_str(item).unwrap();
        assert_eq!(item["length"], payload.len());
        let payload: Value = serde_json::from_str(payload).unwrap();
        let text = &payload["contexts"]["trace"]["data"]["text"];
        assert_eq!(text.as_str().unwrap().len(), size);
    }
}
