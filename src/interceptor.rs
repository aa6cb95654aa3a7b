//! An interceptor, for clients that cannot take a tower layer.

use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::Span;

use crate::span_ext;

/// Takes the trace of the current span to the server, for a client whose stack
/// has no place for a [`SentryClientLayer`](crate::SentryClientLayer).
///
/// Sets `sentry-trace`, and adds to `baggage`, as that does. It opens no span of
/// its own, for an interceptor sees no response: in Sentry the server's part of
/// the trace hangs below the span in which the call was made. Never fails a call.
///
/// ```
/// use sentry_tonic::TracePropagationInterceptor;
/// use tonic::service::interceptor::InterceptedService;
/// use tonic::transport::Channel;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let channel = Channel::from_static("http://[::1]:50051").connect_lazy();
/// let service = InterceptedService::new(channel, TracePropagationInterceptor::new());
/// // or: GreeterClient::with_interceptor(channel, TracePropagationInterceptor::new())
/// # let _ = service;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TracePropagationInterceptor {
    traceparent: bool,
}

impl TracePropagationInterceptor {
    /// An interceptor that reads the current span at each call.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether calls carry `traceparent` too, as with
    /// [`SentryClientLayer::propagate_traceparent`](crate::SentryClientLayer::propagate_traceparent).
    ///
    /// Defaults to `false`.
    #[must_use]
    pub fn propagate_traceparent(self, propagate: bool) -> Self {
        Self {
            traceparent: propagate,
        }
    }
}

impl Interceptor for TracePropagationInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut().as_mut();
        span_ext::inject(&Span::current(), self.traceparent, headers);
        Ok(request)
    }
}
