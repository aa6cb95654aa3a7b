//! Keeps a call with its span, until the span closes: for callbacks that receive the span alone.

use std::any::Any;
use std::sync::Arc;

use tracing::Span;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{ExtensionsMut, LookupSpan};

/// A call that is kept with its span.
pub(crate) trait Parked: Any + Send + Sync {
    /// Called if the span closes before the call has ended.
    fn close(&self, has_panicked: bool);
}

/// The extension by which a span leads to what is [`Parked`] with it.
pub(crate) struct ParkedLink(pub(crate) Arc<dyn Parked>);

/// Keeps what `make` returns with `span`. `make` is not called for a span that nobody records.
pub(crate) fn park(span: &Span, make: impl FnOnce() -> Arc<dyn Parked>) {
    with_extensions(span, |mut extensions| {
        extensions.replace(ParkedLink(make()));
    });
}

/// What was kept with `span`.
pub(crate) fn parked<T: Parked>(span: &Span) -> Option<Arc<T>> {
    let parked = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let parked: Arc<dyn Any + Send + Sync> = span.extensions().get::<ParkedLink>()?.0.clone();
        Some(parked)
    });
    parked.flatten()?.downcast().ok()
}

pub(crate) fn unpark(span: &Span) {
    with_extensions(span, |mut extensions| extensions.remove::<ParkedLink>());
}

fn with_extensions<T>(span: &Span, f: impl FnOnce(ExtensionsMut<'_>) -> T) {
    span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        Some(f(span.extensions_mut()))
    });
}
