//! Channels of tonic inside the middleware.

use std::error::Error;
use std::sync::Arc;

use http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer;

use crate::client::layer::SentryClientLayer;
use crate::client::options::ClientLayerOptions;
use crate::client::service::SentryClientService;

/// tonic's [`Channel`] inside the client middleware: the type to name where a generated client is
/// stored.
///
/// [`channel`] and [`connect`] create one from an [`Endpoint`]. `SentryChannel::from` creates one
/// from a `Channel` that exists already, such as a balanced one, without an address of the server.
/// For other options, put a [`SentryClientLayer`] around the `Channel`: the type is the same.
///
/// ```
/// # mod helloworld {
/// #     #[derive(Debug, Clone)]
/// #     pub struct GreeterClient<T>(T);
/// #     impl<T> GreeterClient<T> {
/// #         pub fn new(channel: T) -> Self { Self(channel) }
/// #     }
/// # }
/// use helloworld::GreeterClient;
/// use sentry_tonic::SentryChannel;
/// use tonic::transport::Channel;
///
/// struct Shop {
///     greeter: GreeterClient<SentryChannel>,
/// }
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let servers = ["http://[::1]:50051", "http://[::1]:50052"];
/// let channel = Channel::balance_list(servers.into_iter().map(Channel::from_static));
/// let shop = Shop {
///     greeter: GreeterClient::new(SentryChannel::from(channel)),
/// };
/// # let _ = shop.greeter.clone();
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub type SentryChannel = SentryClientService<Channel>;

impl From<Channel> for SentryChannel {
    /// Puts the middleware with default options around a channel. It does not know the server:
    /// spans have no `server.address`.
    fn from(channel: Channel) -> Self {
        Self::new(channel, Arc::new(ClientLayerOptions::default()))
    }
}

/// A channel to `endpoint` inside the client middleware, which connects when it is first used.
///
/// It is [`Endpoint::connect_lazy`] inside a [`SentryClientLayer`] that knows the endpoint's URI,
/// with all other options at their defaults. A [`Uri`] is an endpoint too. If the connection
/// fails, the calls fail with UNAVAILABLE.
///
/// Spans have no `server.address` for a Unix socket, and for the URI `http://tonic`, which tonic
/// gives each Unix socket.
///
/// # Panics
///
/// Outside of a Tokio runtime, as `Endpoint::connect_lazy` does.
///
/// # Examples
///
/// ```
/// use tonic::transport::Endpoint;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let channel = sentry_tonic::channel(Endpoint::from_static("http://[::1]:50051"));
/// // let client = GreeterClient::new(channel);
/// # let _ = channel;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn channel(endpoint: impl Into<Endpoint>) -> SentryChannel {
    let endpoint = endpoint.into();
    layer_of(&endpoint).layer(endpoint.connect_lazy())
}

/// Connects to `endpoint`, and returns the channel inside the client middleware.
///
/// It does what the generated `GreeterClient::connect` does, with the middleware that
/// [`channel`] has. The connection itself is not traced.
///
/// # Errors
///
/// Returns tonic's error if the endpoint is invalid or the connection fails.
///
/// # Examples
///
/// ```no_run
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let channel = sentry_tonic::connect("http://[::1]:50051").await?;
/// // let client = GreeterClient::new(channel);
/// # let _ = channel;
/// # Ok::<(), tonic::transport::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn connect<E>(endpoint: E) -> Result<SentryChannel, tonic::transport::Error>
where
    E: TryInto<Endpoint>,
    E::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let endpoint = Endpoint::new(endpoint)?;
    let channel = endpoint.connect().await?;
    Ok(layer_of(&endpoint).layer(channel))
}

fn layer_of(endpoint: &Endpoint) -> SentryClientLayer {
    // tonic's placeholder for a Unix socket, which has no address.
    let unix = Uri::from_static("http://tonic");
    match endpoint.uri() {
        uri if *uri == unix => SentryClientLayer::new(),
        uri => SentryClientLayer::new().endpoint(uri.clone()),
    }
}
