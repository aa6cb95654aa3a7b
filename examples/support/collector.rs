//! An OpenTelemetry collector on loopback: takes spans by OTLP over gRPC, as those
//! of vendors do, and keeps them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A running collector. It stops with the process.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    received: Received,
}

#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens on a free port, on a thread and a runtime of its own: it outlives the
    /// runtime of the application, as a collector does.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let received = Received::default();
        let service = TraceServiceServer::new(received.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    let server = Server::builder().add_service(service);
                    let served = server.serve_with_incoming(incoming).await;
                    served.map_err(io::Error::other)
                })
            })?;
        Ok(Self { address, received })
    }

    /// Where an exporter finds it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was received so far, in the order of arrival.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let spans = self.received.0.lock();
        spans.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let of_resources = request.into_inner().resource_spans.into_iter();
        let of_scopes = of_resources.flat_map(|resource| resource.scope_spans);
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend(of_scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
