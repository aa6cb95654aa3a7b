//! What a handler adds to a status for Sentry.

use std::error::Error;
use std::sync::Arc;

use tonic::Status;

use crate::rpc;

type BoxError = Box<dyn Error + Send + Sync>;

/// Extends tonic's [`Status`] with what Sentry shows of a failed call.
///
/// Sealed: implemented for [`Status`] alone. tonic-types has a trait of the same name; to use
/// both, import them as `_`.
pub trait StatusExt: private::Sealed + Sized {
    /// Returns the status with `error` as its [source](Error::source), so that the error event of
    /// the call shows what caused the failure, with all sources of `error`.
    ///
    /// Works for a status that a handler returns, for one in a stream of responses, and for one
    /// that a spawned task sends into such a stream. tonic alone keeps the source of the first
    /// kind only. The last source counts.
    ///
    /// # Who sees what
    ///
    /// Sentry gets the type and the text of `error` and of its sources, if the call becomes an
    /// error event: by default for UNKNOWN, INTERNAL and DATA_LOSS, see
    /// [`capture_codes`](crate::SentryServerLayer::capture_codes). The caller gets the code, the
    /// message and the metadata of the status, and never sees `error`.
    ///
    /// The metadata contains a random id, `x-sentry-tonic-source`, until a
    /// [`SentryServerLayer`](crate::SentryServerLayer) removes it from the response. Callers see
    /// the id without that layer, for requests that the layer does not take for gRPC by their
    /// content type, and with [`SentryMakeSpan`](crate::SentryMakeSpan), which cannot change a
    /// response. The id means nothing outside of this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use sentry_tonic::StatusExt as _;
    /// use tonic::Status;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum DbError {
    ///     #[error("cannot read the table {0}")]
    ///     Read(&'static str, #[source] std::io::Error),
    /// }
    ///
    /// impl From<DbError> for Status {
    ///     fn from(error: DbError) -> Self {
    ///         Status::internal("the database failed").with_source(error)
    ///     }
    /// }
    ///
    /// fn rows() -> Result<Vec<String>, DbError> {
    ///     let torn = std::io::Error::other("checksum mismatch");
    ///     Err(DbError::Read("users", torn))
    /// }
    ///
    /// async fn list() -> Result<Vec<String>, Status> {
    ///     Ok(rows()?)
    /// }
    /// # let _ = list();
    /// ```
    #[must_use = "the status is returned, not changed in place"]
    fn with_source(self, error: impl Into<BoxError>) -> Self;
}

impl StatusExt for Status {
    fn with_source(mut self, error: impl Into<BoxError>) -> Self {
        rpc::attach_source(&mut self, Arc::from(error.into()));
        self
    }
}

mod private {
    pub trait Sealed {}

    impl Sealed for tonic::Status {}
}
