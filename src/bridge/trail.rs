//! What a local root leaves behind for the errors in it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use sentry_core::protocol::{Context, Event, Span, SpanId, TraceContext, TraceId, User, Value};
use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::breadcrumb::{self, Crumb};
use crate::bridge::call_facts::{self, FieldFacts};
use crate::bridge::late;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::place::Place;
use crate::bridge::repeats::{Failure, Source};
use crate::bridge::root_trace::RootTrace;
use crate::bridge::told::Told;
use crate::bridge::trace_transport;
use crate::bridge::trails;
use crate::propagation::{SamplingContext, TraceHeaders, W3cSpan};
use crate::report;
use crate::span_ext::{self, RpcStart};

/// How many spans of a transaction are not in it: sentry-core keeps 1001.
const DROPPED_SPANS: &str = "dropped_spans_count";

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
    breadcrumbs: VecDeque<Crumb>,
    /// What the application has named the transaction.
    transaction: Option<String>,
    /// Whether it is named as its RPC, until then.
    is_named_by_rpc: bool,
    /// How the RPC ended, where its span does not say so.
    end: Vec<(Cow<'static, str>, Value)>,
    /// Set where the local root is an RPC.
    rpc: Option<Arc<RpcStart>>,
    told: FieldFacts,
}

impl State {
    fn transaction(&self) -> Option<&str> {
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
    /// been sent are not sent any more: it speaks for them, but not to OpenTelemetry,
    /// which goes on to export them.
    pub(crate) fn headers(&self, span: &TransactionOrSpan, w3c: Option<&W3cSpan>) -> TraceHeaders {
        let span = Some(span).filter(|_| !self.is_over());
        self.trace.headers(span, w3c, || self.transaction())
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

    /// Adds to the transaction, by its trace context, what is known of its RPC, and to its
    /// spans what is kept for them.
    pub(crate) fn complete(&self, trace: Option<&mut TraceContext>, spans: &mut [Span]) {
        let root = self.root.get().and_then(Weak::upgrade);
        let dropped = root.map_or(0, |root| {
            let (late, finished) = root.take_late();
            finished.saturating_sub(late::complete(spans, late))
        });
        let Some(trace) = trace else { return };
        if dropped > 0 {
            let count = i64::try_from(dropped).unwrap_or(i64::MAX);
            trace.data.insert(DROPPED_SPANS.to_owned(), count.into());
        }
        let (rpc, end) = {
            let mut state = self.lock();
            (state.rpc.clone(), std::mem::take(&mut state.end))
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
                let held_back;
                (event, held_back) = trail.admit(event, &place)?;
                trail.apply(&mut event, &place, max_breadcrumbs);
                report::set_held_back(&mut event, held_back);
                if let Some(Context::Trace(trace)) = event.contexts.get("trace")
                    && trace.trace_id == trail.trace_id()
                {
                    trace_transport::expect_event(event.event_id, &trail);
                }
            }
            Some(event)
        }
    }

    /// Gives an event back that is to be sent from the current hub, and how many were held
    /// back before it. One that tells of a failure that was told is not.
    fn admit(&self, mut event: Event<'static>, place: &Place) -> Option<(Event<'static>, u64)> {
        let failure = Failure::of(&event);
        report::scrub(&mut event);
        let all = || [&self.told].into_iter().chain(place.told());
        // An event that is dropped takes from its hub what that says of the last one.
        all().for_each(Told::settle);
        let source = Source::of(&event);
        let is_told = self.is_told_once
            && match (source, &failure) {
                (Source::Tracing, Some(failure)) => all().any(|told| told.has_told(failure)),
                (Source::Panic, _) => place.told_in_call().unwrap_or(&self.told).has_sent_any(),
                _ => false,
            };
        if source == Source::Tracing {
            report::bounded_event(&mut event);
        }
        let event = match source {
            // It may be that of the call, or none of its business.
            Source::Panic if is_told => *span_ext::hold(event).err()?,
            _ if is_told => {
                self.keep_as_breadcrumb(&event);
                return None;
            }
            _ => event,
        };
        let call = || place.call().or_else(|| self.lock().rpc.clone());
        let call = if source == Source::Panic {
            call()
        } else {
            None
        };
        let Some(held_back) = call.map_or(Some(0), |call| call.admit_panic()) else {
            all().for_each(Told::set_sent);
            return None;
        };
        let current = Hub::current();
        let main = place.main_hub().unwrap_or(&current);
        for told in all() {
            told.note(event.event_id, [&current, main], failure.as_ref());
        }
        Some((event, held_back))
    }

    /// Keeps what an event says that is not sent, for the ones that follow.
    fn keep_as_breadcrumb(&self, event: &Event<'_>) {
        let root = self.root.get().and_then(Weak::upgrade);
        if let Some(client) = root.as_ref().and_then(|root| root.client.as_ref()) {
            self.add_breadcrumb(breadcrumb::from_sentry_event(event).into(), client);
        }
    }

    fn apply(&self, event: &mut Event<'static>, place: &Place, max_breadcrumbs: usize) {
        let (rpc, told) = {
            let state = self.lock();
            if !state.breadcrumbs.is_empty() {
                let breadcrumbs = &mut event.breadcrumbs.values;
                breadcrumbs.extend(state.breadcrumbs.iter().map(Crumb::to_breadcrumb));
                breadcrumbs.sort_by_key(|breadcrumb| breadcrumb.timestamp);
                let surplus = breadcrumbs.len().saturating_sub(max_breadcrumbs);
                breadcrumbs.drain(..surplus);
            }
            if event.transaction.is_none() {
                event.transaction = state.transaction().map(str::to_owned);
            }
            (state.rpc.clone(), state.told.clone())
        };
        if !place.tell_inner_call(event, rpc.as_deref()) {
            told.add_to(event);
        }
        if let Some(rpc) = &rpc {
            call_facts::add_call(event, rpc, Some(self.root_id()), false);
            if !place.tells_attributes() {
                call_facts::add_span_data(event, self.root_id(), rpc);
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
