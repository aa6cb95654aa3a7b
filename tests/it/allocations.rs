//! How often calls allocate beyond what they do without this crate.

use std::convert::Infallible;

use bytes::{BufMut, BytesMut};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};
use tracing::dispatcher::with_default;
use tracing::{Dispatch, Instrument, Span, info_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer};

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

/// Its stream has as many replies as a name says, each in a frame of its own.
fn greeter() -> GreeterServer<Scripted> {
    let scripted = Scripted::new()
        .say_hello(|name| async move {
            look_up().await;
            Ok(reply(&name))
        })
        .say_hello_stream(|name| async move {
            let count = name.parse().unwrap();
            // tonic puts into one frame what is there at once.
            let replies = tokio_stream::iter(0..count).then(|_| async {
                tokio::task::yield_now().await;
                Ok(reply("x"))
            });
            Ok(Box::pin(replies) as Replies)
        })
        .collect_hellos(|mut requests| async move {
            while let Some(request) = requests.next().await {
                request?;
            }
            Ok(reply("x"))
        });
    GreeterServer::new(scripted)
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    method: &'static str,
    name: &'static str,
    /// Each a frame.
    requests: usize,
    is_in_span: bool,
}

impl Call {
    fn new(method: &'static str, name: &'static str) -> Self {
        Self {
            method,
            name,
            requests: 1,
            is_in_span: false,
        }
    }

    fn request(self) -> Request<Body> {
        let message = request(self.name).encode_to_vec();
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).unwrap());
        frame.put_slice(&message);
        let frame = frame.freeze();
        let frames =
            (0..self.requests).map(move |_| Ok::<_, Infallible>(Frame::data(frame.clone())));
        Request::builder()
            .method("POST")
            .uri(format!(
                "http://localhost/helloworld.Greeter/{}",
                self.method
            ))
            .header("content-type", "application/grpc")
            .body(Body::new(StreamBody::new(tokio_stream::iter(frames))))
            .unwrap()
    }

    async fn make<S, B>(self, service: S, request: Request<Body>)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: http_body::Body,
    {
        let span = match self.is_in_span {
            true => info_span!("job"),
            false => Span::none(),
        };
        let call = async {
            let response = service.oneshot(request).await.unwrap();
            let mut body = std::pin::pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                assert!(frame.is_ok());
            }
        };
        call.instrument(span).await;
    }

    /// How often it allocates.
    fn allocations<S, B>(self, service: &S) -> u64
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body,
    {
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let call_once = |request| runtime.block_on(self.make(service.clone(), request));
        (0..WARM_UP).for_each(|_| call_once(self.request()));
        let counts = (0..COUNTED).map(|_| {
            let request = self.request();
            allocation_counter::measure(|| call_once(request)).count_total
        });
        // Now and then a map grows.
        counts.min().unwrap()
    }

    /// By how many those of the middleware are more.
    fn added(self, world: &World, side: Side) -> u64 {
        let bare = with_default(&Dispatch::none(), || self.allocations(&greeter()));
        let server = SentryServerLayer::new().layer(greeter());
        let client = SentryClientLayer::new().layer(greeter());
        let ours = world.sync(|| match side {
            Side::Server => self.allocations(&server),
            Side::Client => self.allocations(&client),
        });
        ours - bare
    }
}

fn without_client() -> World {
    let layers = registry().with(SentryTracingLayer::new());
    let world = World::subscribed(layers.with(LevelFilter::INFO));
    world.hub.bind_client(None);
    world
}

#[test]
fn calls_that_nobody_sees_allocate_little() {
    for (world, most) in [(without_client(), 3), (World::sampled(0.0), 24)] {
        let added = Call::new("SayHello", "Ferris").added(&world, Side::Server);
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
        let _root = info_span!("consumes").entered();
        let children = || (0..2_000).for_each(|_| info_span!("message").in_scope(|| {}));
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

/// Sampled, not sampled, and with nobody to tell.
fn worlds() -> [(&'static str, World); 3] {
    [
        ("sampled", World::sampled(1.0)),
        ("unsampled", World::sampled(0.0)),
        ("no client", without_client()),
    ]
}

/// And as the name that asks for as many replies.
const FEW: (usize, &str) = (10, "10");
const MANY: (usize, &str) = (1_000, "1000");

/// Of a stream of requests, and of one of replies.
fn streams((frames, name): (usize, &'static str)) -> [Call; 2] {
    let requests = Call {
        requests: frames,
        ..Call::new("CollectHellos", "Ferris")
    };
    [requests, Call::new("SayHelloStream", name)]
}

/// By how many allocations a call of many frames is more than one of few.
fn added_by_frames(world: &World, side: Side, few: Call, many: Call) -> u64 {
    many.added(world, side) - few.added(world, side)
}

#[test]
fn frames_allocate_nothing() {
    for (what, world) in worlds() {
        for side in [Side::Server, Side::Client] {
            for (few, many) in streams(FEW).into_iter().zip(streams(MANY)) {
                let added = added_by_frames(&world, side, few, many);
                assert_eq!(added, 0, "{what} {side:?} {}", few.method);
            }
        }
    }
}

/// The scope of a sampled call has the innermost span, which changes twice a poll.
#[test]
fn frames_inside_of_another_span_allocate_little() {
    // At times tokio has a task give way, which makes for one poll more.
    let polls = (MANY.0 - FEW.0 + MANY.0 / 16) as u64;
    for ((what, world), most) in worlds().into_iter().zip([2, 0, 0]) {
        for side in [Side::Server, Side::Client] {
            for (few, many) in streams(FEW).into_iter().zip(streams(MANY)) {
                let [few, many] = [few, many].map(|call| Call {
                    is_in_span: true,
                    ..call
                });
                let added = added_by_frames(&world, side, few, many);
                let most = most * polls;
                assert!(added <= most, "{what} {side:?} {}: {added}", few.method);
            }
        }
    }
}
