//! What a local root leaves behind for the errors in it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sentry_core::protocol::{Context, Event, SpanId, TraceId, User};
use sentry_core::{Breadcrumb, Client, Hub, TransactionOrSpan};

use crate::bridge::breadcrumb;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::place::Place;
use crate::bridge::repeats::{Failure, Source};
use crate::bridge::root_trace::RootTrace;
use crate::bridge::told::Told;
use crate::bridge::trace_transport;
use crate::bridge::trails;
use crate::fields;
use crate::propagation::{SamplingContext, TraceHeaders};
use crate::report;
use crate::span_ext::{self, RpcStart};

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
    /// Whether a failure that was told is not told again.
    is_told_once: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breadcrumbs: VecDeque<Breadcrumb>,
    /// Set where the local root is a transaction.
    transaction: Option<String>,
    /// Set where the local root is an RPC.
    rpc: Option<Arc<RpcStart>>,
    /// Those of fields.
    tags: Vec<(String, String)>,
    user: Option<User>,
}

impl Trail {
    pub(crate) fn new(
        trace: RootTrace,
        base: &Arc<Hub>,
        is_transaction: bool,
        told: Told,
        is_told_once: bool,
    ) -> Arc<Self> {
        let trail = Arc::new(Self {
            trace,
            base: Arc::clone(base),
            is_transaction,
            root: OnceLock::new(),
            is_over: AtomicBool::new(false),
            told,
            is_told_once,
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

    /// Of the span that the root is.
    pub(crate) fn root_id(&self) -> SpanId {
        self.trace.root_id()
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

    pub(crate) fn set_rpc(&self, rpc: &Arc<RpcStart>) {
        self.lock().rpc = Some(Arc::clone(rpc));
    }

    fn rpc(&self) -> Option<Arc<RpcStart>> {
        self.lock().rpc.clone()
    }

    pub(crate) fn is_transaction(&self) -> bool {
        self.is_transaction
    }

    /// What was told last counts.
    pub(crate) fn add_user(&self, user: User) {
        let mut state = self.lock();
        let known = state.user.take().unwrap_or_default();
        state.user = Some(report::merged_users(user, known));
    }

    pub(crate) fn user(&self) -> Option<User> {
        self.lock().user.clone()
    }

    /// What was told last counts.
    pub(crate) fn add_tags(&self, tags: &[(String, String)]) {
        let mut state = self.lock();
        for (key, value) in tags {
            state.tags.retain(|(known, _)| known != key);
            state.tags.push((key.clone(), value.clone()));
        }
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
                let place = Place::of(trail.root.get().and_then(Weak::upgrade));
                event = trail.admit(event, &place)?;
                place.apply(&mut event, trail.rpc().as_ref());
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

    /// Gives an event back that is to be sent from the current hub. One that tells of a
    /// failure that was told is not.
    fn admit(&self, mut event: Event<'static>, place: &Place) -> Option<Event<'static>> {
        let failure = Failure::of(&event);
        report::scrub(&mut event);
        let all = || [&self.told].into_iter().chain(place.told());
        let source = Source::of(&event);
        let is_told = self.is_told_once
            && match (source, &failure) {
                (Source::Tracing, Some(failure)) => all().any(|told| told.has_told(failure)),
                (Source::Panic, _) => all().any(Told::has_sent_any),
                _ => false,
            };
        let event = match source {
            // It may be that of the call, or none of its business.
            Source::Panic if is_told => *span_ext::hold(event).err()?,
            _ if is_told => {
                self.keep_as_breadcrumb(&event);
                return None;
            }
            _ => event,
        };
        let current = Hub::current();
        let main = place.main_hub().unwrap_or(&current);
        for told in all() {
            told.note(event.event_id, [&current, main], failure.as_ref());
        }
        Some(event)
    }

    /// Keeps what an event says that is not sent, for the ones that follow.
    fn keep_as_breadcrumb(&self, event: &Event<'_>) {
        let root = self.root.get().and_then(Weak::upgrade);
        if let Some(client) = root.as_ref().and_then(|root| root.client.as_ref()) {
            self.add_breadcrumb(breadcrumb::from_sentry_event(event), client);
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
        for (key, value) in &state.tags {
            let tag = event.tags.entry(key.clone());
            tag.or_insert_with(|| value.clone());
        }
        if let Some(user) = &state.user {
            let known = event.user.take().unwrap_or_default();
            event.user = Some(report::merged_users(known, user.clone()));
        }
        if let Some(rpc) = &state.rpc {
            let RpcStart {
                service, method, ..
            } = rpc.as_ref();
            for (key, value) in [(fields::RPC_SERVICE, service), (fields::RPC_METHOD, method)] {
                let tag = event.tags.entry(key.to_owned());
                tag.or_insert_with(|| value.clone());
            }
            if let Some(context) = &rpc.facts.context {
                let entry = event.contexts.entry(report::RPC_CONTEXT.to_owned());
                entry.or_insert_with(|| {
                    let mut context = context.clone();
                    report::name_stream(&mut context, self.root_id());
                    Context::Other(context)
                });
            }
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
