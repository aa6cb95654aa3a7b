//! Sentry's client with defaults for tonic services.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::time::Duration;

use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientInitGuard, ClientOptions};

use crate::send::TraceTransport;

/// How many envelopes wait for the transport. Sentry's default of 30 overflows in bursts of calls.
const QUEUE_CAPACITY: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// Sends about 400 envelopes where Sentry answers in 50 ms, and a full queue where it does in 20 ms.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Initializes Sentry as [`sentry::init`] does, with defaults for a tonic service. Returns a
/// guard that closes the client when it is dropped.
///
/// Two options have other defaults than in `sentry::init`. An option that the application has set
/// is never overridden.
///
/// | option | `sentry::init` | here |
/// |---|---|---|
/// | `transport` | `DefaultTransportFactory` | a [`TraceTransport`] around it, so that Sentry gets the sampling context of each trace |
/// | `transport_channel_capacity` | 30 envelopes | 1000 envelopes, so that a burst of calls is not lost |
///
/// Everything else is as in `sentry::init`: the default integrations, the environment variables
/// `SENTRY_DSN`, `SENTRY_RELEASE` and `SENTRY_ENVIRONMENT`, and what happens on a second call.
/// The transport is the one whose feature of `sentry` the application enables, such as `reqwest`
/// or `ureq`.
///
/// Call it first in `main`, outside of the Tokio runtime, and drop the guard last, so that calls
/// are reported that are still open when the runtime ends.
///
/// # Panics
///
/// As `sentry::init`: if the DSN in `options` is invalid, and if there is a DSN but `sentry` has
/// no feature for a transport. An invalid DSN in `SENTRY_DSN` is ignored.
///
/// # Examples
///
/// ```no_run
/// let _guard = sentry_tonic::init(
///     sentry::ClientOptions::new()
///         .dsn("https://key@o0.ingest.sentry.io/0")
///         .maybe_release(sentry::release_name!())
///         .traces_sample_rate(0.1),
/// );
/// ```
pub fn init(options: impl Into<ClientOptions>) -> InitGuard {
    let mut options = options.into();
    if options.transport.is_none() {
        options = options.transport(TraceTransport::new(DefaultTransportFactory));
    }
    options
        .transport_channel_capacity
        .get_or_insert(QUEUE_CAPACITY);
    InitGuard {
        client: sentry::init(options),
        close_timeout: CLOSE_TIMEOUT,
    }
}

/// Closes the client that [`init`] made when it is dropped. Dereferences to the [`Client`].
#[must_use = "dropping the guard closes the Sentry client: hold it until the servers have stopped"]
pub struct InitGuard {
    client: ClientInitGuard,
    close_timeout: Duration,
}

impl InitGuard {
    /// How long dropping the guard waits, at most, until all envelopes are sent.
    ///
    /// The `shutdown_timeout` of the client options is a different one: Sentry's panic integration
    /// waits up to that long on the thread that panics, so it should be short.
    ///
    /// Defaults to 20 seconds.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// let options = sentry::ClientOptions::new().traces_sample_rate(0.1);
    /// let _guard = sentry_tonic::init(options).close_timeout(Duration::from_secs(60));
    /// ```
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }
}

impl Deref for InitGuard {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for InitGuard {
    fn drop(&mut self) {
        // `ClientInitGuard` does so too late: after this has closed the client.
        sentry_core::end_session();
        self.client.close(Some(self.close_timeout));
    }
}

impl fmt::Debug for InitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitGuard")
            .field("is_enabled", &self.client.is_enabled())
            .field("close_timeout", &self.close_timeout)
            .finish()
    }
}
