//! What a local root leaves behind for the errors in it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sentry_core::protocol::{Span, SpanId, TraceContext, TraceId, User, Value};
use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::breadcrumb::Crumb;
use crate::bridge::call_facts::{self, FieldFacts};
use crate::bridge::late;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::told::Told;
use crate::bridge::trails;
use crate::fields;
use crate::propagation::{SamplingContext, TraceHeaders, W3cSpan};
use crate::span_ext::RpcStart;
use crate::sync::atomic::{AtomicBool, Ordering};

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
    pub(crate) is_told_once: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) breadcrumbs: VecDeque<Crumb>,
    /// What the application has named the transaction.
    transaction: Option<String>,
    /// Whether it is named as its RPC, until then.
    is_named_by_rpc: bool,
    /// How the RPC ended, where its span does not say so.
    end: Vec<(Cow<'static, str>, Value)>,
    /// Set where the local root is an RPC.
    pub(crate) rpc: Option<Arc<RpcStart>>,
    pub(crate) told: FieldFacts,
}

impl State {
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

    /// What is said of the trace; `name` is that of the transaction, where it is
    /// better known than here.
    pub(crate) fn sampling_context(&self, name: Option<&str>) -> &SamplingContext {
        let own = || self.transaction();
        self.trace
            .sampling_context(|| name.map(str::to_owned).or_else(own))
    }

    /// What goes from `span` to another service. Spans of a transaction that has
    /// been sent are not sent any more: it speaks for them, but not to OpenTelemetry,
    /// which goes on to export them.
    pub(crate) fn headers(&self, span: &TransactionOrSpan, w3c: Option<&W3cSpan>) -> TraceHeaders {
        let span = Some(span).filter(|_| !self.is_over());
        let part = self.root().and_then(|root| root.later_part_id());
        self.trace.headers(span, part, w3c, || self.transaction())
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

    pub(crate) fn transaction(&self) -> Option<String> {
        self.lock().transaction().map(str::to_owned)
    }

    pub(crate) fn id(self: &Arc<Self>) -> TrailId {
        TrailId(Arc::as_ptr(self).addr())
    }

    pub(crate) fn set_transaction(&self, name: &str) {
        self.lock().transaction = Some(name.to_owned());
    }

    /// The root is this RPC, whose name the transaction has where `is_named` by it.
    pub(crate) fn set_rpc(&self, rpc: &Arc<RpcStart>, is_named: bool) {
        let mut state = self.lock();
        state.rpc = Some(Arc::clone(rpc));
        state.is_named_by_rpc = is_named;
    }

    /// Keeps how the RPC ended, for the transaction that it is.
    pub(crate) fn keep_end(&self, end: Vec<(Cow<'static, str>, Value)>) {
        self.lock().end = end;
    }

    /// Adds to the transaction of this id, by its trace context, what is known of its RPC, and
    /// to its spans what is kept for them.
    pub(crate) fn complete(
        &self,
        id: SpanId,
        trace: Option<&mut TraceContext>,
        spans: &mut [Span],
    ) {
        let dropped = self.root_if_kept().map_or(0, |root| {
            let (late, finished) = root.take_late(id);
            finished.saturating_sub(late::complete(spans, late))
        });
        let Some(trace) = trace else { return };
        if dropped > 0 {
            let count = i64::try_from(dropped).unwrap_or(i64::MAX);
            let name = fields::DROPPED_SPANS_COUNT.to_owned();
            trace.data.insert(name, count.into());
        }
        let (rpc, end) = {
            let mut state = self.lock();
            // A part may follow.
            let end = match self.is_over() {
                true => std::mem::take(&mut state.end),
                false => state.end.clone(),
            };
            (state.rpc.clone(), end)
        };
        // As if it had been set last: how the call ended is nobody else's to say.
        for (name, value) in end {
            trace.data.insert(name.into_owned(), value);
        }
        if let Some(rpc) = rpc {
            call_facts::add_data(trace, rpc.about.data());
        }
    }

    pub(crate) fn is_transaction(&self) -> bool {
        self.is_transaction
    }

    /// Takes what fields tell of the root.
    pub(crate) fn tell(&self, tell: impl FnOnce(&mut FieldFacts)) {
        tell(&mut self.lock().told);
    }

    pub(crate) fn user(&self) -> Option<User> {
        self.lock().told.user().cloned()
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

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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
