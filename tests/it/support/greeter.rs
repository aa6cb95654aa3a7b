//! A Greeter whose methods do what a test says, and a real server and client
//! around it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, mpsc};

use http::HeaderMap;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Extensions, Request, Response, Status, Streaming};
use tower::Layer;
use tower::util::MapRequestLayer;

use sentry_tonic::{SentryClientLayer, SentryClientService, SentryServerLayer};

use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::{Greeter, GreeterServer};
use crate::support::helloworld::{HelloReply, HelloRequest};

pub(crate) type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

pub(crate) type ObservedClient = GreeterClient<SentryClientService<Channel>>;
pub(crate) type PatientClient = legacy::Client<HttpConnector, Body>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Unary = dyn Fn(String) -> BoxFuture<Result<HelloReply, Status>> + Send + Sync;
type ServerStreaming = dyn Fn(String) -> BoxFuture<Result<Replies, Status>> + Send + Sync;
type ClientStreaming =
    dyn Fn(Streaming<HelloRequest>) -> BoxFuture<Result<HelloReply, Status>> + Send + Sync;
type Bidirectional =
    dyn Fn(Streaming<HelloRequest>) -> BoxFuture<Result<Replies, Status>> + Send + Sync;

/// Greets, where a test says nothing else.
#[derive(Clone)]
pub(crate) struct Scripted {
    say_hello: Arc<Unary>,
    say_hello_stream: Arc<ServerStreaming>,
    collect_hellos: Arc<ClientStreaming>,
    chat: Arc<Bidirectional>,
    head: MetadataMap,
}

pub(crate) fn reply(name: &str) -> HelloReply {
    HelloReply {
        message: format!("Hello {name}!"),
    }
}

pub(crate) fn request(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}

pub(crate) fn replies(items: Vec<Result<HelloReply, Status>>) -> Replies {
    Box::pin(tokio_stream::iter(items))
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self {
            say_hello: Arc::new(|name| Box::pin(async move { Ok(reply(&name)) })),
            say_hello_stream: Arc::new(|name| {
                Box::pin(async move { Ok(replies(vec![Ok(reply(&name)); 3])) })
            }),
            collect_hellos: Arc::new(|mut requests| {
                Box::pin(async move {
                    let mut names = Vec::new();
                    while let Some(request) = requests.next().await {
                        names.push(request?.name);
                    }
                    Ok(reply(&names.join(", ")))
                })
            }),
            chat: Arc::new(|requests| {
                Box::pin(async move {
                    let replies = requests.map(|request| Ok(reply(&request?.name)));
                    Ok(Box::pin(replies) as Replies)
                })
            }),
            head: MetadataMap::new(),
        }
    }

    /// Metadata in the head of each response that is not a failure.
    pub(crate) fn head(self, head: MetadataMap) -> Self {
        Self { head, ..self }
    }

    fn response<T>(&self, message: T) -> Response<T> {
        Response::from_parts(self.head.clone(), message, Extensions::new())
    }

    pub(crate) fn say_hello<F>(self, f: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<HelloReply, Status>> + Send + 'static,
    {
        Self {
            say_hello: Arc::new(move |name| Box::pin(f(name))),
            ..self
        }
    }

    pub(crate) fn say_hello_stream<F>(self, f: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Replies, Status>> + Send + 'static,
    {
        Self {
            say_hello_stream: Arc::new(move |name| Box::pin(f(name))),
            ..self
        }
    }

    pub(crate) fn collect_hellos<F>(
        self,
        f: impl Fn(Streaming<HelloRequest>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<HelloReply, Status>> + Send + 'static,
    {
        Self {
            collect_hellos: Arc::new(move |requests| Box::pin(f(requests))),
            ..self
        }
    }

    pub(crate) fn chat<F>(
        self,
        f: impl Fn(Streaming<HelloRequest>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Replies, Status>> + Send + 'static,
    {
        Self {
            chat: Arc::new(move |requests| Box::pin(f(requests))),
            ..self
        }
    }

    /// Serves, makes one call, and stops.
    pub(crate) async fn say_hello_once(self, name: &str) -> Result<HelloReply, Status> {
        let server = self.serve().await;
        let mut client = server.client().await;
        let reply = client.say_hello(request(name)).await;
        drop(client);
        server.stop().await;
        reply.map(Response::into_inner)
    }

    /// Behind a default server layer, on a free port of loopback.
    pub(crate) async fn serve(self) -> Running {
        self.serve_with(SentryServerLayer::new()).await
    }

    pub(crate) async fn serve_with(self, layer: SentryServerLayer) -> Running {
        let (listening, incoming, stopped) = listen().await;
        let server = Server::builder()
            .layer(layer)
            .add_service(GreeterServer::new(self))
            .serve_with_incoming_shutdown(incoming, stopped);
        listening.running(tokio::spawn(server))
    }

    /// A server that knows nothing of Sentry, and what arrives at it.
    pub(crate) async fn serve_unobserved(self) -> (Running, mpsc::Receiver<HeaderMap>) {
        let (arrived, arrivals) = mpsc::channel();
        let (listening, incoming, stopped) = listen().await;
        let tell = move |request: http::Request<Body>| {
            let _ = arrived.send(request.headers().clone());
            request
        };
        let server = Server::builder()
            .layer(MapRequestLayer::new(tell))
            .add_service(GreeterServer::new(self))
            .serve_with_incoming_shutdown(incoming, stopped);
        (listening.running(tokio::spawn(server)), arrivals)
    }
}

#[tonic::async_trait]
impl Greeter for Scripted {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let reply = (self.say_hello)(request.into_inner().name).await?;
        Ok(self.response(reply))
    }

    type SayHelloStreamStream = Replies;

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Replies>, Status> {
        let replies = (self.say_hello_stream)(request.into_inner().name).await?;
        Ok(self.response(replies))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let reply = (self.collect_hellos)(request.into_inner()).await?;
        Ok(self.response(reply))
    }

    type ChatStream = Replies;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let replies = (self.chat)(request.into_inner()).await?;
        Ok(self.response(replies))
    }
}

pub(crate) struct Listening {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
}

pub(crate) async fn listen() -> (Listening, TcpIncoming, impl Future<Output = ()> + Send) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stopped = async {
        let _ = stopped.await;
    };
    (Listening { address, stop }, incoming, stopped)
}

impl Listening {
    pub(crate) fn running(
        self,
        server: JoinHandle<Result<(), tonic::transport::Error>>,
    ) -> Running {
        let Self { address, stop } = self;
        Running {
            address,
            stop,
            server,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    pub(crate) async fn client(&self) -> GreeterClient<Channel> {
        GreeterClient::new(self.endpoint().connect().await.unwrap())
    }

    /// A client whose calls go through `layer`.
    pub(crate) async fn observed_client(&self, layer: SentryClientLayer) -> ObservedClient {
        let layer = layer.endpoint(self.endpoint().uri().clone());
        GreeterClient::new(layer.layer(self.endpoint().connect().await.unwrap()))
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A client that leaves it to the server to end a call in time, as tonic's
    /// `Channel` does not.
    pub(crate) fn patient_client(&self) -> GreeterClient<PatientClient> {
        let client = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let origin = format!("http://{}", self.address).parse().unwrap();
        GreeterClient::with_origin(client, origin)
    }

    /// Returns once all connections have ended, and with them all calls.
    /// Clients must be gone.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap().unwrap();
    }
}
