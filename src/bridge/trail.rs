//! What a local root leaves behind for the errors in it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sentry_core::protocol::{Context, Event, Map, TraceId, Value};
use sentry_core::types::Uuid;
use sentry_core::{Breadcrumb, Client, Hub, TransactionOrSpan};

use crate::bridge::local_root::LocalRoot;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::thread_stack;
use crate::bridge::told::Told;
use crate::bridge::trace_transport;
use crate::bridge::trails;
use crate::fields;
use crate::propagation::{SamplingContext, TraceHeaders};

/// Tells one living trail from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrailId(usize);

thread_local! {
    /// The trail of the root whose span this thread is in.
    static CURRENT: Cell<TrailId> = const { Cell::new(TrailId::NOBODY) };
}

/// Sets the trail of the root whose span this thread is in, and returns the
/// one before.
pub(crate) fn set_current(trail: TrailId) -> TrailId {
    CURRENT
        .try_with(|current| current.replace(trail))
        .unwrap_or(TrailId::NOBODY)
}

impl TrailId {
    const NOBODY: Self = Self(0);
}

/// The story of a local root, for every event captured in it on whatever
/// thread.
#[derive(Debug)]
pub(crate) struct Trail {
    trace: RootTrace,
    /// What the root's hub was forked from.
    base: Arc<Hub>,
    /// Whether the root is a transaction.
    is_transaction: bool,
    root: OnceLock<Weak<LocalRoot>>,
    /// The transaction has been sent.
    is_over: AtomicBool,
    /// Of the RPC that the root is.
    pub(crate) told: Told,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breadcrumbs: VecDeque<Breadcrumb>,
    /// Set where the local root is a transaction.
    transaction: Option<String>,
    rpc: Option<Rpc>,
}

#[derive(Debug)]
struct Rpc {
    service: String,
    method: String,
}

impl Trail {
    pub(crate) fn new(
        trace: RootTrace,
        base: &Arc<Hub>,
        is_transaction: bool,
        is_rpc: bool,
    ) -> Arc<Self> {
        let trail = Arc::new(Self {
            trace,
            base: Arc::clone(base),
            is_transaction,
            root: OnceLock::new(),
            is_over: AtomicBool::new(false),
            told: if is_rpc {
                Told::default()
            } else {
                Told::closed()
            },
            state: Mutex::default(),
        });
        if is_transaction {
            trails::add(trail.trace.root_id(), &trail);
        }
        trail
    }

    pub(crate) fn set_root(&self, root: &Arc<LocalRoot>) {
        let _ = self.root.set(Arc::downgrade(root));
    }

    /// The root, while it takes spans.
    pub(crate) fn root(&self) -> Option<Arc<LocalRoot>> {
        let root = self.root.get()?.upgrade()?;
        (!self.is_over()).then_some(root)
    }

    pub(crate) fn base(&self) -> &Arc<Hub> {
        &self.base
    }

    /// What is said of the trace; `name` is that of the transaction, where it is
    /// better known than here.
    pub(crate) fn sampling_context(&self, name: Option<&str>) -> &SamplingContext {
        let own = || self.transaction();
        self.trace
            .sampling_context(|| name.map(str::to_owned).or_else(own))
    }

    /// What goes from `span` to another service. Spans of a transaction that has
    /// been sent are not sent any more: it speaks for them.
    pub(crate) fn headers(&self, span: &TransactionOrSpan) -> TraceHeaders {
        let span = (!self.is_over()).then_some(span);
        self.trace.headers(span, || self.transaction())
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.trace.trace_id()
    }

    /// Whether the transaction has been sent.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    pub(crate) fn set_over(&self) {
        self.is_over.store(self.is_transaction, Ordering::Release);
    }

    fn transaction(&self) -> Option<String> {
        self.lock().transaction.clone()
    }

    pub(crate) fn id(self: &Arc<Self>) -> TrailId {
        TrailId(Arc::as_ptr(self).addr())
    }

    pub(crate) fn set_transaction(&self, name: &str) {
        self.lock().transaction = Some(name.to_owned());
    }

    pub(crate) fn set_rpc(&self, service: &str, method: &str) {
        self.lock().rpc = Some(Rpc {
            service: service.to_owned(),
            method: method.to_owned(),
        });
    }

    /// Adds a breadcrumb within the limits that `client` sets.
    pub(crate) fn add_breadcrumb(&self, breadcrumb: Breadcrumb, client: &Client) {
        let options = client.options();
        let Some(breadcrumb) = (match &options.before_breadcrumb {
            Some(before) => before(breadcrumb),
            None => Some(breadcrumb),
        }) else {
            return;
        };
        let mut state = self.lock();
        state.breadcrumbs.push_back(breadcrumb);
        let surplus = state
            .breadcrumbs
            .len()
            .saturating_sub(options.max_breadcrumbs);
        state.breadcrumbs.drain(..surplus);
    }

    /// An event processor that adds this trail to events.
    ///
    /// A hub that the application forked in one root and uses in another has
    /// the processor of the first: it leaves events alone while the thread is in
    /// a span of another root.
    pub(crate) fn processor(
        self: &Arc<Self>,
        max_breadcrumbs: usize,
    ) -> impl Fn(Event<'static>) -> Option<Event<'static>> + Send + Sync + use<> {
        let trail = Arc::clone(self);
        move |mut event| {
            let current = CURRENT.try_with(Cell::get).unwrap_or(TrailId::NOBODY);
            if current == TrailId::NOBODY || current == trail.id() {
                trail.note(event.event_id);
                trail.apply(&mut event, max_breadcrumbs);
                if let Some(Context::Trace(trace)) = event.contexts.get("trace")
                    && trace.trace_id == trail.trace_id()
                {
                    trace_transport::expect_event(event.event_id, &trail);
                }
            }
            Some(event)
        }
    }

    /// An event of the root is about to be sent from the current hub.
    fn note(&self, event: Uuid) {
        let hub = Hub::current();
        self.told.note(event, &hub);
        if let Some(root) = self.root.get().and_then(Weak::upgrade)
            && let Some(cell) = thread_stack::last_in(&root)
        {
            cell.note_event(&root, event, &hub);
        }
    }

    fn apply(&self, event: &mut Event<'static>, max_breadcrumbs: usize) {
        let state = self.lock();
        if !state.breadcrumbs.is_empty() {
            let breadcrumbs = &mut event.breadcrumbs.values;
            breadcrumbs.extend(state.breadcrumbs.iter().cloned());
            breadcrumbs.sort_by_key(|breadcrumb| breadcrumb.timestamp);
            let surplus = breadcrumbs.len().saturating_sub(max_breadcrumbs);
            breadcrumbs.drain(..surplus);
        }
        if event.transaction.is_none() {
            event.transaction.clone_from(&state.transaction);
        }
        if let Some(Rpc { service, method }) = &state.rpc {
            for (key, value) in [(fields::RPC_SERVICE, service), (fields::RPC_METHOD, method)] {
                event
                    .tags
                    .entry(key.to_owned())
                    .or_insert_with(|| value.clone());
            }
            event.contexts.entry("rpc".to_owned()).or_insert_with(|| {
                Context::Other(Map::from([
                    ("system".to_owned(), Value::from("grpc")),
                    ("service".to_owned(), Value::from(service.as_str())),
                    ("method".to_owned(), Value::from(method.as_str())),
                ]))
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if self.is_transaction {
            trails::remove(self.trace.root_id());
        }
    }
}
