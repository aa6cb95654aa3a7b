//! What this crate takes for granted of sentry-core and sentry-types. Where one
//! of these fails after an update, the code that rests on it is to be looked at.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use sentry::protocol::{
    DynamicSamplingContext, EnvelopeFilterCallbacks, EnvelopeHeaders, EnvelopeItem, Event,
};
use sentry::test::TestTransport;
use sentry::{
    Client, ClientOptions, Envelope, Hub, Level, TransactionContext, Transport, capture_event,
    start_transaction,
};
use serde_json::{Value, json};

use crate::support::received::Received;
use crate::support::wire;
use crate::support::world::DSN;

fn hub(options: ClientOptions) -> (Arc<TestTransport>, Arc<Hub>) {
    let transport = TestTransport::new();
    let options = options.dsn(DSN).transport(Arc::clone(&transport));
    let client = Arc::new(Client::from(options));
    (transport, Arc::new(Hub::new(Some(client), Arc::default())))
}

fn items(transport: &TestTransport) -> Vec<EnvelopeItem> {
    let envelopes = transport.fetch_and_clear_envelopes().into_iter();
    envelopes.flat_map(Envelope::into_items).collect()
}

#[test]
fn a_transaction_stays_with_the_client_that_it_was_started_on() {
    let (a, hub_a) = hub(ClientOptions::new().traces_sample_rate(1.0));
    let (b, hub_b) = hub(ClientOptions::new().traces_sample_rate(1.0));
    let transaction = hub_a.start_transaction(TransactionContext::new("a", "b"));
    Hub::run(hub_b, || {
        sentry::configure_scope(|scope| {
            scope.set_span(Some(transaction.clone().into()));
            scope.set_tag("tag", "of the current hub");
        });
        transaction.start_child("child", "").finish();
        transaction.finish();
    });
    assert_eq!(items(&b), []);
    let items = items(&a);
    let [EnvelopeItem::Transaction(sent)] = items.as_slice() else {
        panic!("{items:?}")
    };
    // And takes the scope of the hub that is current when it finishes.
    assert_eq!(sent.tags["tag"], "of the current hub");
    assert_eq!(sent.spans.len(), 1);
}

#[test]
fn a_fixed_rate_of_one_honours_a_decision() {
    for sampled in [true, false] {
        let (transport, hub) = hub(ClientOptions::new().traces_sample_rate(1.0));
        let mut context = TransactionContext::new("a", "b");
        context.set_sampled(sampled);
        let transaction = hub.start_transaction(context);
        let (_, header) = transaction.iter_headers().next().unwrap();
        assert!(header.ends_with(if sampled { "-1" } else { "-0" }));
        transaction.finish();
        assert_eq!(items(&transport).len(), usize::from(sampled));
        // What was not sent is reported with the next envelope, also an empty one.
        hub.client().unwrap().send_envelope(Envelope::new());
        let reported = items(&transport);
        assert_eq!(
            matches!(reported.as_slice(), [EnvelopeItem::ClientReport(_)]),
            !sampled,
            "{reported:?}"
        );
    }
}

#[test]
fn a_context_with_details_is_continued_for_any_organization() {
    let (transport, hub) = hub(ClientOptions::new()
        .dsn("https://key@o1.ingest.sentry.io/1")
        .strict_trace_continuation(true)
        .traces_sample_rate(1.0));
    let (trace_id, parent) = (Default::default(), Default::default());
    let context = TransactionContext::new_with_details("a", "b", trace_id, None, Some(parent));
    hub.start_transaction(context).finish();
    let items = items(&transport);
    let [EnvelopeItem::Transaction(sent)] = items.as_slice() else {
        panic!("{items:?}")
    };
    let trace = crate::support::received::trace(sent);
    assert_eq!(
        (trace.trace_id, trace.parent_span_id),
        (trace_id, Some(parent))
    );
}

/// Where and with what envelopes are sent.
#[derive(Default)]
struct Witness(Mutex<Vec<(ThreadId, Value)>>);

impl Transport for Witness {
    fn send_envelope(&self, envelope: Envelope) {
        let header = serde_json::to_value(envelope.headers()).unwrap();
        self.0
            .lock()
            .unwrap()
            .push((thread::current().id(), header));
    }
}

#[test]
fn finishing_and_capturing_send_on_the_same_thread() {
    let witness = Arc::new(Witness::default());
    let options = ClientOptions::new()
        .dsn(DSN)
        .traces_sample_rate(1.0)
        .transport(Arc::clone(&witness));
    let client = Arc::new(Client::from(options));
    let seen = Arc::new(Mutex::new(Vec::new()));
    Hub::run(Arc::new(Hub::new(Some(client), Arc::default())), || {
        start_transaction(TransactionContext::new("a", "b")).finish();
        let processed = Arc::clone(&seen);
        sentry::configure_scope(|scope| {
            scope.add_event_processor(move |event| {
                processed.lock().unwrap().push(event.event_id);
                Some(event)
            });
        });
        // Its id is there when processors run.
        let event = Event {
            event_id: sentry::types::Uuid::nil(),
            level: Level::Info,
            ..Event::default()
        };
        let id = capture_event(event);
        assert_eq!(*seen.lock().unwrap(), [id]);
    });
    let sent = witness.0.lock().unwrap();
    let here = thread::current().id();
    let [(first, transaction), (second, event)] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!((first, second), (&here, &here));
    assert_eq!(transaction["trace"]["sampled"], "true");
    // sentry-core says nothing of the trace of an error.
    assert_eq!(event["trace"], Value::Null);
}

/// This is why there is a `TraceTransport`. Should it ever fail, there need not
/// be one.
#[test]
fn a_filter_drops_the_headers_of_an_envelope() {
    let context = DynamicSamplingContext::new().with_public_key("key".to_owned());
    let mut envelope = Envelope::new().with_headers(EnvelopeHeaders::new().with_trace(context));
    envelope.add_item(sentry::protocol::Transaction::default());
    let id = *envelope.uuid().unwrap();
    let header = |envelope: &Envelope| serde_json::to_value(envelope.headers()).unwrap();
    assert_eq!(header(&envelope)["trace"], json!({ "public_key": "key" }));
    let filter = EnvelopeFilterCallbacks::new(|_: &EnvelopeItem| true, |_| {});
    let filtered = envelope.filter(filter).unwrap();
    assert_eq!(header(&filtered), json!({ "event_id": id }));
}

/// So a server is to be shut down before the client is closed.
#[test]
fn what_is_sent_after_close_is_lost_and_not_even_counted() {
    for close in [false, true] {
        let (transport, hub) = hub(ClientOptions::new().traces_sample_rate(1.0));
        let client = hub.client().unwrap();
        // It has the same reports, and a way of its own to the transport.
        let other = Client::clone(&client);
        if close {
            assert!(client.close(None));
        }
        hub.start_transaction(TransactionContext::new("a", "b"))
            .finish();
        hub.capture_message("late", Level::Info);
        let sent = usize::from(!close) * 2;
        assert_eq!(items(&transport).len(), sent, "{close}");
        let mut left_out = TransactionContext::new("a", "b");
        left_out.set_sampled(false);
        hub.start_transaction(left_out).finish();
        other.send_envelope(Envelope::new());
        // Of all three, what was sampled out.
        let reported = items(&transport);
        let [EnvelopeItem::ClientReport(report)] = reported.as_slice() else {
            panic!("{close}: {reported:?}")
        };
        let report = serde_json::to_value(report).unwrap();
        let discarded = report["discarded_events"].as_array().unwrap();
        let reasons: Vec<_> = discarded.iter().map(|lost| &lost["reason"]).collect();
        assert!(
            reasons.iter().all(|reason| *reason == "sample_rate"),
            "{report}"
        );
    }
}

#[test]
fn an_envelope_is_received_alike_whether_it_is_made_of_types_or_of_bytes() {
    let (transport, hub) = hub(ClientOptions::new().traces_sample_rate(1.0));
    let transaction = hub.start_transaction(TransactionContext::new("a", "b"));
    transaction.start_child("child", "").finish();
    transaction.finish();
    hub.capture_message("c", Level::Info);
    let typed = transport.fetch_and_clear_envelopes();
    let raw = typed.iter().map(wire::bytes);
    let raw = raw.map(|bytes| Envelope::from_bytes_raw(bytes).unwrap());
    let raw = Received::new(&raw.collect::<Vec<_>>());
    assert_eq!((raw.transactions.len(), raw.events.len()), (1, 1));
    assert_eq!(raw, Received::new(&typed));
}
