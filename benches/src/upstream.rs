//! The server that a handler calls, behind a client of any stack.

use std::pin::Pin;

use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Bytes, StdError};
use tonic::{Request, Status};

use crate::helloworld::greeter_client::GreeterClient;
use crate::messages::{Paced, hello};

type Called<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;

pub trait Upstream: Send + Sync {
    fn greet(&self) -> Called<'_>;
    /// Of as many replies as the server sends.
    fn greet_in_stream(&self) -> Called<'_>;
    fn greet_all(&self, requests: u32) -> Called<'_>;
}

impl<T> Upstream for GreeterClient<T>
where
    T: GrpcService<Body> + Clone + Send + Sync,
    T::Error: Into<StdError>,
    T::Future: Send,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    fn greet(&self) -> Called<'_> {
        Box::pin(async {
            let _ = self.clone().say_hello(Request::new(hello())).await?;
            Ok(())
        })
    }

    fn greet_in_stream(&self) -> Called<'_> {
        Box::pin(async {
            let replies = self.clone().say_hello_stream(Request::new(hello())).await?;
            let mut replies = replies.into_inner();
            while let Some(reply) = replies.next().await {
                reply?;
            }
            Ok(())
        })
    }

    fn greet_all(&self, requests: u32) -> Called<'_> {
        Box::pin(async move {
            let requests = Paced::new(requests, hello);
            let _ = self.clone().collect_hellos(requests).await?;
            Ok(())
        })
    }
}
