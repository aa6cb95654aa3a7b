//! From the `TraceLayer` of tower-http, over sentry-tracing.

use http::Uri;
use tonic::Code;
use tonic::transport::Channel;
use tower::Layer;
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryServerLayer, SentryTracingLayer};

use crate::migrating::calls;
use crate::migrating::from_sentry_tracing::sentry_tracing;
use crate::migrating::stack::{OURS, Ours, Stack, Upstream, serve, upstream};
use crate::migrating::told::{missing, table};
use crate::support::greeter::{Running, Scripted};
use crate::support::received::exceptions;
use crate::trace_layer::trace_layer;

#[derive(Debug, Clone, Copy)]
struct TowerHttp;

/// Its own default is DEBUG, of which Sentry is told nothing.
fn tower_http() -> TraceLayer<SharedClassifier<GrpcErrorsAsFailures>> {
    TraceLayer::new_for_grpc().make_span_with(DefaultMakeSpan::new().level(Level::INFO))
}

impl Stack for TowerHttp {
    async fn serve(&self, greeter: Scripted) -> Running {
        serve!(greeter, tower_http())
    }

    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(tower_http().layer(channel))
    }
}

/// Keeps `TraceLayer`, with hooks of ours.
#[derive(Debug, Clone, Copy)]
struct Hooks;

impl Stack for Hooks {
    async fn serve(&self, greeter: Scripted) -> Running {
        serve!(greeter, trace_layer!(SentryServerLayer::new()))
    }

    fn upstream(&self, channel: Channel, uri: Uri) -> Upstream {
        Ours::default().upstream(channel, uri)
    }
}

/// Each failure is an error event of `TraceLayer`, whatever its code, without what failed.
const REPLACED: [&str; 7] = [
    "not found => NotFound: response failed",
    "internal => Internal: response failed",
    "error event, internal => Internal: response failed",
    "upstream fails => NotFound: response failed",
    "upstream fails => NotFound: response failed",
    "upstream fails => NotFound: response failed",
    "stream fails => Internal: response failed",
];

#[test]
fn calls_behind_each() {
    let before = table(&TowerHttp, || {
        calls::world(registry().with(sentry_tracing()))
    });
    assert_eq!(before, include_str!("from_tower_http.txt"));
    let ours = Ours::default();
    let after = table(&ours, || {
        calls::world(registry().with(SentryTracingLayer::new()))
    });
    assert_eq!(after, OURS);
    assert_eq!(missing(&before, &after), REPLACED);
    let kept = table(&Hooks, || {
        calls::world(registry().with(SentryTracingLayer::new()))
    });
    assert_eq!(kept, include_str!("from_tower_http_kept.txt"));
    assert_eq!(missing(&before, &kept), REPLACED);
}

/// As `TraceLayer` tells of them, one for each failure.
#[test]
fn failures_of_any_code_can_be_events() {
    let codes = (1..=16).map(Code::from_i32);
    let all = Ours {
        server: SentryServerLayer::new().capture_codes(codes),
        ..Ours::default()
    };
    for (name, text) in [
        ("not found", "nobody of this name"),
        ("internal", "the store is down"),
        ("stream fails", "the store is down"),
    ] {
        let world = calls::world(registry().with(SentryTracingLayer::new()));
        calls::make(&world, &all, name);
        let received = world.received();
        let exceptions = exceptions(received.only_event());
        let [(_, Some(value))] = exceptions.as_slice() else {
            panic!("{exceptions:?}")
        };
        assert_eq!(value, text);
    }
}
