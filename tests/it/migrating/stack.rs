//! What calls are watched by.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Uri;
use tonic::Status;
use tonic::transport::Channel;
use tower::Layer;

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Running, Scripted};
use crate::support::helloworld::HelloReply;

/// Calls the second server.
pub(crate) type Upstream = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<HelloReply, Status>> + Send>>
        + Send
        + Sync,
>;

/// A middleware for servers, and one for clients.
pub(crate) trait Stack {
    async fn serve(&self, greeter: Scripted) -> Running;

    fn upstream(&self, channel: Channel, uri: Uri) -> Upstream;
}

/// A greeter behind a layer, on a free port of loopback.
macro_rules! serve {
    ($greeter:expr, $layer:expr) => {{
        let (listening, incoming, stopped) = $crate::support::greeter::listen().await;
        let greeter = $crate::support::helloworld::greeter_server::GreeterServer::new($greeter);
        let server = ::tonic::transport::Server::builder()
            .layer($layer)
            .add_service(greeter)
            .serve_with_incoming_shutdown(incoming, stopped);
        listening.running(::tokio::spawn(server))
    }};
}

/// A client over a channel, of whatever type.
macro_rules! upstream {
    ($channel:expr) => {{
        let client = $crate::support::helloworld::greeter_client::GreeterClient::new($channel);
        let upstream: $crate::migrating::stack::Upstream = ::std::sync::Arc::new(move |name| {
            let mut client = client.clone();
            Box::pin(async move {
                let request = $crate::support::helloworld::HelloRequest { name };
                Ok(client.say_hello(request).await?.into_inner())
            })
        });
        upstream
    }};
}

pub(crate) use {serve, upstream};

/// This crate's middleware.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ours {
    pub(crate) server: SentryServerLayer,
    pub(crate) client: SentryClientLayer,
}

impl Stack for Ours {
    async fn serve(&self, greeter: Scripted) -> Running {
        greeter.serve_with(self.server.clone()).await
    }

    fn upstream(&self, channel: Channel, uri: Uri) -> Upstream {
        upstream!(self.client.clone().endpoint(uri).layer(channel))
    }
}

/// What Sentry is told by it, with a `SentryTracingLayer`.
pub(crate) const OURS: &str = include_str!("ours.txt");
