//! What the thread of a `TraceTransport` has of Sentry: nothing.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::Event;
use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientOptions, Envelope, Hub, Level, Transport};
use sentry_tonic::TraceTransport;

use crate::support::alone::alone;
use crate::support::gated::{Gated, LONG};
use crate::support::wait::wait_until;

/// Counts what it is given, and may panic over it.
#[derive(Default)]
struct Counting {
    sent: AtomicUsize,
    is_broken: bool,
}

impl Transport for Counting {
    fn send_envelope(&self, _: Envelope) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        assert!(!self.is_broken);
    }
}

fn options(inner: Arc<impl Transport>) -> ClientOptions {
    ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .shutdown_timeout(Duration::from_millis(5))
        .transport(TraceTransport::new(inner))
}

fn client(inner: &Arc<Counting>) -> Arc<Client> {
    let options = options(Arc::clone(inner)).add_integration(PanicIntegration::new());
    Arc::new(Client::from(options))
}

fn send(client: &Client) {
    client.capture_event(Event::default(), None);
}

/// Other processes may hold up some of them.
fn median_of_rounds(round: impl FnMut() -> Duration) -> Duration {
    let mut took: Vec<_> = std::iter::repeat_with(round).take(101).collect();
    took.sort_unstable();
    took[50]
}

/// Tells when it was given something.
struct Telling(Mutex<Sender<Instant>>);

impl Transport for Telling {
    fn send_envelope(&self, _: Envelope) {
        let now = Instant::now();
        self.0.lock().unwrap().send(now).unwrap();
    }
}

/// Until nobody has it but this.
fn wait_to_own<T>(shared: &Arc<T>) {
    wait_until(&1, || Arc::strong_count(shared));
}

#[test]
fn a_panic_of_the_transport_is_not_for_that_transport() {
    alone(
        "transport_threads::a_panic_of_the_transport_is_not_for_that_transport",
        || {
            panic::set_hook(Box::new(|_| ()));
            let inner = Arc::new(Counting {
                is_broken: true,
                ..Counting::default()
            });
            let client = client(&inner);
            Hub::main().bind_client(Some(Arc::clone(&client)));
            sentry::capture_message("one", Level::Info);
            // Behind it is what the panic would have sent.
            for _ in 0..2 {
                assert!(client.flush(Some(LONG)));
            }
            assert_eq!(inner.sent.load(Ordering::Relaxed), 1);
        },
    );
}

#[test]
fn a_client_that_nobody_has_any_more_goes_without_being_closed() {
    alone(
        "transport_threads::a_client_that_nobody_has_any_more_goes_without_being_closed",
        || {
            let inner = Arc::new(Counting::default());
            let client = client(&inner);
            Hub::main().bind_client(Some(Arc::clone(&client)));
            sentry::capture_message("one", Level::Info);
            assert!(client.flush(Some(LONG)));
            Hub::main().bind_client(None);
            let gone = Arc::downgrade(&client);
            drop(client);
            assert!(gone.upgrade().is_none());
            wait_to_own(&inner);
        },
    );
}

#[test]
fn a_flush_does_not_wait_for_what_may_come() {
    let client = Client::from(options(Arc::default() as Arc<Counting>));
    let took = median_of_rounds(|| {
        send(&client);
        let start = Instant::now();
        assert!(client.flush(Some(LONG)));
        start.elapsed()
    });
    assert!(took < Duration::from_millis(5), "{took:?}");
}

#[test]
fn where_there_is_little_room_the_thread_comes_at_once() {
    let (sender, sent) = mpsc::channel();
    let inner = Arc::new(Telling(Mutex::new(sender)));
    let client = Client::from(options(inner).transport_channel_capacity(7));
    let took = median_of_rounds(|| {
        let start = Instant::now();
        send(&client);
        sent.recv_timeout(LONG).unwrap().duration_since(start)
    });
    assert!(took < Duration::from_millis(5), "{took:?}");
}

/// Tells what was called; the first call waits to be let go.
struct Logging {
    calls: Mutex<Vec<&'static str>>,
    gate: Mutex<Receiver<()>>,
}

impl Transport for Logging {
    fn send_envelope(&self, _: Envelope) {
        let _ = self.gate.lock().unwrap().recv();
        self.calls.lock().unwrap().push("send");
    }

    fn flush(&self, _: Duration) -> bool {
        self.calls.lock().unwrap().push("flush");
        true
    }
}

#[test]
fn a_transport_of_unknown_capacity_gets_one_at_a_time() {
    let (opener, gate) = mpsc::channel();
    let inner = Arc::new(Logging {
        calls: Mutex::default(),
        gate: Mutex::new(gate),
    });
    let client = Client::from(options(Arc::clone(&inner)));
    for _ in 0..10 {
        send(&client);
    }
    drop(opener);
    assert!(client.flush(Some(LONG)));
    let calls = inner.calls.lock().unwrap();
    let (pairs, last) = calls.as_chunks();
    assert_eq!(
        (pairs, last),
        (&[["send", "flush"]; 10][..], &["flush"][..])
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_transport_of_sentry_gets_some_at_once() {
    alone(
        "transport_threads::a_transport_of_sentry_gets_some_at_once",
        || {
            let ingest = Gated::closed();
            let client = Client::from(
                ClientOptions::new()
                    .dsn(&ingest.dsn())
                    .transport(TraceTransport::new(DefaultTransportFactory)),
            );
            send(&client);
            ingest.wait_for(1);
            for _ in 0..24 {
                send(&client);
            }
            let before = waits();
            ingest.open();
            assert!(client.flush(Some(LONG)));
            let waits = waits() - before;
            assert!(waits < 12, "{waits}");
            assert_eq!(ingest.arrived(), 25);
        },
    );
}

/// How often the thread of the transport has waited.
#[cfg(target_os = "linux")]
fn waits() -> u32 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_task = tasks.filter_map(|task| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let of = |name| Some(status.lines().find_map(|l| l.strip_prefix(name))?.trim());
        let waits = of("voluntary_ctxt_switches:")?.parse().unwrap();
        (of("Name:")? == "sentry-queue").then_some(waits)
    });
    let of_task: Vec<u32> = of_task.collect();
    assert_eq!(of_task.len(), 1);
    of_task[0]
}

#[cfg(target_os = "linux")]
#[test]
fn the_thread_is_not_woken_for_each_envelope() {
    const ENVELOPES: u32 = 1_000;
    alone(
        "transport_threads::the_thread_is_not_woken_for_each_envelope",
        || {
            let inner = Arc::new(Counting::default());
            let options = options(Arc::clone(&inner)).transport_channel_capacity(10_000);
            let client = Client::from(options);
            assert!(client.flush(Some(LONG)));
            let before = waits();
            let start = Instant::now();
            for number in 1..=ENVELOPES {
                send(&client);
                // Time for the thread to come, and to be done.
                while start.elapsed() < number * Duration::from_micros(100) {
                    std::hint::spin_loop();
                }
            }
            assert!(client.flush(Some(LONG)));
            let waits = waits() - before;
            // A hundred times a second, and for each 32; and where the two threads meet, for
            // the locks of the allocator.
            let seldom = ENVELOPES / 32 + start.elapsed().as_millis() as u32 / 10;
            assert!(waits < 2 * seldom + ENVELOPES / 10, "{waits}");
            assert_eq!(inner.sent.load(Ordering::Relaxed), ENVELOPES as usize);
        },
    );
}
