//! Keeps sources of failures that tonic drops.

use tonic::Status;
use tracing::Span;

use crate::span_ext::sink::nearest_sink;
use crate::span_ext::thread_guard;

/// Keeps the [source](Status::set_source) of the status that a stream of replies
/// fails with, for the error event of the call. Returns the status as it is.
///
/// tonic keeps the source of a status that a handler returns. But a status that a stream fails
/// with is written to the trailers, which have no place for a source. This function keeps it in
/// the call around the current span. The last one that is kept counts, and only if the call
/// fails with the same code and message.
///
/// ```
/// use std::sync::Arc;
///
/// use sentry_tonic::keep_source;
/// use tokio_stream::{Stream, StreamExt};
/// use tonic::Status;
///
/// fn replies(
///     rows: impl Stream<Item = std::io::Result<String>>,
/// ) -> impl Stream<Item = Result<String, Status>> {
///     rows.map(|row| {
///         row.map_err(|error| {
///             let mut status = Status::data_loss("the table is damaged");
///             status.set_source(Arc::new(error));
///             keep_source(status)
///         })
///     })
/// }
/// # let _ = replies(tokio_stream::empty());
/// ```
///
/// Does nothing where the status has no source, outside of a call, and where no
/// [`SentryGrpcLayer`](crate::SentryGrpcLayer) records the call.
#[must_use = "the status is for the caller"]
pub fn keep_source(status: Status) -> Status {
    if std::error::Error::source(&status).is_some()
        && thread_guard::is_thread_free()
        && let Some(sink) = nearest_sink(&Span::current())
    {
        sink.keep_status(status.clone());
    }
    status
}
