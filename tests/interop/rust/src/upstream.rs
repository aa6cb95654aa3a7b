//! Clients whose calls are observed.

use std::collections::HashMap;
use std::sync::Mutex;

use sentry_tonic::{SentryClientLayer, SentryClientService};
use serde::Deserialize;
use tokio_stream::StreamExt;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tower::Layer;

use crate::Error;
use crate::helloworld::greeter_client::GreeterClient;
use crate::helloworld::{HelloReply, HelloRequest};

/// What the other servers of a route are named in.
pub(crate) const ROUTE: &str = "x-route";

pub(crate) const LARGEST_MESSAGE: usize = 64 << 20;

pub(crate) type Upstream = GreeterClient<SentryClientService<Channel>>;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    Bidi,
}

impl Kind {
    /// What is sent.
    pub(crate) fn names(self, name: &str) -> Vec<String> {
        let count = match self {
            Self::Unary | Self::ServerStream => 1,
            Self::ClientStream | Self::Bidi => 3,
        };
        vec![name.to_owned(); count]
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

impl From<Compression> for CompressionEncoding {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) metadata: MetadataMap,
    pub(crate) compression: Option<CompressionEncoding>,
}

/// All that came of a call.
pub(crate) struct Answer {
    pub(crate) replies: Vec<String>,
    pub(crate) failure: Option<Status>,
}

/// One client for each server, made when it is first needed.
pub(crate) struct Upstreams {
    clients: Mutex<HashMap<String, Upstream>>,
    certificate: Option<Certificate>,
}

impl Upstreams {
    /// `PEER_CA` is a file with the certificate that servers at `https` show.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let certificate = match std::env::var_os("PEER_CA") {
            Some(path) => Some(Certificate::from_pem(std::fs::read(path)?)),
            None => None,
        };
        Ok(Self {
            clients: Mutex::default(),
            certificate,
        })
    }

    pub(crate) fn client(&self, uri: &str) -> Result<Upstream, Error> {
        let mut clients = self.clients.lock().expect("nothing panics under it");
        if let Some(client) = clients.get(uri) {
            return Ok(client.clone());
        }
        let mut endpoint = Endpoint::from_shared(uri.to_owned())?;
        if uri.starts_with("https:")
            && let Some(certificate) = &self.certificate
        {
            let tls = ClientTlsConfig::new().ca_certificate(certificate.clone());
            endpoint = endpoint.tls_config(tls)?;
        }
        let mut layer = SentryClientLayer::new();
        if !uri.starts_with("unix:") {
            layer = layer.endpoint(endpoint.uri().clone());
        }
        let client = GreeterClient::new(layer.layer(endpoint.connect_lazy()))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        clients.insert(uri.to_owned(), client.clone());
        Ok(client)
    }

    /// Calls the first server of the route. An error means that no call could be
    /// made.
    pub(crate) async fn call(
        &self,
        route: &[String],
        call: Call,
        names: Vec<String>,
    ) -> Result<Answer, Error> {
        let (server, others) = route.split_first().ok_or("the route is empty")?;
        let mut client = self.client(server)?;
        if let Some(encoding) = call.compression {
            client = client.send_compressed(encoding);
        }
        let mut metadata = call.metadata;
        if !others.is_empty() {
            metadata.insert(ROUTE, others.join(",").parse()?);
        }
        let mut replies = Vec::new();
        let result = match open(client, call.kind, metadata, names).await {
            Ok(Replies::One(reply)) => {
                replies.push(reply.message);
                Ok(())
            }
            Ok(Replies::Many(stream)) => collect(*stream, &mut replies).await,
            Err(status) => Err(status),
        };
        Ok(Answer {
            replies,
            failure: result.err(),
        })
    }
}

pub(crate) enum Replies {
    One(HelloReply),
    Many(Box<Streaming<HelloReply>>),
}

/// A call of `kind`, up to the head of its response.
pub(crate) async fn open(
    mut client: Upstream,
    kind: Kind,
    metadata: MetadataMap,
    names: Vec<String>,
) -> Result<Replies, Status> {
    match kind {
        Kind::Unary => {
            let request = with(
                metadata,
                hello(names.into_iter().next().unwrap_or_default()),
            );
            client.say_hello(request).await.map(one)
        }
        Kind::ServerStream => {
            let request = with(
                metadata,
                hello(names.into_iter().next().unwrap_or_default()),
            );
            client.say_hello_stream(request).await.map(many)
        }
        Kind::ClientStream => {
            let requests = with(metadata, tokio_stream::iter(names).map(hello));
            client.collect_hellos(requests).await.map(one)
        }
        Kind::Bidi => {
            let requests = with(metadata, tokio_stream::iter(names).map(hello));
            client.chat(requests).await.map(many)
        }
    }
}

fn with<T>(metadata: MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata;
    request
}

fn hello(name: String) -> HelloRequest {
    HelloRequest { name }
}

fn one(response: Response<HelloReply>) -> Replies {
    Replies::One(response.into_inner())
}

fn many(response: Response<Streaming<HelloReply>>) -> Replies {
    Replies::Many(Box::new(response.into_inner()))
}

async fn collect(
    mut stream: Streaming<HelloReply>,
    replies: &mut Vec<String>,
) -> Result<(), Status> {
    while let Some(reply) = stream.next().await {
        replies.push(reply?.message);
    }
    Ok(())
}
