//! Serves a contestant on loopback, and calls it as fast as it answers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tower::Service;

use crate::Error;
use crate::contestant::{Contestant, Drive};
use crate::greeter::WorkingGreeter;
use crate::upstream::Upstream;
use crate::work::{Step, Work};

const CONNECTIONS: usize = 4;
const CONCURRENT_CALLS: usize = 64;

/// What came of some time of calling.
pub struct Round {
    pub calls: usize,
    pub calls_per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// A running server, and the clients of it.
pub struct Pair {
    clients: Vec<Arc<dyn Upstream>>,
}

impl Pair {
    /// With the middleware of `server` and `client` on either side.
    pub async fn start(server: Contestant, client: Contestant) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let greeter = WorkingGreeter {
            work: Work::new(0, Step::Child, 0),
            upstream: None,
        };
        server.serve(greeter, Serve { listener });
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(client.connect(connect(address).await?));
        }
        Ok(Self { clients })
    }

    pub async fn call_for(&self, time: Duration) -> Result<Round, Error> {
        let start = Instant::now();
        let clients = self.clients.iter().cycle().take(CONCURRENT_CALLS);
        let callers: Vec<_> = clients
            .map(|client| tokio::spawn(call_until(Arc::clone(client), start + time)))
            .collect();
        let mut latencies = Vec::new();
        for caller in callers {
            latencies.extend(caller.await??);
        }
        let seconds = start.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        Ok(Round {
            calls: latencies.len(),
            calls_per_second: latencies.len() as f64 / seconds,
            p50: percentile(50),
            p99: percentile(99),
        })
    }
}

async fn connect(address: SocketAddr) -> Result<tonic::transport::Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
}

async fn call_until(client: Arc<dyn Upstream>, end: Instant) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::new();
    let mut start = Instant::now();
    while start < end {
        client.greet().await?;
        let now = Instant::now();
        latencies.push(now - start);
        start = now;
    }
    Ok(latencies)
}

struct Serve {
    listener: TcpListener,
}

impl Drive for Serve {
    type Output = ();

    fn drive<S, B>(self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let server = Server::builder().add_service(Named(service));
        // It ends with its runtime.
        tokio::spawn(server.serve_with_incoming(incoming));
    }
}

/// Middleware of others forgets the name of the service in it.
#[derive(Clone)]
struct Named<S>(S);

impl<S> NamedService for Named<S> {
    const NAME: &'static str = crate::helloworld::greeter_server::SERVICE_NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}
