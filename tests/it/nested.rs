//! Calls that a process serves itself, inside another call or a span: they share a
//! transaction, and nothing else.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::{Event, User};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, error, info, info_span};

use sentry_tonic::{CallerIdentity, RequestBody, SentryServerLayer};

use crate::support::body::{ScriptedBody, grpc_status};
use crate::support::received::{Sp, event_trace, messages, trace};
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;

/// A call to `/test.Service/<method>`, of which `who` is told in a header.
async fn call(
    layer: &SentryServerLayer,
    method: &str,
    who: Option<&str>,
    code: i32,
    handler: impl Future,
) {
    let handler = RefCell::new(Some(handler));
    let service = service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        let handler = handler.take().unwrap();
        handler.await;
        let mut response = Response::new(ScriptedBody::<BoxError>::new([]));
        *response.headers_mut() = grpc_status(code);
        Ok::<_, BoxError>(response)
    });
    let mut request = Request::post(format!("http://localhost/test.Service/{method}"))
        .header("content-type", "application/grpc");
    if let Some(who) = who {
        request = request.header("who", who);
    }
    let call = layer
        .layer(service)
        .oneshot(request.body(Empty::new()).unwrap());
    drop(call.await.unwrap());
}

fn by_header() -> SentryServerLayer {
    SentryServerLayer::new().identify_caller(|parts| match parts.headers.get("who") {
        Some(who) => {
            let who = who.to_str().unwrap();
            let user = User {
                id: Some(who.to_owned()),
                ..User::default()
            };
            CallerIdentity::from(user).tag("who", who)
        }
        None => CallerIdentity::new(),
    })
}

/// The user, the tag and the method of each error, in the order of the methods.
fn who(events: &[Event<'_>]) -> Vec<(String, Option<String>, Option<String>)> {
    let who = |event: &Event<'_>| {
        let user = event.user.clone().and_then(|user| user.id);
        let method = event.tags["rpc.method"].clone();
        (method, user, event.tags.get("who").cloned())
    };
    let mut who: Vec<_> = events.iter().map(who).collect();
    who.sort();
    who
}

fn own(method: &str, who: &str) -> (String, Option<String>, Option<String>) {
    let who = || Some(who.to_owned());
    (method.to_owned(), who(), who())
}

#[test]
fn calls_in_one_span_keep_their_callers_to_themselves() {
    let world = World::new();
    let layer = by_header();
    world.run(async {
        let calls = async {
            tokio::join!(
                call(&layer, "A", Some("alice"), 13, yield_now()),
                call(&layer, "B", Some("bob"), 13, yield_now())
            );
            call(&layer, "C", None, 13, yield_now()).await;
        };
        calls.instrument(info_span!("batch")).await;
    });
    let received = world.received();
    assert_eq!(received.only_tx().name, "batch");
    let nobody = ("C".to_owned(), None, None);
    assert_eq!(
        who(&received.events),
        [own("A", "alice"), own("B", "bob"), nobody]
    );
}

#[test]
fn fields_of_spans_tell_of_their_call_alone() {
    let world = World::with(
        |o| o.traces_sample_rate(1.0),
        |layer| layer.tag_params(["who"]),
    );
    let layer = SentryServerLayer::new();
    let fails = |who: &'static str| {
        let inside = async move {
            yield_now().await;
            error!("failed for {who}");
        };
        // Made in the call, as that of `#[instrument]` is.
        async move {
            let span = info_span!("authorized", user.id = who, rpc.param.who = who);
            inside.instrument(span).await;
        }
    };
    world.run(async {
        let calls = async {
            tokio::join!(
                call(&layer, "A", None, 0, fails("alice")),
                call(&layer, "B", None, 0, fails("bob")),
                call(&layer, "C", None, 0, async {
                    yield_now().await;
                    error!("failed for nobody");
                })
            );
        };
        calls.instrument(info_span!("batch")).await;
    });
    let of = |event: &Event<'_>| {
        let user = event.user.clone().and_then(|user| user.id);
        (
            event.tags["rpc.method"].clone(),
            user,
            event.tags.get("rpc.param.who").cloned(),
        )
    };
    let mut told: Vec<_> = world.received().events.iter().map(of).collect();
    told.sort();
    let nobody = ("C".to_owned(), None, None);
    assert_eq!(told, [own("A", "alice"), own("B", "bob"), nobody]);
}

#[test]
fn a_call_inside_another_has_its_own_caller() {
    let world = World::new();
    let layer = by_header();
    world.run(async {
        let inner = call(&layer, "Inner", Some("alice"), 0, async {
            error!("inside")
        });
        // What is known of who called the outer one is none of the inner one's.
        let outer = async {
            let bob = ("bob", "bob@example.com");
            let span = info_span!("authorized", user.id = bob.0, user.email = bob.1);
            inner.instrument(span).await;
            error!("outside");
        };
        call(&layer, "Outer", Some("bob"), 0, outer).await;
    });
    let events = world.received().events;
    assert_eq!(who(&events), [own("Inner", "alice"), own("Outer", "bob")]);
    let emails = events.iter().map(|event| event.user.clone().unwrap().email);
    let bob = Some("bob@example.com".to_owned());
    assert_eq!(emails.collect::<Vec<_>>(), [None, bob]);
}

#[test]
fn a_failure_inside_is_told_once() {
    let world = World::new();
    let layer = SentryServerLayer::new();
    world.run(async {
        let inner = async {
            error!("refused");
            error!("refused");
        };
        let inner = call(&layer, "Inner", None, 13, inner);
        call(&layer, "Outer", None, 13, inner).await;
    });
    let events = world.received().events;
    let messages: Vec<_> = events
        .iter()
        .map(|event| event.message.as_deref())
        .collect();
    assert_eq!(messages, [Some("refused")]);
}

#[test]
fn a_panic_inside_is_told_whatever_was_told_outside() {
    let options = |options: sentry::ClientOptions| {
        let options = options.traces_sample_rate(1.0);
        options.add_integration(PanicIntegration::new())
    };
    let world = World::with(options, |layer| layer);
    let layer = SentryServerLayer::new();
    world.run(async {
        let outer = async {
            error!("the cache is cold");
            call(&layer, "Inner", None, 0, async { panic!("inside") }).await;
        };
        call(&layer, "Outer", None, 0, outer).await;
    });
    let received = world.received();
    let [_, panic] = received.events.as_slice() else {
        panic!("{:?}", received.events)
    };
    let inner = received.only_transaction().spans[0].span_id;
    assert_eq!(event_trace(panic).span_id, inner);
    assert_eq!(panic.exception[0].value.as_deref(), Some("inside"));
    assert!(panic.exception[0].stacktrace.is_some());
    assert_eq!(panic.tags["rpc.method"], "Inner");
}

#[test]
fn an_error_belongs_to_the_innermost_call() {
    let world = World::new();
    let layer = SentryServerLayer::new();
    world.run(async {
        let inner = call(&layer, "Inner", None, 0, async { error!("inside") });
        let outer = async {
            inner.await;
            error!("outside");
        };
        call(&layer, "Outer", None, 0, outer).await;
    });
    let received = world.received();
    let spans = received
        .events
        .iter()
        .map(|event| event_trace(event).span_id);
    let transaction = received.only_transaction();
    let expected = [transaction.spans[0].span_id, trace(transaction).span_id];
    assert_eq!(spans.collect::<Vec<_>>(), expected);
}

/// As that of a client is, whose server reads the request on the same task.
#[test]
fn a_span_that_is_entered_in_itself_is_the_innermost() {
    let world = World::new();
    world.sync(|| {
        let outer = info_span!(target: "test", "outer");
        let other = info_span!(target: "test", parent: None, "other");
        let _in_outer = outer.enter();
        let _in_other = other.enter();
        info!("in the other one");
        let _in_outer_again = outer.enter();
        info!("in outer");
        info_span!(target: "test", "child").in_scope(|| {});
        error!("of outer");
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.transaction.as_deref(), Some("outer"));
    assert_eq!(messages(&event.breadcrumbs), ["in outer"]);
    let mut txs = received.txs();
    txs.sort_by(|a, b| a.name.cmp(&b.name));
    let [other, outer] = txs.as_slice() else {
        panic!("{txs:?}")
    };
    assert_eq!((other.name.as_str(), other.spans.len()), ("other", 0));
    assert_eq!(outer.spans, [Sp::ok("child", "outer")]);
}
