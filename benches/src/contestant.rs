//! The stacks that are compared.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Uri};
use sentry_tonic::{SentryClientLayer, SentryServerLayer};
use sentry_tower::{NewSentryLayer, SentryHttpLayer};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic_tracing_opentelemetry::middleware::{client as otel_client, server as otel_server};
use tower::{Layer, Service, ServiceBuilder};
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::Level;

use crate::Error;
use crate::greeter::WorkingGreeter;
use crate::helloworld::greeter_client::GreeterClient;
use crate::helloworld::greeter_server::GreeterServer;
use crate::plain_span::PlainSpanLayer;
use crate::upstream::Upstream;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contestant {
    /// No middleware and no subscriber.
    Bare,
    /// One span, and a layer that does nothing: the limit.
    PlainSpan,
    /// The same behind a filter of its own.
    PlainSpanFiltered,
    Ours,
    OursFiltered,
    OursWithTraceTransport,
    OursWithOtel,
    /// Our middleware over an OpenTelemetry layer alone.
    MiddlewareWithOtel,
    SentryTower,
    TowerHttp,
    TonicOtel,
}

impl Contestant {
    const NAMES: [(&'static str, Self); 11] = [
        ("bare", Self::Bare),
        ("plain-span", Self::PlainSpan),
        ("plain-span-filtered", Self::PlainSpanFiltered),
        ("ours", Self::Ours),
        ("ours-filtered", Self::OursFiltered),
        ("ours-with-trace-transport", Self::OursWithTraceTransport),
        ("ours-with-otel", Self::OursWithOtel),
        ("middleware-with-otel", Self::MiddlewareWithOtel),
        ("sentry-tower", Self::SentryTower),
        ("tower-http", Self::TowerHttp),
        ("tonic-otel", Self::TonicOtel),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    pub fn is_on_sentry(self) -> bool {
        match self {
            Self::Ours
            | Self::OursFiltered
            | Self::OursWithTraceTransport
            | Self::OursWithOtel
            | Self::SentryTower
            | Self::TowerHttp => true,
            Self::Bare
            | Self::PlainSpan
            | Self::PlainSpanFiltered
            | Self::MiddlewareWithOtel
            | Self::TonicOtel => false,
        }
    }

    pub fn is_on_otel(self) -> bool {
        matches!(
            self,
            Self::OursWithOtel | Self::MiddlewareWithOtel | Self::TonicOtel
        )
    }

    /// sentry-tower has nothing for clients.
    pub fn has_client(self) -> bool {
        self != Self::SentryTower
    }

    /// Puts the greeter behind the middleware of the contestant, and that to use.
    pub fn serve<D: Drive>(self, greeter: WorkingGreeter, drive: D) -> D::Output {
        let greeter = GreeterServer::new(greeter);
        match self {
            Self::Bare => drive.drive(greeter),
            Self::PlainSpan | Self::PlainSpanFiltered => drive.drive(PlainSpanLayer.layer(greeter)),
            Self::Ours
            | Self::OursFiltered
            | Self::OursWithTraceTransport
            | Self::OursWithOtel
            | Self::MiddlewareWithOtel => drive.drive(SentryServerLayer::new().layer(greeter)),
            Self::SentryTower => drive.drive(
                ServiceBuilder::new()
                    .layer(NewSentryLayer::<Request<Body>>::new_from_top())
                    .layer(SentryHttpLayer::new().enable_transaction())
                    .service(greeter),
            ),
            Self::TowerHttp => drive.drive(trace_layer().layer(greeter)),
            Self::TonicOtel => drive.drive(otel_server::OtelGrpcLayer::default().layer(greeter)),
        }
    }

    /// A client with the middleware of the contestant.
    pub fn connect<C>(self, channel: C) -> Arc<dyn Upstream>
    where
        C: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        C::Error: std::error::Error + Into<StdError> + Send + Sync + 'static,
        C::Future: Send,
    {
        let uri = Uri::from_static("http://greeter.example.com:50051");
        match self {
            Self::Bare | Self::SentryTower => client(channel, uri),
            Self::PlainSpan | Self::PlainSpanFiltered => {
                let boxing =
                    tower::ServiceExt::map_request(channel, |r: Request<_>| r.map(Body::new));
                client(PlainSpanLayer.layer(boxing), uri)
            }
            Self::Ours
            | Self::OursFiltered
            | Self::OursWithTraceTransport
            | Self::OursWithOtel
            | Self::MiddlewareWithOtel => {
                let layer = SentryClientLayer::new().endpoint(uri.clone());
                client(layer.layer(channel), uri)
            }
            Self::TowerHttp => client(trace_layer().layer(channel), uri),
            Self::TonicOtel => client(otel_client::OtelGrpcLayer.layer(channel), uri),
        }
    }
}

/// Its own default is DEBUG, of which Sentry would be told nothing.
fn trace_layer() -> TraceLayer<SharedClassifier<GrpcErrorsAsFailures>> {
    TraceLayer::new_for_grpc().make_span_with(DefaultMakeSpan::new().level(Level::INFO))
}

fn client<T>(service: T, uri: Uri) -> Arc<dyn Upstream>
where
    GreeterClient<T>: Upstream + 'static,
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    Arc::new(GreeterClient::with_origin(service, uri))
}

impl FromStr for Contestant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        Ok(found.ok_or_else(|| format!("no contestant: {text}"))?.1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sampling {
    On,
    Off,
    /// Nothing is bound that could send.
    NoClient,
}

impl Sampling {
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "sampled",
            Self::Off => "unsampled",
            Self::NoClient => "no-client",
        }
    }
}

impl FromStr for Sampling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::On, Self::Off, Self::NoClient];
        let found = all.into_iter().find(|sampling| sampling.name() == text);
        found.ok_or_else(|| format!("no sampling: {text}").into())
    }
}

/// What is done with a service, of whatever type.
pub trait Drive {
    type Output;

    fn drive<S, B>(self, service: S) -> Self::Output
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send;
}
