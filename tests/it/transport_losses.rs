//! What a `TraceTransport` loses, and that Sentry is told; how long it has its callers
//! and its client wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientOptions, Envelope, Hub, Level, Transport};
use sentry_tonic::{SentryTracingLayer, TraceTransport};
use serde_json::Value;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::alone::alone;
use crate::support::gated::{self, Gated, LONG};
#[cfg(target_os = "linux")]
use crate::support::wait::wait_until;

const NAME: &str = "sentry-queue";

fn client(ingest: &Gated, queue: Option<usize>) -> Arc<Client> {
    let options = ClientOptions::new()
        .dsn(&ingest.dsn())
        .traces_sample_rate(1.0)
        .transport(TraceTransport::new(DefaultTransportFactory));
    Arc::new(Client::from(match queue {
        Some(queue) => options.transport_channel_capacity(queue),
        None => options,
    }))
}

fn hub(client: &Arc<Client>) -> Arc<Hub> {
    Arc::new(Hub::new(Some(Arc::clone(client)), Arc::default()))
}

/// Transactions with numbers, each with two spans, the root's among them.
fn jobs(client: &Arc<Client>, numbers: impl IntoIterator<Item = u64>) {
    let layer = SentryTracingLayer::new().hub(hub(client));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        for number in numbers {
            let job = info_span!(target: "test", "job", number);
            job.in_scope(|| info_span!(target: "test", "part").in_scope(|| ()));
        }
    });
}

/// The numbers of the transactions that have arrived.
fn transactions(ingest: &Gated) -> Vec<u64> {
    let items = ingest.items();
    let transactions = items.iter().filter(|item| item.kind == "transaction");
    let number = |payload: &Value| payload["contexts"]["trace"]["data"]["number"].as_u64();
    transactions
        .map(|item| {
            assert!(item.envelope_header["trace"].is_object(), "{item:?}");
            number(&item.payload).unwrap()
        })
        .collect()
}

/// What client reports say was lost.
fn reported(ingest: &Gated) -> BTreeMap<String, u64> {
    gated::reported(&ingest.items())
}

fn losses<const N: usize>(losses: [(&str, u64); N]) -> BTreeMap<String, u64> {
    losses
        .map(|(loss, number)| (loss.to_owned(), number))
        .into()
}

/// Reports go with the next envelope.
fn flush_with_reports(client: &Arc<Client>) {
    hub(client).capture_message("last", Level::Info);
    assert!(client.flush(Some(LONG)));
}

#[test]
fn what_has_no_room_is_lost_and_all_of_it_reported() {
    for (queue, room) in [(Some(1), 1), (Some(5), 5), (None, 30)] {
        let ingest = Gated::closed();
        let client = client(&ingest, queue);
        jobs(&client, [0]);
        // That one needs no room any more, and this thread is here again.
        ingest.wait_for(1);
        jobs(&client, 1..=room + 7);
        assert_eq!(ingest.arrived(), 1);
        ingest.open();
        assert!(client.flush(Some(LONG)));
        let sent: Vec<_> = (0..=room).collect();
        assert_eq!(transactions(&ingest), sent, "{queue:?}");
        flush_with_reports(&client);
        let lost = losses([
            ("transaction queue_overflow", 7),
            ("span queue_overflow", 14),
        ]);
        assert_eq!(reported(&ingest), lost, "{queue:?}");
    }
}

#[test]
fn a_flush_tells_what_had_no_room() {
    let ingest = Gated::closed();
    let client = client(&ingest, Some(1));
    jobs(&client, [0]);
    ingest.wait_for(1);
    jobs(&client, 1..=5);
    ingest.open();
    assert!(client.flush(Some(LONG)));
    let lost = losses([
        ("transaction queue_overflow", 4),
        ("span queue_overflow", 8),
    ]);
    assert_eq!(reported(&ingest), lost);
    // And not twice.
    flush_with_reports(&client);
    assert_eq!(reported(&ingest), lost);
}

#[test]
fn there_is_room_again_when_something_has_left() {
    let ingest = Gated::closed();
    let client = client(&ingest, Some(2));
    for round in 0..20 {
        let first = transactions(&ingest).len() as u64;
        jobs(&client, [first]);
        ingest.wait_for(first as usize + 1);
        jobs(&client, [first + 1, first + 2]);
        if round == 0 {
            ingest.open();
        }
        assert!(client.flush(Some(LONG)));
    }
    assert_eq!(transactions(&ingest), (0..60).collect::<Vec<_>>());
    flush_with_reports(&client);
    assert_eq!(reported(&ingest), losses([]));
}

#[test]
fn what_many_threads_send_is_received_or_reported() {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let ingest = Gated::opened();
    let client = client(&ingest, Some(10));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let client = &client;
            scope.spawn(move || jobs(client, number * EACH..(number + 1) * EACH));
        }
    });
    assert!(client.flush(Some(LONG)));
    flush_with_reports(&client);
    let sent = transactions(&ingest);
    let lost = reported(&ingest);
    let lost = |kind| lost.get(kind).copied().unwrap_or_default();
    let transactions = lost("transaction queue_overflow");
    assert_eq!(sent.len() as u64 + transactions, THREADS * EACH);
    assert_eq!(lost("span queue_overflow"), transactions * 2);
    // Of each thread, in the order in which that sent them.
    for number in 0..THREADS {
        let of_thread = sent.iter().filter(|sent| **sent / EACH == number);
        assert!(of_thread.is_sorted());
    }
}

#[test]
fn flush_and_close_wait_until_all_has_left_but_no_longer_than_they_may() {
    const SHORT: Duration = Duration::from_millis(20);
    let ingest = Gated::closed();
    let client = client(&ingest, Some(3));
    jobs(&client, [0]);
    ingest.wait_for(1);
    jobs(&client, 1..=3);
    let start = Instant::now();
    // Also where there is no room.
    for _ in 0..20 {
        assert!(!client.flush(Some(SHORT)));
    }
    let took = start.elapsed();
    assert!(took < LONG / 6, "{took:?}");
    thread::scope(|scope| {
        scope.spawn(|| assert!(client.flush(Some(LONG))));
        ingest.open();
    });
    assert_eq!(transactions(&ingest), [0, 1, 2, 3]);
    jobs(&client, 4..=6);
    assert!(client.close(Some(LONG)));
    assert_eq!(transactions(&ingest), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn flushes_without_time_leave_room_for_what_is_sent_then() {
    const JOBS: u64 = 300;
    let ingest = Gated::opened();
    let client = client(&ingest, Some(1));
    for number in 0..JOBS {
        client.flush(Some(Duration::ZERO));
        jobs(&client, [number]);
    }
    assert!(client.flush(Some(LONG)));
    let lost = reported(&ingest).get("transaction queue_overflow").copied();
    let sent = transactions(&ingest).len() as u64;
    assert_eq!(sent + lost.unwrap_or_default(), JOBS);
}

#[test]
fn close_does_not_wait_for_an_ingest_that_does_not_answer() {
    let ingest = Gated::closed();
    let client = client(&ingest, Some(3));
    jobs(&client, [0]);
    ingest.wait_for(1);
    jobs(&client, 1..=5);
    let start = Instant::now();
    assert!(!client.close(Some(Duration::from_millis(20))));
    drop(client);
    let took = start.elapsed();
    assert!(took < LONG / 6, "{took:?}");
    assert_eq!(ingest.arrived(), 1);
}

/// The threads of this process that send.
#[cfg(target_os = "linux")]
fn senders() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        let comm = task.ok()?.path().join("comm");
        std::fs::read_to_string(comm).ok()
    });
    names
        .filter(|name| [NAME, "sentry-transpor"].contains(&name.trim_end()))
        .count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_goes_takes_its_threads_along() {
    alone(
        "transport_losses::a_client_that_goes_takes_its_threads_along",
        || {
            let ingest = Gated::opened();
            for number in 0..100 {
                let client = client(&ingest, None);
                jobs(&client, [number]);
                if number % 2 == 0 {
                    assert!(client.close(Some(LONG)));
                }
            }
            wait_until(&0, senders);
            let late = Gated::closed();
            let client = client(&late, None);
            jobs(&client, [0]);
            late.wait_for(1);
            jobs(&client, [1, 2]);
            assert_eq!(senders(), 2);
            assert!(!client.close(Some(Duration::ZERO)));
            drop(client);
            late.open();
            wait_until(&0, senders);
            // As with sentry's own, what is still waiting then is not sent.
            assert_eq!(late.arrived(), 1);
        },
    );
}

#[test]
fn limits_to_all_kinds_are_obeyed_and_reports_outlive_them() {
    let ingest = Gated::closed();
    let client = client(&ingest, Some(1));
    jobs(&client, [0]);
    ingest.wait_for(1);
    // The last one is lost.
    jobs(&client, [1, 2]);
    ingest.limit("1::organization");
    ingest.open();
    // The one that waited comes too late, and the report that comes now as well.
    flush_with_reports(&client);
    assert_eq!(
        (transactions(&ingest), reported(&ingest)),
        (vec![0], losses([]))
    );
    ingest.limit("");
    let start = Instant::now();
    while reported(&ingest).is_empty() {
        assert!(start.elapsed() < LONG);
        flush_with_reports(&client);
    }
    let reported = reported(&ingest);
    assert_eq!(reported["transaction queue_overflow"], 1);
    assert_eq!(reported["span queue_overflow"], 2);
    // Errors that have no trace to tell of are not written out.
    assert!(reported["error ratelimit_backoff"] > 0);
    let kinds = ["transaction", "span"].map(|kind| format!("{kind} ratelimit_backoff"));
    assert!(kinds.iter().all(|kind| !reported.contains_key(kind)));
}

#[test]
fn limits_to_one_kind_are_obeyed_where_it_is_not_written_out() {
    let ingest = Gated::opened();
    let client = client(&ingest, None);
    ingest.limit("60:error;transaction:organization");
    jobs(&client, [0]);
    flush_with_reports(&client);
    jobs(&client, [1]);
    assert!(client.flush(Some(LONG)));
    // Sentry says itself what it takes of those.
    assert_eq!(transactions(&ingest), [0, 1]);
    assert_eq!(reported(&ingest), losses([("error ratelimit_backoff", 1)]));
    assert!(ingest.items().iter().all(|item| item.kind != "event"));
}

#[test]
fn reports_go_with_what_is_not_written_out() {
    let ingest = Gated::opened();
    let client = client(&ingest, None);
    let unsampled = || {
        let mut context = sentry::TransactionContext::new("a", "b");
        context.set_sampled(false);
        hub(&client).start_transaction(context).finish();
    };
    for number in 0..3 {
        unsampled();
        jobs(&client, [number]);
    }
    // This takes the last report, and the others as well.
    unsampled();
    hub(&client).capture_message("last", Level::Info);
    assert!(client.flush(Some(LONG)));
    let items = ingest.items();
    let kinds: Vec<_> = items
        .iter()
        .map(|item| (item.envelope, item.kind.as_str()))
        .collect();
    assert_eq!(kinds[..3], [0, 1, 2].map(|number| (number, "transaction")));
    assert_eq!(kinds[3], (3, "event"));
    assert!(kinds[4..].iter().all(|kind| *kind == (3, "client_report")));
    let lost = losses([("transaction sample_rate", 4), ("span sample_rate", 4)]);
    assert_eq!(reported(&ingest), lost);
}

/// On what threads it was called. It panics each time.
#[derive(Default)]
struct Panicking(Mutex<Vec<String>>);

impl Panicking {
    fn panic(&self) -> ! {
        let name = thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push(name);
        std::panic::panic_any("of a transport")
    }
}

impl Transport for Panicking {
    fn send_envelope(&self, _: Envelope) {
        self.panic();
    }

    fn flush(&self, _: Duration) -> bool {
        self.panic();
    }
}

#[test]
fn a_transport_is_called_on_one_thread_and_may_panic_there() {
    let inner = Arc::new(Panicking::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(TraceTransport::new(Arc::clone(&inner)));
    let client = Arc::new(Client::from(options));
    jobs(&client, [0, 1]);
    assert!(!client.flush(Some(LONG)));
    jobs(&client, [2]);
    assert!(!client.close(Some(LONG)));
    assert_eq!(*inner.0.lock().unwrap(), [NAME; 5]);
}
