//! What the thread of a `TraceTransport` has of Sentry: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{panic, thread};

use sentry::integrations::panic::PanicIntegration;
use sentry::{Client, ClientOptions, Envelope, Hub, Level, Transport};
use sentry_tonic::TraceTransport;

use crate::support::alone::alone;
use crate::support::gated::LONG;

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

fn client(inner: &Arc<Counting>) -> Arc<Client> {
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .shutdown_timeout(Duration::from_millis(5))
        .add_integration(PanicIntegration::new())
        .transport(TraceTransport::new(Arc::clone(inner)));
    Arc::new(Client::from(options))
}

/// Until nobody has it but this.
fn wait_to_own<T>(shared: &Arc<T>) {
    let start = Instant::now();
    while Arc::strong_count(shared) > 1 {
        assert!(start.elapsed() < LONG);
        thread::sleep(Duration::from_millis(5));
    }
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
