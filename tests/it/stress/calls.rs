//! Calls of all kinds, by jobs, and by calls that are served.

use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use tokio::task::yield_now;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::{Code, Status, Streaming};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};
use tracing::{Instrument, info_span};

use sentry_tonic::{SentryClientLayer, SentrySpanExt};

use crate::stress::books::{Books, Leg, is_sampled, trace_id};
use crate::stress::work::{Ending, work};
use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::{HelloReply, HelloRequest};

pub(super) type Client = GreeterClient<BoxCloneSyncService<Request<Body>, Response<Body>, Status>>;

/// One whose calls are observed, and go to any kind of service.
pub(super) fn client<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let service = service
        .map_response(|response| response.map(Body::new))
        .map_err(|error| Status::from_error(error.into()));
    let service = SentryClientLayer::new().layer(service);
    let service = ServiceExt::<Request<Body>>::map_response(service, |response: Response<_>| {
        response.map(Body::new)
    });
    let origin = "http://localhost".parse().unwrap();
    GreeterClient::with_origin(BoxCloneSyncService::new(service), origin)
}

impl Ending {
    fn of(call: u64, number: u64) -> Self {
        match (call / 4 + number) % 4 {
            0 => Self::Status,
            1 => Self::Panic,
            _ => Self::Reply,
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Reply => Code::Ok,
            Self::Status | Self::Panic => Code::Internal,
        }
    }
}

/// Of the call of this job.
pub(super) fn is_in_process(job: u64) -> bool {
    job.is_multiple_of(7)
}

/// Makes a call of the leg's own, to another one of this number.
async fn call(leg: &Arc<Leg>, mut client: Client, number: u64) {
    const METHODS: [&str; 4] = ["SayHello", "SayHelloStream", "CollectHellos", "Chat"];
    let kind = (leg.call + number) % 4;
    leg.call_to(&format!("/helloworld.Greeter/{}", METHODS[kind as usize]));
    let name = format!("{}.{number}", leg.call);
    let one = request(&name);
    let requests = {
        let leg = Arc::clone(leg);
        tokio_stream::iter(0..3).map(move |_| {
            leg.crumb();
            request(&name)
        })
    };
    let result = match kind {
        0 => client.say_hello(one).await.map(drop),
        1 => all(leg, client.say_hello_stream(one).await).await,
        2 => client.collect_hellos(requests).await.map(drop),
        _ => all(leg, client.chat(requests).await).await,
    };
    let code = result.map_or_else(|status| status.code(), |()| Code::Ok);
    if code != Ending::of(leg.call, number).code() {
        leg.books.stray(format!("{code:?} of {leg:?}"));
    }
}

async fn all(
    leg: &Leg,
    replies: Result<tonic::Response<Streaming<HelloReply>>, Status>,
) -> Result<(), Status> {
    let mut replies = replies?.into_inner();
    while replies.message().await?.is_some() {
        leg.crumb();
        yield_now().await;
    }
    Ok(())
}

/// Makes a call, in a root that goes on from a trace of its own.
pub(super) async fn job(books: Arc<Books>, client: Client, rate: Option<f32>, number: u64) {
    let flag = match (rate, is_sampled(number)) {
        (None, _) => "",
        (Some(rate), true) if rate > 0.0 => "-1",
        (Some(_), _) => "-0",
    };
    let trace = trace_id(number);
    let head = format!("{trace}-{:016x}{flag}", number + 1);
    let baggage = format!(
        "sentry-trace_id={trace},sentry-public_key=public,sentry-sampled=true,\
         sentry-transaction=job%20{number}"
    );
    let span = info_span!(target: "test", parent: None, "job");
    let headers = [("sentry-trace", &*head), ("baggage", &*baggage)];
    span.continue_trace(headers).unwrap();
    let work = async {
        let leg = books.open(&format!("{number}.0"));
        work(&leg).await;
        call(&leg, client, 1).await;
        leg.end(Ending::Reply).unwrap();
    };
    work.instrument(span).await;
}

#[derive(Clone)]
pub(super) struct Serving {
    pub(super) books: Arc<Books>,
    /// For calls to the same server.
    pub(super) client: Arc<OnceLock<Client>>,
}

impl Serving {
    async fn begin(&self, name: &str) -> (Arc<Leg>, Ending) {
        let leg = self.books.open(name);
        work(&leg).await;
        let number = if name.ends_with(".1") { 1 } else { 2 };
        if number == 1 && leg.call.is_multiple_of(3) {
            let client = self.client.get().unwrap().clone();
            Box::pin(call(&leg, client, 2)).await;
        }
        let ending = Ending::of(leg.call, number);
        (leg, ending)
    }

    pub(super) fn greeter(&self) -> Scripted {
        let [unary, server, collect, chat] = [(); 4].map(|()| self.clone());
        Scripted::new()
            .say_hello(move |name| {
                let serving = unary.clone();
                async move {
                    let (leg, ending) = serving.begin(&name).await;
                    leg.end(ending)
                }
            })
            .say_hello_stream(move |name| {
                let serving = server.clone();
                // All of it is done as the stream is polled.
                async move { Ok(serving.replies(name)) }
            })
            .collect_hellos(move |mut requests| {
                let serving = collect.clone();
                async move {
                    let first = requests.message().await?.unwrap();
                    let (leg, ending) = serving.begin(&first.name).await;
                    while requests.message().await?.is_some() {
                        leg.crumb();
                        yield_now().await;
                    }
                    leg.end(ending)
                }
            })
            .chat(move |mut requests| {
                let serving = chat.clone();
                async move {
                    let first = requests.message().await?.unwrap();
                    let (leg, ending) = serving.begin(&first.name).await;
                    Ok(answers(leg, ending, requests))
                }
            })
    }

    fn replies(self, name: String) -> Replies {
        let begun = Arc::new(OnceLock::new());
        let steps = tokio_stream::iter(0..3).then(move |step| {
            let (serving, name, begun) = (self.clone(), name.clone(), Arc::clone(&begun));
            async move {
                if step == 0 {
                    begun.set(serving.begin(&name).await).unwrap();
                }
                let (leg, ending) = begun.get().unwrap();
                leg.crumb();
                yield_now().await;
                match step {
                    2 => leg.end(*ending),
                    _ => Ok(reply(&name)),
                }
            }
        });
        Box::pin(steps)
    }
}

/// One for each request, and the end.
fn answers(leg: Arc<Leg>, ending: Ending, requests: Streaming<HelloRequest>) -> Replies {
    let steps = requests.map(|_| false).chain(tokio_stream::once(true));
    let replies = steps.then(move |is_end| {
        let leg = Arc::clone(&leg);
        async move {
            leg.crumb();
            yield_now().await;
            match is_end {
                true => leg.end(ending),
                false => Ok(reply(&leg.name)),
            }
        }
    });
    Box::pin(replies)
}
