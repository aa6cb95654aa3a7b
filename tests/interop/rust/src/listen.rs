//! The ways in which the Greeter is served.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_web::GrpcWebLayer;

use sentry_tonic::SentryServerLayer;

use crate::greeter::MyGreeter;
use crate::helloworld::greeter_server::GreeterServer;
use crate::upstream::LARGEST_MESSAGE;
use crate::{Error, say};

const USAGE: &str = "usage: peer [--tls <certificate> <key> | --unix <path> | --web]";

pub(crate) enum Listener {
    Tcp,
    Tls {
        certificate: PathBuf,
        key: PathBuf,
    },
    Unix(PathBuf),
    /// grpc-web, HTTP/1.1 included.
    Web,
}

#[derive(Serialize)]
struct Listening {
    listening: String,
}

impl Listener {
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, Error> {
        let arguments: Vec<String> = arguments.collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Tcp),
            ["--tls", certificate, key] => Ok(Self::Tls {
                certificate: certificate.into(),
                key: key.into(),
            }),
            ["--unix", path] => Ok(Self::Unix(path.into())),
            ["--web"] => Ok(Self::Web),
            _ => Err(format!("unknown arguments {arguments:?}, {USAGE}").into()),
        }
    }

    /// Until `stopped` says so.
    pub(crate) async fn serve(
        self,
        greeter: MyGreeter,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let stopped = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let server = Server::builder();
        let layer = SentryServerLayer::new();
        let routes = routes(greeter).await?;
        match self {
            Self::Tcp => {
                let server = server.layer(layer).add_routes(routes);
                server
                    .serve_with_incoming_shutdown(tcp("http").await?, stopped)
                    .await?;
            }
            Self::Tls { certificate, key } => {
                let identity = Identity::from_pem(std::fs::read(certificate)?, std::fs::read(key)?);
                let server = server
                    .tls_config(ServerTlsConfig::new().identity(identity))?
                    .layer(layer)
                    .add_routes(routes);
                server
                    .serve_with_incoming_shutdown(tcp("https").await?, stopped)
                    .await?;
            }
            Self::Unix(path) => {
                let incoming = UnixListenerStream::new(UnixListener::bind(&path)?);
                say(&Listening {
                    listening: format!("unix:{}", path.display()),
                });
                let server = server.layer(layer).add_routes(routes);
                server
                    .serve_with_incoming_shutdown(incoming, stopped)
                    .await?;
            }
            Self::Web => {
                let server = server
                    .accept_http1(true)
                    .layer(GrpcWebLayer::new())
                    .layer(layer)
                    .add_routes(routes);
                server
                    .serve_with_incoming_shutdown(tcp("http").await?, stopped)
                    .await?;
            }
        }
        Ok(())
    }
}

async fn tcp(scheme: &str) -> Result<TcpIncoming, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(&Listening {
        listening: format!("{scheme}://{}", listener.local_addr()?),
    });
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)))
}

async fn routes(greeter: MyGreeter) -> Result<Routes, Error> {
    let greeter = GreeterServer::new(greeter)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip);
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../examples/proto");
    let reflection = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(protox::compile(["helloworld.proto"], [proto])?)
        .build_v1()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<GreeterServer<MyGreeter>>().await;
    Ok(Routes::new(greeter)
        .add_service(health)
        .add_service(reflection))
}
