//! What stands for a tracing span in this crate: its Sentry span, which starts late and
//! finishes once.

use std::sync::{Arc, PoisonError};

use sentry_core::protocol::SpanId;
use sentry_core::{Hub, TransactionOrSpan};
use tracing::Metadata;
use tracing::dispatcher::get_default;
use tracing::span::Id;

use crate::bridge::attributes;
use crate::bridge::call_facts::FieldFacts;
use crate::bridge::draft::{Draft, Plan, SpanFields};
use crate::bridge::duration::StartTime;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::options::LayerOptions;
use crate::bridge::origin::{HubFork, Origin};
use crate::bridge::otel_ids;
use crate::bridge::sent_events::SentEvents;
use crate::bridge::span_state::{LiveSpan, SpanState};
use crate::fields;
use crate::propagation::W3cSpanContext;
use crate::send;
use crate::span_ext::{self, RpcStart, guarded};
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// A tracing span on its way into Sentry.
#[derive(Debug)]
pub(crate) struct SpanCell {
    options: Arc<LayerOptions>,
    key: u64,
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) parent: Option<Arc<Self>>,
    /// The hub that a local root which begins here is forked from.
    base: Arc<Hub>,
    /// A Sentry span that the application made, which was on the scope when this one was made.
    app_span: Option<TransactionOrSpan>,
    pub(crate) fork: Option<HubFork>,
    pub(crate) start: StartTime,
    /// For the span of an RPC inside a root.
    pub(crate) sent_events: SentEvents,
    /// Set once, with `state` locked.
    live: OnceLock<LiveSpan>,
    /// The hub of the task that runs the span; set when a thread enters it that is in no other
    /// span of the root.
    pub(crate) home: OnceLock<Arc<HubSlot>>,
    state: Mutex<SpanState>,
}

impl SpanCell {
    pub(crate) fn new(
        options: Arc<LayerOptions>,
        key: u64,
        metadata: &'static Metadata<'static>,
        origin: Origin,
        fields: Option<Box<SpanFields>>,
    ) -> Self {
        let (base, parent, app_span, fork) = match origin {
            Origin::Child(parent) | Origin::Beside(parent) => {
                (Arc::clone(&parent.base), Some(parent), None, None)
            }
            Origin::Root { base, app_span } => (base, None, app_span, None),
            Origin::Fork(fork) => (Arc::clone(fork.trail.base()), None, None, Some(fork)),
        };
        let outer = parent.as_ref().map(|parent| &parent.start);
        let start = outer.map_or_else(StartTime::now, StartTime::inside);
        Self {
            options,
            key,
            metadata,
            parent,
            base,
            app_span,
            fork,
            start,
            sent_events: SentEvents::default(),
            live: OnceLock::new(),
            home: OnceLock::new(),
            state: Mutex::new(SpanState {
                field_status: fields.as_ref().and_then(|fields| fields.status),
                draft: Draft {
                    fields,
                    ..Draft::default()
                },
                ..SpanState::default()
            }),
        }
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn options(&self) -> &LayerOptions {
        &self.options
    }

    pub(crate) fn layer(&self) -> u64 {
        self.options.id
    }

    pub(crate) fn shared_options(&self) -> Arc<LayerOptions> {
        Arc::clone(&self.options)
    }

    /// Whether spans in it need no cells: nothing of the root is sent, and OpenTelemetry, which
    /// could give them ids, does not know it.
    pub(crate) fn is_for_nobody(&self) -> bool {
        self.live()
            .is_some_and(|live| !live.root.is_sampled && live.w3c.is_none())
    }

    pub(crate) fn base(&self) -> &Arc<Hub> {
        &self.base
    }

    /// `None` before it has started.
    pub(crate) fn live(&self) -> Option<&LiveSpan> {
        self.live.get()
    }

    /// Starts the span, its ancestors first, unless it has started.
    pub(crate) fn start(&self) -> &LiveSpan {
        if let Some(live) = self.live() {
            return live;
        }
        // Not recursive: a chain of spans may be longer than a stack is deep.
        let mut ancestors = Vec::new();
        let mut cell = self;
        while let Some(parent) = cell.parent_to_start() {
            ancestors.push(parent);
            cell = parent;
        }
        for ancestor in ancestors.into_iter().rev() {
            ancestor.start_alone();
        }
        self.start_alone()
    }

    /// Whether it has started, or may start on this thread now: code that Sentry calls to start
    /// a span, such as a sampler, must not start that span.
    pub(crate) fn may_start(&self) -> bool {
        self.live().is_some() || span_ext::is_thread_free()
    }

    fn parent_to_start(&self) -> Option<&Self> {
        if self.lock().draft.is_root() {
            return None;
        }
        let parent = self.parent.as_deref()?;
        parent.live().is_none().then_some(parent)
    }

    /// Makes the Sentry span. No lock is held meanwhile, for a sampler may be
    /// asked; of two threads that meet here, the first to be done wins.
    fn start_alone(&self) -> &LiveSpan {
        let (mut plan, parent) = {
            let mut state = self.lock();
            // Another thread has won, and has taken the draft.
            if let Some(live) = self.live() {
                return live;
            }
            state.is_starting = true;
            let parent = match &self.parent {
                Some(parent) if !state.draft.is_root() => parent.live(),
                _ => None,
            };
            let is_recorded = parent.is_none_or(|live| live.root.is_sampled);
            (Plan::new(&state.draft, self.metadata, is_recorded), parent)
        };
        let plan_rpc = plan.rpc.clone();
        // An OpenTelemetry layer starts its own span to tell the ids.
        plan.w3c = self.w3c();
        let made = match (parent, &self.fork) {
            (Some(parent), _) => LiveSpan::child(parent, &plan, self.start.at),
            (None, Some(fork)) if !plan.is_root => {
                LiveSpan::in_fork(fork, plan, self.start, &self.options)
            }
            (None, _) => {
                let app_span = self.app_span.as_ref().filter(|_| !plan.is_root);
                LiveSpan::root(&plan, &self.base, app_span, self.start, &self.options)
            }
        };
        let mut fields = None;
        let mut is_first = false;
        let live = {
            let mut state = self.lock();
            self.live.get_or_init(|| {
                let draft = std::mem::take(&mut state.draft);
                state.rpc = draft.rpc;
                fields = draft.fields;
                is_first = true;
                made.clone()
            })
        };
        if !is_first {
            made.discard();
            return live;
        }
        self.set_first_attributes(live);
        if let Some(fields) = fields {
            self.set_first_fields(live, *fields);
        }
        if let Some(rpc) = &plan_rpc {
            live.set_facts(rpc);
        }
        if let Some(parts) = live.root.parts.as_ref().filter(|_| live.is_root) {
            parts.begin();
        }
        live
    }

    /// Says where the span was made, or, of a call in another span, that it is one.
    fn set_first_attributes(&self, live: &LiveSpan) {
        if live.tells_attributes() {
            if !self.is_of_middleware() {
                let source = attributes::collected(|see| send::span_source(self.metadata, see));
                live.set_attributes(source, attributes::NO_TAGS);
            } else if !live.is_root {
                let origin = (fields::SENTRY_ORIGIN, send::ORIGIN_RPC.into());
                live.set_attributes([origin], attributes::NO_TAGS);
            }
        }
    }

    fn w3c(&self) -> Option<Arc<W3cSpanContext>> {
        let ids = self.options.otel_ids.filter(|_| otel_ids::may_ask())?;
        let id = Id::from_u64(self.key);
        let dispatch = self.options.dispatch().or_else(|| {
            get_default(|dispatch| {
                let sink = span_ext::find_sink(&id, dispatch)?;
                std::ptr::addr_eq(Arc::as_ptr(&sink), self).then(|| {
                    self.options.learn_dispatch(dispatch);
                    dispatch.clone()
                })
            })
        })?;
        let ids = guarded(|| ids(&id, &dispatch)).flatten();
        ids.filter(W3cSpanContext::is_valid).map(Arc::new)
    }

    /// Takes fields that were recorded after the span was made.
    pub(crate) fn record(&self, fields: Box<SpanFields>) {
        let live = {
            let mut state = self.lock();
            state.field_status = fields.status.or(state.field_status);
            let Some(live) = self.live() else {
                match &mut state.draft.fields {
                    Some(known) => known.update(*fields),
                    known => *known = Some(fields),
                }
                return;
            };
            live
        };
        self.set_fields(live, *fields);
    }

    /// This span and those around it, the innermost first.
    pub(crate) fn around(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |cell| cell.parent.as_deref())
    }

    /// The RPC that it is the span of, once it has started.
    pub(crate) fn started_rpc(&self) -> Option<Arc<RpcStart>> {
        self.lock().rpc.clone()
    }

    pub(crate) fn field_facts(&self) -> FieldFacts {
        self.lock().field_facts.clone()
    }

    /// The id of its span in Sentry, where it has one inside a root.
    pub(crate) fn recorded_id(&self) -> Option<SpanId> {
        match &*self.live()?.recorded()? {
            TransactionOrSpan::Span(span) => guarded(|| span.get_span_id()),
            TransactionOrSpan::Transaction(_) => None,
        }
    }

    pub(crate) fn is_of_middleware(&self) -> bool {
        self.metadata.target() == fields::TARGET
    }

    pub(crate) fn saw_error(&self) {
        self.lock().saw_error = true;
    }

    pub(crate) fn saw_panic(&self) {
        let mut state = self.lock();
        state.saw_error = true;
        state.saw_panic = true;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SpanState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
