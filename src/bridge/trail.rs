//! What a local root keeps for the errors in it: breadcrumbs, names, and facts of its call.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sentry_core::protocol::{SpanId, TraceId, User, Value};
use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::breadcrumb::Crumb;
use crate::bridge::call_facts::FieldFacts;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::sent_events::SentEvents;
use crate::bridge::trails;
use crate::propagation::{SamplingContext, TraceHeaders, W3cSpanContext};
use crate::send::SegmentFacts;
use crate::span_ext::RpcStart;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Identifies a trail while it lives.
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

/// What is added to every event captured in a local root, on whatever thread. Shared by the
/// spans and the hubs of the root.
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
    /// For the RPC that the root is.
    pub(crate) sent_events: SentEvents,
    /// Whether a failure that was reported is not reported again.
    pub(crate) deduplicate_errors: bool,
    state: Mutex<TrailState>,
}

#[derive(Debug, Default)]
pub(crate) struct TrailState {
    pub(crate) breadcrumbs: VecDeque<Crumb>,
    /// The name that the application gave the transaction.
    transaction: Option<String>,
    /// Whether it has the name of its RPC until then.
    is_named_by_rpc: bool,
    /// Attributes that the root's span in sentry-core does not have: how its RPC ended, or what
    /// the fields of a span said that is not sampled.
    data: Vec<(Cow<'static, str>, Value)>,
    /// Set where the root is an RPC.
    pub(crate) rpc: Option<Arc<RpcStart>>,
    pub(crate) field_facts: FieldFacts,
}

impl TrailState {
    pub(crate) fn transaction(&self) -> Option<&str> {
        let rpc = self.rpc.as_ref().filter(|_| self.is_named_by_rpc);
        let own = self.transaction.as_deref();
        own.or_else(|| Some(rpc?.about.name()))
    }
}

impl Trail {
    pub(crate) fn new(
        trace: RootTrace,
        base: &Arc<Hub>,
        is_transaction: bool,
        sent_events: SentEvents,
        deduplicate_errors: bool,
    ) -> Arc<Self> {
        let trail = Arc::new(Self {
            trace,
            base: Arc::clone(base),
            is_transaction,
            root: OnceLock::new(),
            is_over: AtomicBool::new(false),
            sent_events,
            deduplicate_errors,
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
        let root = self.root_if_kept()?;
        (!self.is_over()).then_some(root)
    }

    /// The root, which may have been sent.
    pub(crate) fn root_if_kept(&self) -> Option<Arc<LocalRoot>> {
        self.root.get()?.upgrade()
    }

    /// Whether this thread is in a span of another root.
    pub(crate) fn is_elsewhere(self: &Arc<Self>) -> bool {
        let current = CURRENT.try_with(Cell::get).unwrap_or(TrailId::NOBODY);
        current != TrailId::NOBODY && current != self.id()
    }

    pub(crate) fn base(&self) -> &Arc<Hub> {
        &self.base
    }

    /// The sampling context of the trace; `name` is that of the transaction, where the caller
    /// knows a newer one.
    pub(crate) fn sampling_context(&self, name: Option<&str>) -> &SamplingContext {
        let own = || self.transaction();
        self.trace
            .sampling_context(|| name.map(str::to_owned).or_else(own))
    }

    /// The headers that go from `span` to another service. Once the transaction was sent, the
    /// spans in it are not: then the headers name the transaction instead, but still the span
    /// for OpenTelemetry, which does export it.
    pub(crate) fn headers(
        &self,
        span: &TransactionOrSpan,
        w3c: Option<&W3cSpanContext>,
    ) -> TraceHeaders {
        let span = Some(span).filter(|_| !self.is_over());
        let part = self.root().and_then(|root| root.later_part_id());
        self.trace.headers(span, part, w3c, || self.transaction())
    }

    /// The id of the root's own span.
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

    pub(crate) fn transaction(&self) -> Option<String> {
        self.lock().transaction().map(str::to_owned)
    }

    pub(crate) fn id(self: &Arc<Self>) -> TrailId {
        TrailId(Arc::as_ptr(self).addr())
    }

    pub(crate) fn set_transaction(&self, name: &str) {
        self.lock().transaction = Some(name.to_owned());
    }

    /// Says that the root is `rpc`; with `is_named`, the transaction has its name.
    pub(crate) fn set_rpc(&self, rpc: &Arc<RpcStart>, is_named: bool) {
        let mut state = self.lock();
        state.rpc = Some(Arc::clone(rpc));
        state.is_named_by_rpc = is_named;
    }

    /// Keeps attributes of the root's span, for its transaction and the events in it. A field may
    /// be recorded any number of times: the last value of a name replaces the others.
    pub(crate) fn keep_data(&self, data: impl IntoIterator<Item = (Cow<'static, str>, Value)>) {
        let mut state = self.lock();
        for (name, value) in data {
            match state.data.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => state.data.push((name, value)),
            }
        }
    }

    /// What is known of the root's span beside what sentry-core has of it.
    pub(crate) fn segment_facts(&self) -> SegmentFacts {
        let state = self.lock();
        SegmentFacts {
            call: state.rpc.clone(),
            data: state.data.clone(),
        }
    }

    /// The same for the transaction: unless a later part of the root needs them, it gets the data.
    pub(crate) fn take_segment_facts(&self) -> SegmentFacts {
        if !self.is_over() {
            return self.segment_facts();
        }
        let mut state = self.lock();
        SegmentFacts {
            call: state.rpc.clone(),
            data: std::mem::take(&mut state.data),
        }
    }

    /// Whether it was decided that the trace is not sampled.
    pub(crate) fn is_discarded(&self) -> bool {
        self.trace.sampled() == Some(false)
    }

    pub(crate) fn is_transaction(&self) -> bool {
        self.is_transaction
    }

    /// Changes the facts that fields of spans told.
    pub(crate) fn tell(&self, tell: impl FnOnce(&mut FieldFacts)) {
        tell(&mut self.lock().field_facts);
    }

    pub(crate) fn user(&self) -> Option<User> {
        self.lock().field_facts.user().cloned()
    }

    /// Adds a breadcrumb within the limits that `client` sets.
    pub(crate) fn add_breadcrumb(&self, crumb: Crumb, client: &Client) {
        let options = client.options();
        let Some(crumb) = (match &options.before_breadcrumb {
            Some(before) => before(crumb.to_breadcrumb()).map(Crumb::from),
            None => Some(crumb),
        }) else {
            return;
        };
        let mut state = self.lock();
        state.breadcrumbs.push_back(crumb);
        let surplus = state
            .breadcrumbs
            .len()
            .saturating_sub(options.max_breadcrumbs);
        state.breadcrumbs.drain(..surplus);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, TrailState> {
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
