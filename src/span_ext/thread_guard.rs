//! Tells when nothing may be recorded on a thread: while Sentry calls back into user code, and
//! while the thread's locals are destroyed.

use std::cell::Cell;
use std::sync::LazyLock;

use sentry_core::Hub;
use tracing::Subscriber;
use tracing::span::Id;
use tracing_subscriber::Registry;

use crate::rpc;

struct ThreadGuard {
    /// Set while sentry-core works for us, and may call back into user code.
    busy: Cell<bool>,
    /// Whether the thread had its hub when this was made.
    has_hub: bool,
}

impl Drop for ThreadGuard {
    /// Notes that the thread locals are being destroyed: `IS_GONE` itself, without a destructor,
    /// outlives them.
    fn drop(&mut self) {
        IS_GONE.set(true);
    }
}

/// Is entered below, and is nobody's subscriber.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);

thread_local! {
    static IS_GONE: Cell<bool> = const { Cell::new(false) };

    // sentry-core's thread-local hub panics if it is used once it is destroyed. Thread locals are
    // destroyed in the reverse order in which they were made. So this one makes the hub first,
    // and is destroyed before it: while this one is there, the hub is.
    static GUARD: ThreadGuard = {
        // A registry keeps the number of the thread in another thread local, made as the first
        // span is entered, and panics once that is destroyed: it is made first, too.
        let span = Id::from_u64(1);
        rpc::contained(|| {
            REGISTRY.enter(&span);
            REGISTRY.exit(&span);
        });
        ThreadGuard {
            busy: Cell::new(false),
            has_hub: rpc::contained(Hub::current).is_some(),
        }
    };
}

/// Whether this thread has traced, and its locals are gone: no span can be made or entered.
pub(crate) fn is_thread_gone() -> bool {
    IS_GONE.get()
}

/// Whether this thread has its hub: not while its thread locals are destroyed.
pub(crate) fn is_thread_alive() -> bool {
    GUARD.try_with(|guard| guard.has_hub).unwrap_or(false)
}

/// Whether this thread is alive and not inside a callback of Sentry.
pub(crate) fn is_thread_free() -> bool {
    GUARD
        .try_with(|guard| guard.has_hub && !guard.busy.get())
        .unwrap_or(false)
}

/// Runs what may call user code by way of Sentry: a sampler, `before_send`, a transport.
/// `None` where it panics: the observed call must not. What that code traces is not recorded, as
/// that would call it again.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    let before = set_busy(true);
    let result = rpc::contained(f);
    set_busy(before);
    result
}

fn set_busy(busy: bool) -> bool {
    GUARD
        .try_with(|guard| guard.busy.replace(busy))
        .unwrap_or(true)
}
