//! From sentry-tower, with sentry-tracing for what is in a call.

use std::sync::Arc;

use http::{Request, Uri};
use sentry::Hub;
use sentry::protocol::SpanStatus;
use sentry_tower::{NewSentryLayer, SentryHttpLayer, SentryLayer};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceBuilder;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryServerLayer, SentryTracingLayer};

use crate::migrating::calls;
use crate::migrating::from_sentry_tracing::sentry_tracing;
use crate::migrating::stack::{OURS, Ours, Stack, Upstream, serve, upstream};
use crate::migrating::told::{missing, names, table};
use crate::support::greeter::{Running, Scripted};
use crate::support::observed::keys;
use crate::support::received::rpc_context;
use crate::support::world::World;

#[derive(Debug, Clone, Copy)]
struct SentryTower;

impl Stack for SentryTower {
    async fn serve(&self, greeter: Scripted) -> Running {
        let layer = ServiceBuilder::new()
            .layer(NewSentryLayer::<Request<Body>>::new_from_top())
            .layer(SentryHttpLayer::new().enable_transaction());
        serve!(greeter, layer)
    }

    /// It has nothing for clients.
    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(channel)
    }
}

#[test]
fn calls_behind_either() {
    let before = table(&SentryTower, || {
        calls::world(registry().with(sentry_tracing()))
    });
    assert_eq!(before, include_str!("from_sentry_tower.txt"));
    let ours = Ours::default();
    let after = table(&ours, || {
        calls::world(registry().with(SentryTracingLayer::new()))
    });
    assert_eq!(after, OURS);
    assert_eq!(missing(&before, &after), [""; 0]);
}

#[test]
fn names_and_headers_can_be_kept() {
    let server = SentryServerLayer::new()
        .op("http.server")
        .span_name(|parts| format!("POST {}", parts.uri.path()))
        .request_metadata(keys(["content-type", "te", "user-agent"]));
    let kept = Ours {
        server,
        ..Ours::default()
    };
    let world = calls::world(registry().with(SentryTracingLayer::new()));
    calls::make(&world, &kept, "error event");
    let received = world.received();
    let tx = received.only_tx();
    let expected = ("http.server", "POST /helloworld.Greeter/SayHello");
    assert_eq!((tx.op.as_str(), tx.name.as_str()), expected);
    assert_eq!(tx.status, SpanStatus::Ok);
    let context = rpc_context(received.only_event());
    let headers = context["request_metadata"].as_object().unwrap();
    let headers: Vec<_> = headers.keys().collect();
    assert_eq!(headers, ["content-type", "te", "user-agent"]);
}

/// Where the old middleware was forgotten, each call is two transactions.
#[test]
fn what_is_left_of_it_shows() {
    let world = calls::world(registry().with(SentryTracingLayer::new()));
    calls::make(&world, &Both, "ok");
    let path = "/helloworld.Greeter/SayHello";
    assert_eq!(names(&world), [path, "POST /helloworld.Greeter/SayHello"]);
}

#[derive(Debug, Clone, Copy)]
struct Both;

impl Stack for Both {
    async fn serve(&self, greeter: Scripted) -> Running {
        let layer = ServiceBuilder::new()
            .layer(NewSentryLayer::<Request<Body>>::new_from_top())
            .layer(SentryHttpLayer::new().enable_transaction())
            .layer(SentryServerLayer::new());
        serve!(greeter, layer)
    }

    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(channel)
    }
}

/// A hub that is chosen by the request.
#[derive(Debug, Clone)]
struct Chosen(Arc<Hub>);

impl Stack for Chosen {
    async fn serve(&self, greeter: Scripted) -> Running {
        let Self(hub) = self.clone();
        let layer = ServiceBuilder::new()
            .layer(SentryLayer::new(move |_: &Request<Body>| Arc::clone(&hub)))
            .layer(SentryServerLayer::new());
        serve!(greeter, layer)
    }

    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(channel)
    }
}

#[test]
fn a_hub_for_each_request_can_be_kept() {
    let world = calls::world(registry().with(SentryTracingLayer::new()));
    let tenant = World::new();
    calls::make(&world, &Chosen(Arc::clone(&tenant.hub)), "error event");
    assert_eq!(tenant.received().only_tx().status, SpanStatus::Ok);
    let received = world.received();
    assert!(received.transactions.is_empty() && received.events.is_empty());
}
