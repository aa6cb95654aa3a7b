//! Several attempts, layers and hops: what is one call, and what is more.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use sentry::protocol::SpanStatus;
use tonic::body::Body;
use tower::retry::{Policy, RetryLayer};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tracing::{Instrument, info_span};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::clients::{SAY_HELLO, grpc_request, unavailable};
use crate::support::received::{Sp, trace};
use crate::support::world::World;

#[derive(Clone)]
struct Twice(u32);

impl<E> Policy<Request<Full<Bytes>>, Response<E>, Infallible> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        _: &mut Result<Response<E>, Infallible>,
    ) -> Option<Self::Future> {
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[test]
fn each_attempt_below_a_retry_layer_is_a_call() {
    let world = World::new();
    let arrived = Arc::default();
    world.run(async {
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(Twice(1)))
            .layer(SentryClientLayer::new())
            .service(unavailable(&arrived));
        let job = info_span!(target: "test", "job");
        service
            .oneshot(grpc_request())
            .instrument(job)
            .await
            .unwrap();
    });
    let tx = world.received().only_tx();
    let call = || Sp {
        name: SAY_HELLO.to_owned(),
        op: "grpc.client".to_owned(),
        status: Some(SpanStatus::Unavailable),
        parent: "job".to_owned(),
    };
    assert_eq!(tx.spans, [call(), call()]);
    let arrived = arrived.lock().unwrap();
    let sent: Vec<_> = arrived.iter().map(|h| h["sentry-trace"].clone()).collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1], "each attempt is a span of its own");
    for headers in arrived.iter() {
        assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
        assert_eq!(headers.get_all("baggage").iter().count(), 1);
    }
}

#[test]
fn all_attempts_above_a_retry_layer_are_one_call() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let inner = ServiceBuilder::new()
            .layer(RetryLayer::new(Twice(1)))
            .map_request(|request: Request<Full<Bytes>>| request.map(Body::new))
            .service(unavailable(&arrived));
        let inner = ServiceBuilder::new()
            .map_request(|request: Request<Body>| request.map(|_| Full::<Bytes>::default()))
            .service(inner);
        let service = SentryClientLayer::new().layer(inner);
        service.oneshot(grpc_request()).await.unwrap();
    });
    assert_eq!(world.received().only_tx().status, SpanStatus::Unavailable);
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.len(), 2);
    assert_eq!(arrived[0]["sentry-trace"], arrived[1]["sentry-trace"]);
}

#[test]
fn twice_on_one_call_counts_once() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let service = ServiceBuilder::new()
            .layer(SentryClientLayer::new())
            .layer(SentryClientLayer::new())
            .service(unavailable(&arrived));
        service.oneshot(grpc_request()).await.unwrap();
    });
    assert_eq!(world.received().only_tx().spans, []);
}

#[test]
fn a_proxy_that_passes_a_request_on_is_a_server_and_a_client() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let client = SentryClientLayer::new().layer(unavailable(&arrived));
        // As it came, with headers and extensions.
        let proxy = service_fn(move |request: Request<_>| client.clone().oneshot(request));
        let server = SentryServerLayer::new().layer(proxy);
        // And in the process of who calls it.
        let server = ServiceBuilder::new()
            .map_request(|request: Request<Body>| request)
            .service(server);
        let caller = SentryClientLayer::new().layer(server);
        let response = caller.oneshot(grpc_request()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "14");
    });
    let received = world.received();
    let mut ops: Vec<_> = received
        .txs()
        .into_iter()
        .map(|tx| {
            (
                tx.op,
                tx.spans.into_iter().map(|sp| sp.op).collect::<Vec<_>>(),
            )
        })
        .collect();
    ops.sort();
    assert_eq!(
        ops,
        [
            ("grpc.client".to_owned(), vec![]),
            ("grpc.server".to_owned(), vec!["grpc.client".to_owned()])
        ]
    );
    let ids: Vec<_> = received.transactions.iter().map(trace).collect();
    assert_eq!(ids[0].trace_id, ids[1].trace_id);
}
