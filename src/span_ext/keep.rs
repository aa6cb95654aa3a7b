//! The sources of failures that tonic does not keep.

use tonic::Status;
use tracing::Span;

use crate::span_ext::sink::nearest_sink;
use crate::span_ext::thread_guard;

/// Keeps the [source](Status::set_source) of the status that a stream of replies
/// fails with, for the error event of the call. Returns the status as it is.
///
/// tonic keeps the source of a status with which a handler fails; but one that a
/// stream fails with is written to the trailers, which have no place for it. This
/// keeps it in the call around the current span, the last one of a call counts, and
/// only if the call fails with that very code and message.
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
