//! A Greeter whose calls do a [`Work`].

use std::future::pending;
use std::sync::Arc;

use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, instrument};

use crate::helloworld::greeter_server::Greeter;
use crate::helloworld::{HelloReply, HelloRequest};
use crate::messages::{Paced, reply};
use crate::upstream::Upstream;
use crate::work::{Step, Work};

#[derive(Clone)]
pub struct WorkingGreeter {
    pub work: Work,
    pub upstream: Option<Arc<dyn Upstream>>,
}

impl WorkingGreeter {
    async fn work(&self) -> Result<(), Status> {
        child().await;
        for _ in 0..self.work.times(Step::Child) {
            child().await;
        }
        for number in 0..self.work.times(Step::ChildWithFields) {
            child_with_fields(number, "a name", true).await;
        }
        for _ in 0..self.work.times(Step::Pause) {
            pause().await;
        }
        for number in 0..self.work.times(Step::Event) {
            info!(number, "looking up a name");
        }
        let Some(upstream) = &self.upstream else {
            return Ok(());
        };
        for _ in 0..self.work.times(Step::ClientCall) {
            upstream.greet().await?;
        }
        if self.work.step == Step::ClientResponseFrame {
            upstream.greet_in_stream().await?;
        }
        if self.work.step == Step::ClientRequestFrame {
            upstream.greet_all(self.work.times).await?;
        }
        Ok(())
    }
}

#[instrument]
async fn child() {}

#[instrument]
async fn child_with_fields(number: u32, name: &str, is_new: bool) {
    let _ = (number, name, is_new);
}

#[instrument]
async fn pause() {
    tokio::task::yield_now().await;
}

/// Is open as long as its task.
#[instrument]
async fn wait() {
    pending().await
}

#[tonic::async_trait]
impl Greeter for WorkingGreeter {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.work().await?;
        Ok(Response::new(reply()))
    }

    type SayHelloStreamStream = Paced<HelloReply>;

    async fn say_hello_stream(
        &self,
        _: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHelloStreamStream>, Status> {
        self.work().await?;
        let replies = self.work.times(Step::ResponseFrame);
        Ok(Response::new(Paced::new(replies, reply)))
    }

    async fn collect_hellos(
        &self,
        requests: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        drain(requests.into_inner()).await?;
        self.work().await?;
        Ok(Response::new(reply()))
    }

    type ChatStream = Paced<HelloReply>;

    async fn chat(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        wait().await;
        Err(Status::internal("it waits for ever"))
    }
}

/// Answers, and is not traced.
#[derive(Clone)]
pub struct Plain {
    pub replies: u32,
}

#[tonic::async_trait]
impl Greeter for Plain {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(reply()))
    }

    type SayHelloStreamStream = Paced<HelloReply>;

    async fn say_hello_stream(
        &self,
        _: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHelloStreamStream>, Status> {
        Ok(Response::new(Paced::new(self.replies, reply)))
    }

    async fn collect_hellos(
        &self,
        requests: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        drain(requests.into_inner()).await?;
        Ok(Response::new(reply()))
    }

    type ChatStream = Paced<HelloReply>;

    async fn chat(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        Err(Status::unimplemented("not for benches"))
    }
}

async fn drain(mut requests: Streaming<HelloRequest>) -> Result<(), Status> {
    while let Some(request) = requests.next().await {
        request?;
    }
    Ok(())
}
