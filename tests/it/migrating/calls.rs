//! The calls that are made with each stack.

use std::future::pending;
use std::sync::Arc;
use std::time::SystemTime;

use sentry::Level;
use sentry::integrations::panic::PanicIntegration;
use tokio::sync::Notify;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tracing::{Dispatch, error, info, info_span, instrument};

use crate::migrating::stack::{Stack, Upstream};
use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::world::World;

/// What a name makes the greeter do. Those of `STREAMS` are asked for as a stream.
pub(crate) const CALLS: [&str; 14] = [
    "ok",
    "not found",
    "internal",
    "error event",
    "error event, internal",
    "nested",
    "scope",
    "panic",
    "upstream",
    "upstream fails",
    "hangs up",
    "stream",
    "stream fails",
    "stream is dropped",
];
const STREAMS: [&str; 3] = ["stream", "stream fails", "stream is dropped"];

/// What there is of a call beside what is told.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the caller got.
    pub(crate) code: Code,
    /// When the caller had the head of a response, before the rest of it was there.
    pub(crate) head: Option<SystemTime>,
}

/// Everything is sampled, and a panic is reported by sentry.
pub(crate) fn world(subscriber: impl Into<Dispatch>) -> World {
    let options = |options: sentry::ClientOptions| {
        let options = options.traces_sample_rate(1.0);
        options.add_integration(PanicIntegration::new())
    };
    let mut world = World::with(options, |layer| layer);
    world.dispatch = subscriber.into();
    world
}

/// Makes a call, with a server of its own, and a second one behind that.
pub(crate) fn make(world: &World, stack: &impl Stack, name: &str) -> Ended {
    world.run(async {
        let back = stack.serve(greeter(None, &Gates::default())).await;
        let channel = back.endpoint().connect().await.unwrap();
        let upstream = stack.upstream(channel, back.endpoint().uri().clone());
        let gates = Gates::default();
        let front = stack.serve(greeter(Some(upstream), &gates)).await;
        let mut client = front.client().await;
        let ended = if STREAMS.contains(&name) {
            stream(&mut client, name, &gates).await
        } else {
            let call = client.say_hello(request(name));
            tokio::select! {
                answer = call => code(answer.map(drop)),
                () = gates.hung_up.notified() => Ended { code: Code::Cancelled, head: None },
            }
        };
        drop(client);
        front.stop().await;
        back.stop().await;
        ended
    })
}

fn code(result: Result<(), Status>) -> Ended {
    Ended {
        code: result.map_or_else(|status| status.code(), |()| Code::Ok),
        head: None,
    }
}

type Client = crate::support::helloworld::greeter_client::GreeterClient<tonic::transport::Channel>;

async fn stream(client: &mut Client, name: &str, gates: &Gates) -> Ended {
    let replies = client.say_hello_stream(request(name)).await.unwrap();
    let mut replies = replies.into_inner();
    replies.message().await.unwrap().unwrap();
    let head = Some(SystemTime::now());
    if name == "stream is dropped" {
        let code = Code::Cancelled;
        return Ended { code, head };
    }
    gates.go_on.notify_one();
    let end = loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    let Ended { code, .. } = code(end);
    Ended { code, head }
}

/// By what caller and handler wait for each other.
#[derive(Debug, Clone, Default)]
struct Gates {
    /// The caller is to hang up.
    hung_up: Arc<Notify>,
    /// The caller has seen the head of a response.
    go_on: Arc<Notify>,
}

fn greeter(upstream: Option<Upstream>, gates: &Gates) -> Scripted {
    let (hung_up, go_on) = (Arc::clone(&gates.hung_up), Arc::clone(&gates.go_on));
    Scripted::new()
        .say_hello(move |name| say_hello(name, upstream.clone(), Arc::clone(&hung_up)))
        .say_hello_stream(move |name| say_hello_stream(name, Arc::clone(&go_on)))
}

#[instrument(target = "greeter", skip_all)]
async fn say_hello(
    name: String,
    upstream: Option<Upstream>,
    hung_up: Arc<Notify>,
) -> Result<HelloReply, Status> {
    match &*name {
        "not found" => return Err(Status::not_found("nobody of this name")),
        "internal" => return Err(Status::internal("the store is down")),
        "error event" => error!("the store is slow"),
        "error event, internal" => {
            error!("the store is down");
            return Err(Status::internal("try again"));
        }
        "nested" => look_up().await,
        "scope" => {
            remember().await;
            sentry::capture_message("over quota", Level::Warning);
        }
        "panic" => panic!("nobody expected this name"),
        "upstream" => return upstream.unwrap()("ok".to_owned()).await,
        "upstream fails" => return upstream.unwrap()("not found".to_owned()).await,
        "hangs up" => {
            hung_up.notify_one();
            pending::<()>().await;
        }
        _ => {}
    }
    Ok(reply(&name))
}

#[instrument(target = "greeter")]
async fn look_up() {
    tokio::task::yield_now().await;
    info_span!(target: "greeter", "query").in_scope(|| ());
}

/// Writes to the scope, and waits.
#[instrument(target = "greeter")]
async fn remember() {
    info!(target: "greeter", "looks up the quota");
    sentry::configure_scope(|scope| scope.set_tag("tenant", "navy"));
    tokio::task::yield_now().await;
    sentry::capture_message("quota is near", Level::Info);
}

#[instrument(target = "greeter", skip_all)]
async fn say_hello_stream(name: String, go_on: Arc<Notify>) -> Result<Replies, Status> {
    let end = match &*name {
        "stream fails" => Err(Status::internal("the store is down")),
        _ => Ok(reply("last")),
    };
    let first = tokio_stream::once(true).chain(tokio_stream::once(false));
    let replies = first.then(move |is_first| {
        let (end, go_on) = (end.clone(), Arc::clone(&go_on));
        async move {
            if is_first {
                return Ok(reply("first"));
            }
            go_on.notified().await;
            end
        }
    });
    Ok(Box::pin(replies))
}
