//! Calls that are observed on one side.

use std::sync::Arc;

use http::HeaderName;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{ObservedClient, Replies, Scripted, reply, request};

/// The side that is observed, by its layer.
#[derive(Debug, Clone)]
pub(crate) enum Observed {
    Server(SentryServerLayer),
    Client(SentryClientLayer),
}

/// Both sides, with a layer that is told the same.
macro_rules! on_both_sides {
    (|$layer:ident| $told:expr) => {
        [
            $crate::support::observed::Observed::Server({
                let $layer = ::sentry_tonic::SentryServerLayer::new();
                $told
            }),
            $crate::support::observed::Observed::Client({
                let $layer = ::sentry_tonic::SentryClientLayer::new();
                $told
            }),
        ]
    };
}

pub(crate) use on_both_sides;

impl Observed {
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Serves, makes calls, and stops.
    pub(crate) async fn run<T>(
        &self,
        greeter: Scripted,
        calls: impl AsyncFnOnce(ObservedClient) -> T,
    ) -> T {
        let (server, layer) = match self.clone() {
            Self::Server(layer) => (
                greeter.serve_with(layer).await,
                SentryClientLayer::new().ignore_if(|_| true),
            ),
            Self::Client(layer) => (greeter.serve_unobserved().await.0, layer),
        };
        let result = calls(server.observed_client(layer).await).await;
        server.stop().await;
        result
    }

    /// Makes one call, with this metadata.
    pub(crate) async fn call(
        &self,
        greeter: Scripted,
        kind: Kind,
        metadata: MetadataMap,
    ) -> Result<(), Status> {
        let call = async |mut client| kind.call(&mut client, metadata).await;
        self.run(greeter, call).await
    }
}

/// Of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    Stream,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Unary, Kind::Stream];

impl Kind {
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Unary => "SayHello",
            Self::Stream => "SayHelloStream",
        }
    }

    /// Makes a call, to its end.
    pub(crate) async fn call(
        self,
        client: &mut ObservedClient,
        metadata: MetadataMap,
    ) -> Result<(), Status> {
        let request = Request::from_parts(metadata, Default::default(), request("Ferris"));
        match self {
            Self::Unary => client.say_hello(request).await.map(drop),
            Self::Stream => {
                let mut replies = client.say_hello_stream(request).await?.into_inner();
                while replies.message().await?.is_some() {}
                Ok(())
            }
        }
    }
}

/// Fails with what `end` returns; in a stream after a reply.
pub(crate) fn failing(end: impl Fn() -> Status + Send + Sync + 'static) -> Scripted {
    let end = Arc::new(end);
    let in_stream = Arc::clone(&end);
    Scripted::new()
        .say_hello(move |_| {
            let end = Arc::clone(&end);
            async move { Err(end()) }
        })
        .say_hello_stream(move |name| {
            let end = Arc::clone(&in_stream);
            async move {
                let replies = tokio_stream::iter([true, false]);
                let replies = replies.map(move |is_reply| match is_reply {
                    true => Ok(reply(&name)),
                    false => Err(end()),
                });
                Ok(Box::pin(replies) as Replies)
            }
        })
}

/// Keys of metadata.
pub(crate) fn keys<const N: usize>(names: [&'static str; N]) -> [HeaderName; N] {
    names.map(HeaderName::from_static)
}

/// Metadata with these entries; those of keys that end in `-bin` are bytes.
pub(crate) fn metadata(entries: &[(&'static str, &str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for &(key, value) in entries {
        if key.ends_with("-bin") {
            let bytes = tonic::metadata::MetadataValue::from_bytes(value.as_bytes());
            metadata.append_bin(key, bytes);
        } else {
            metadata.append(key, value.parse().unwrap());
        }
    }
    metadata
}
