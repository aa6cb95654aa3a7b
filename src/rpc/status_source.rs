//! The source of a status, on its way from a handler to the middleware.
//!
//! tonic writes the status of a stream to the trailers and drops the rest of it. So the metadata
//! of the status, which tonic copies into the trailers, holds an id, and a table holds the source
//! of each id. The value of the metadata owns its row in the table: the row is removed with the
//! last copy of the value, whether the status was sent or dropped.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

use crate::rpc::contained::contained;

type Source = Arc<dyn Error + Send + Sync>;

/// The key of the metadata that names the source of a status.
pub(crate) const KEY: HeaderName = HeaderName::from_static("x-sentry-tonic-source");

type Sources = HashMap<u64, Source>;

static SOURCES: LazyLock<Mutex<Sources>> = LazyLock::new(Mutex::default);

fn sources() -> MutexGuard<'static, Sources> {
    SOURCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The owner of a row in the table, and the text of its id.
struct Row {
    id: u64,
    text: String,
}

impl Row {
    fn new(source: Source) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        // A hash with secret keys: peers can neither guess an id nor count failures.
        let id = KEYS.hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
        sources().insert(id, source);
        Self {
            id,
            text: format!("{id:x}"),
        }
    }
}

impl AsRef<[u8]> for Row {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let source = sources().remove(&self.id);
        // A foreign error may do anything as it is dropped, so no lock is held.
        contained(|| drop(source));
    }
}

/// Makes `source` the source of `status`, and names it in the metadata.
pub(crate) fn attach(status: &mut Status, source: Source) {
    let id = Bytes::from_owner(Row::new(Arc::clone(&source)));
    status.set_source(source);
    if let Ok(mut id) = HeaderValue::from_maybe_shared(id) {
        // HPACK keeps no copy of a sensitive value.
        id.set_sensitive(true);
        status.metadata_mut().as_mut().insert(KEY, id);
    }
}

/// Removes what names the source of a status that a service failed with.
///
/// tonic's server makes a response of such an error, outside of all layers. It looks further into
/// the chain of sources, where nothing can be removed.
pub(crate) fn detach(error: &mut dyn Any) {
    let boxed = error.downcast_mut::<Box<dyn Error + Send + Sync>>();
    let status = match boxed {
        Some(boxed) => boxed.downcast_mut::<Status>(),
        None => error.downcast_mut::<Status>(),
    };
    if let Some(status) = status {
        status.metadata_mut().as_mut().remove(KEY);
    }
}

/// The source that the head or the trailers of a response name.
pub(crate) fn find(headers: &HeaderMap) -> Option<Source> {
    let text = headers.get(KEY)?.to_str().ok()?;
    let id = u64::from_str_radix(text, 16).ok()?;
    sources().get(&id).cloned()
}
