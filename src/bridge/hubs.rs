//! Which hub a local root starts from.

use std::sync::Arc;

use sentry_core::Hub;

/// A hub whose client can send. A closed client is no client.
pub(crate) fn is_enabled(hub: &Hub) -> bool {
    hub.client().is_some_and(|client| client.is_enabled())
}

/// The pinned hub; else the current one; else the main one, for worker threads whose hub was
/// made before the application had a client. `None` where nothing can be sent.
pub(crate) fn base_hub(pinned: Option<&Arc<Hub>>) -> Option<Arc<Hub>> {
    let enabled = |hub: Arc<Hub>| is_enabled(&hub).then_some(hub);
    match pinned {
        Some(hub) => enabled(Arc::clone(hub)),
        None => enabled(Hub::current()).or_else(|| enabled(Hub::main())),
    }
}
