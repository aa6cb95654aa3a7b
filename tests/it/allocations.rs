//! How often calls allocate beyond what they do without this crate.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use prost::Message;
use sentry::Hub;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tracing::Dispatch;
use tracing::dispatcher::with_default;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{GrpcServerLayer, SentryGrpcLayer};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::world::World;

/// Calls before it is counted: some is kept for the ones that follow.
const WARM_UP: usize = 20;

const COUNTED: usize = 8;

#[tracing::instrument]
async fn look_up() {
    tokio::task::yield_now().await;
}

/// Its stream has as many replies as a name says.
fn greeter() -> GreeterServer<Scripted> {
    let scripted = Scripted::new()
        .say_hello(|name| async move {
            look_up().await;
            Ok(reply(&name))
        })
        .say_hello_stream(|name| async move {
            let count = name.parse().unwrap();
            let replies = tokio_stream::iter((0..count).map(|_| Ok(reply("x"))));
            Ok(Box::pin(replies) as Replies)
        });
    GreeterServer::new(scripted)
}

fn call(method: &str, name: &str) -> Request<Full<Bytes>> {
    let message = request(name).encode_to_vec();
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.put_slice(&message);
    Request::builder()
        .method("POST")
        .uri(format!("http://localhost/helloworld.Greeter/{method}"))
        .header("content-type", "application/grpc")
        .body(Full::new(body.freeze()))
        .unwrap()
}

/// How often a call allocates.
fn allocations<S, B>(service: &S, method: &str, name: &str) -> u64
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body,
{
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let call_once = |request| {
        runtime.block_on(async {
            let response = service.clone().oneshot(request).await.unwrap();
            let mut body = std::pin::pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                assert!(frame.is_ok());
            }
        });
    };
    (0..WARM_UP).for_each(|_| call_once(call(method, name)));
    let counts = (0..COUNTED).map(|_| {
        let request = call(method, name);
        allocation_counter::measure(|| call_once(request)).count_total
    });
    // Now and then a map grows.
    counts.min().unwrap()
}

/// By how many `ours` are more.
fn added(dispatch: &Dispatch, method: &str, name: &str) -> u64 {
    let bare = with_default(&Dispatch::none(), || allocations(&greeter(), method, name));
    let ours = GrpcServerLayer::new().layer(greeter());
    let ours = with_default(dispatch, || allocations(&ours, method, name));
    ours - bare
}

fn without_client() -> Dispatch {
    let hub = Arc::new(Hub::new(None, Arc::default()));
    let layer = SentryGrpcLayer::new().hub(hub);
    Dispatch::new(registry().with(layer).with(LevelFilter::INFO))
}

#[test]
fn calls_that_nobody_sees_allocate_little() {
    for (dispatch, most) in [
        (without_client(), 3),
        (World::sampled(0.0).dispatch.clone(), 24),
    ] {
        let added = added(&dispatch, "SayHello", "Ferris");
        assert!(added <= most, "{added} instead of {most}");
    }
}

#[test]
fn a_span_without_fields_allocates_nothing_where_nobody_sees_it() {
    let world = World::sampled(0.0);
    world.sync(|| {
        let _root = tracing::info_span!("root").entered();
        let child = || tracing::info_span!("child").in_scope(|| {});
        (0..WARM_UP).for_each(|_| child());
        assert_eq!(allocation_counter::measure(child).count_total, 0);
    });
}

/// sentry-core keeps some thousand spans of a transaction, and no more is kept beside them.
#[test]
fn a_root_that_goes_on_and_on_keeps_no_more() {
    let world = World::new();
    world.sync(|| {
        let _root = tracing::info_span!("consumes").entered();
        let children = || (0..2_000).for_each(|_| tracing::info_span!("message").in_scope(|| {}));
        children();
        let kept = allocation_counter::measure(children).bytes_current;
        assert!(kept < 1_000, "{kept} bytes");
    });
    let transaction = world.received().only_transaction().clone();
    assert!(transaction.spans.len() >= 1_000);
    for span in &transaction.spans {
        assert_eq!(span.data["sentry.tracing.target"], "it::allocations");
    }
}

#[test]
fn messages_of_a_stream_allocate_nothing() {
    let worlds = [World::sampled(1.0), World::sampled(0.0)];
    let dispatches = worlds.iter().map(|world| world.dispatch.clone());
    for dispatch in dispatches.chain([without_client()]) {
        let few = added(&dispatch, "SayHelloStream", "10");
        let many = added(&dispatch, "SayHelloStream", "1000");
        assert_eq!(many, few);
    }
}
