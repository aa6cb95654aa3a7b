//! A Greeter as an application would write it. The name in a request chooses
//! what happens.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio_stream::wrappers::IntervalStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info, instrument};

use super::helloworld::greeter_server::Greeter;
use super::helloworld::{HelloReply, HelloRequest};

type ReplyStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[derive(Debug, Default)]
pub(crate) struct MyGreeter;

#[derive(Debug)]
struct StoreError;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection to the name store lost")
    }
}

impl Error for StoreError {}

#[derive(Debug)]
struct LookupError(StoreError);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot look up a name")
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[instrument(fields(sentry.op = "function"))]
async fn find_name(name: &str) -> Result<String, Status> {
    info!(name, "looking up a name");
    query_store(name).await?;
    Ok(name.to_uppercase())
}

#[instrument(fields(sentry.op = "db.query"))]
async fn query_store(name: &str) -> Result<(), Status> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    match name {
        "notfound" => Err(Status::not_found("nobody has this name")),
        "internal" => {
            let failure = LookupError(StoreError);
            error!(error = &failure as &dyn Error, "lookup failed");
            let mut status = Status::internal("lookup failed");
            status.set_source(std::sync::Arc::new(failure));
            Err(status)
        }
        "slow" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[instrument(fields(sentry.op = "template.render"))]
async fn render(name: &str) -> HelloReply {
    tokio::time::sleep(Duration::from_millis(1)).await;
    HelloReply {
        message: format!("Hello {name}!"),
    }
}

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = find_name(&request.into_inner().name).await?;
        Ok(Response::new(render(&name).await))
    }

    type SayHelloStreamStream = ReplyStream;

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<ReplyStream>, Status> {
        let HelloRequest { name } = request.into_inner();
        let count = if name == "endless" { usize::MAX } else { 3 };
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(5)));
        let replies = ticks.take(count).map(move |_| {
            Ok(HelloReply {
                message: format!("Hello {name}!"),
            })
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let mut requests = request.into_inner();
        let mut names = Vec::new();
        while let Some(request) = requests.next().await {
            names.push(request?.name);
        }
        Ok(Response::new(render(&names.join(" and ")).await))
    }

    type ChatStream = ReplyStream;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<ReplyStream>, Status> {
        let replies = request.into_inner().map(|request| {
            let name = request?.name;
            info!(name, "heard from somebody");
            if name == "internal" {
                error!("the chat broke down");
                return Err(Status::internal("the chat broke down"));
            }
            Ok(HelloReply {
                message: format!("Hello {name}!"),
            })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
