//! What `sentry_tonic::init` sets, what it leaves, and how its guard ends. Each in a process of its
//! own: the main hub gets the client.

use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sentry::protocol::{EnvelopeItem, SessionStatus};
use sentry::{ClientOptions, Envelope, Hub, SessionMode, Transport};
use serde_json::Value;
use tracing::{error, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use sentry_tonic::SentryTracingLayer;

use crate::support::alone::{alone, alone_with};
use crate::support::gated::Gated;
use crate::support::world::DSN;

/// What a client asked its transport for.
#[derive(Debug, PartialEq)]
enum Asked {
    Send(&'static str),
    Shutdown(Duration),
}

#[derive(Default)]
struct Recording(Mutex<Vec<Asked>>);

impl Transport for Recording {
    fn send_envelope(&self, envelope: Envelope) {
        let kinds = envelope.items().map(|item| match item {
            EnvelopeItem::Event(_) => "event",
            EnvelopeItem::SessionUpdate(update) if update.status == SessionStatus::Exited => {
                "session, exited"
            }
            EnvelopeItem::SessionUpdate(_) => "session",
            _ => "other",
        });
        self.0.lock().unwrap().extend(kinds.map(Asked::Send));
    }

    fn shutdown(&self, timeout: Duration) -> bool {
        self.0.lock().unwrap().push(Asked::Shutdown(timeout));
        true
    }
}

impl Recording {
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn integrations(options: &ClientOptions) -> Vec<&'static str> {
    let integrations = options.integrations.iter();
    integrations.map(|integration| integration.name()).collect()
}

/// A failure in a sampled span, by the main hub.
fn fail() {
    let _subscriber = tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .set_default();
    info_span!("job").in_scope(|| error!("failed"));
}

#[test]
fn what_is_not_set_has_defaults_for_services() {
    alone("init::what_is_not_set_has_defaults_for_services", || {
        let ingest = Gated::opened();
        let options = || {
            ClientOptions::new()
                .dsn(&ingest.dsn())
                .traces_sample_rate(1.0)
        };
        let applied = sentry::apply_defaults(options());
        let guard = sentry_tonic::init(options());
        assert!(guard.is_enabled());
        let set = guard.options();
        assert_eq!(set.transport_channel_capacity.unwrap().get(), 1_000);
        // Of sentry, which flushes with it on the thread that panics.
        assert_eq!(set.shutdown_timeout, Duration::from_secs(2));
        // Each once.
        assert_eq!(integrations(set), integrations(&applied));
        assert_eq!(set.environment, applied.environment);
        fail();
        drop(guard);
        // What envelopes say of their trace shows a `TraceTransport`.
        let items = ingest.items();
        let kinds: Vec<_> = items.iter().map(|item| item.kind.as_str()).collect();
        assert_eq!(kinds, ["event", "transaction"]);
        for item in items {
            assert_ne!(item.envelope_header["trace"], Value::Null);
        }
    });
}

#[test]
fn what_is_set_is_left() {
    alone("init::what_is_set_is_left", || {
        let recording = Arc::new(Recording::default());
        let guard = sentry_tonic::init(
            ClientOptions::new()
                .dsn(DSN)
                .transport(Arc::clone(&recording))
                .transport_channel_capacity(7)
                .shutdown_timeout(Duration::from_secs(3))
                .default_integrations(false)
                .release("shop@1.0")
                .environment("here"),
        );
        let set = guard.options();
        assert_eq!(set.transport_channel_capacity.unwrap().get(), 7);
        assert_eq!(set.shutdown_timeout, Duration::from_secs(3));
        assert_eq!(integrations(set), [""; 0]);
        let texts = [&set.release, &set.environment].map(|text| text.as_deref().unwrap());
        assert_eq!(texts, ["shop@1.0", "here"]);
        sentry::capture_message("sent", sentry::Level::Info);
        drop(guard);
        let expected = [
            Asked::Send("event"),
            Asked::Shutdown(Duration::from_secs(20)),
        ];
        assert_eq!(recording.asked(), expected);
    });
}

#[test]
fn the_environment_is_read_as_sentry_reads_it() {
    let variables = [
        ("SENTRY_DSN", DSN),
        ("SENTRY_RELEASE", "of the environment"),
        ("SENTRY_ENVIRONMENT", "staging"),
    ];
    let name = "init::the_environment_is_read_as_sentry_reads_it";
    alone_with(name, &variables, || {
        let recording = Arc::new(Recording::default());
        let guard = sentry_tonic::init(ClientOptions::new().transport(recording));
        let set = guard.options();
        assert_eq!(set.dsn, Some(DSN.parse().unwrap()));
        assert_eq!(set.release.as_deref(), Some("of the environment"));
        assert_eq!(set.environment.as_deref(), Some("staging"));
    });
}

#[test]
fn the_time_to_close_can_be_set_and_a_session_ends_ahead() {
    let name = "init::the_time_to_close_can_be_set_and_a_session_ends_ahead";
    alone(name, || {
        for (timeout, expected) in [
            (None, Duration::from_secs(20)),
            (Some(Duration::from_secs(60)), Duration::from_secs(60)),
            (Some(Duration::ZERO), Duration::ZERO),
        ] {
            let recording = Arc::new(Recording::default());
            let options = ClientOptions::new()
                .dsn(DSN)
                .release("shop@1.0")
                .transport(Arc::clone(&recording))
                .auto_session_tracking(true)
                .session_mode(SessionMode::Application);
            let mut guard = sentry_tonic::init(options);
            if let Some(timeout) = timeout {
                guard = guard.close_timeout(timeout);
            }
            let client = Hub::current().client().unwrap();
            drop(guard);
            assert!(!client.is_enabled());
            let expected = [Asked::Send("session, exited"), Asked::Shutdown(expected)];
            assert_eq!(recording.asked(), expected);
        }
    });
}

/// More than the 30 of sentry's own queue wait for an ingest that does not answer.
#[test]
fn dropping_the_guard_sends_what_is_queued() {
    alone("init::dropping_the_guard_sends_what_is_queued", || {
        let ingest = Gated::closed();
        let guard = sentry_tonic::init(ClientOptions::new().dsn(&ingest.dsn()));
        for _ in 0..100 {
            sentry::capture_message("queued", sentry::Level::Info);
        }
        ingest.wait_for(1);
        let close = std::thread::spawn(move || drop(guard));
        ingest.open();
        close.join().unwrap();
        assert_eq!(ingest.items().len(), 100);
    });
}

#[test]
fn a_second_call_binds_a_second_client_as_with_sentry() {
    let name = "init::a_second_call_binds_a_second_client_as_with_sentry";
    alone(name, || {
        let transports = [(); 2].map(|()| Arc::new(Recording::default()));
        let [first, second] = transports.each_ref().map(|transport| {
            let options = ClientOptions::new().dsn(DSN);
            sentry_tonic::init(options.transport(Arc::clone(transport)))
        });
        sentry::capture_message("for the second", sentry::Level::Info);
        drop(first);
        sentry::capture_message("for the second", sentry::Level::Info);
        drop(second);
        sentry::capture_message("for none", sentry::Level::Info);
        let [first, second] = transports.map(|transport| transport.asked());
        let closed = || Asked::Shutdown(Duration::from_secs(20));
        assert_eq!(first, [closed()]);
        assert_eq!(
            second,
            [Asked::Send("event"), Asked::Send("event"), closed()]
        );
    });
}

#[test]
fn without_a_dsn_nothing_is_enabled() {
    alone("init::without_a_dsn_nothing_is_enabled", || {
        let guard = sentry_tonic::init(ClientOptions::new().traces_sample_rate(1.0));
        assert!(!guard.is_enabled());
        fail();
        drop(guard);
    });
}

#[test]
fn a_bad_dsn_is_the_panic_of_sentry() {
    alone("init::a_bad_dsn_is_the_panic_of_sentry", || {
        let message = |init: fn()| {
            let panic = catch_unwind(init).unwrap_err();
            panic.downcast_ref::<String>().unwrap().clone()
        };
        for init in [(|| drop(sentry_tonic::init("no dsn"))) as fn(), || {
            drop(sentry_tonic::init(ClientOptions::new().dsn("no dsn")))
        }] {
            let ours = message(init);
            assert!(
                ours.contains("InvalidUrl") || ours.contains("DSN"),
                "{ours}"
            );
        }
        let ours = message(|| drop(sentry_tonic::init("no dsn")));
        let theirs = message(|| drop(sentry::init("no dsn")));
        assert_eq!(ours, theirs);
    });
}
