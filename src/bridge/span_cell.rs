//! What lives behind a tracing span: a Sentry span that starts late and
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
use crate::bridge::duration::Start;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::options::LayerOptions;
use crate::bridge::origin::{Fork, Origin};
use crate::bridge::otel_ids;
use crate::bridge::span_state::{Live, State};
use crate::bridge::told::Told;
use crate::fields;
use crate::propagation::W3cSpan;
use crate::span_ext::{self, RpcStart, guarded};
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// A tracing span on its way into Sentry.
#[derive(Debug)]
pub(crate) struct SpanCell {
    options: Arc<LayerOptions>,
    key: u64,
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) parent: Option<Arc<Self>>,
    /// What a local root that begins here forks its hub from.
    base: Arc<Hub>,
    /// A span of the application that was current when this one was made.
    inside: Option<TransactionOrSpan>,
    pub(crate) fork: Option<Fork>,
    pub(crate) start: Start,
    /// Of an RPC inside a root.
    pub(crate) told: Told,
    /// Set once, with the state locked.
    live: OnceLock<Live>,
    /// The hub of who runs the span, once it was entered outside of the root's
    /// other spans.
    pub(crate) home: OnceLock<Arc<HubSlot>>,
    state: Mutex<State>,
}

impl SpanCell {
    pub(crate) fn new(
        options: Arc<LayerOptions>,
        key: u64,
        metadata: &'static Metadata<'static>,
        origin: Origin,
        fields: Option<Box<SpanFields>>,
    ) -> Self {
        let (base, parent, inside, fork) = match origin {
            Origin::Child(parent) | Origin::Beside(parent) => {
                (Arc::clone(&parent.base), Some(parent), None, None)
            }
            Origin::Root { base, inside } => (base, None, inside, None),
            Origin::Fork(fork) => (Arc::clone(fork.trail.base()), None, None, Some(fork)),
        };
        let outer = parent.as_ref().map(|parent| &parent.start);
        let start = outer.map_or_else(Start::now, Start::inside);
        Self {
            options,
            key,
            metadata,
            parent,
            base,
            inside,
            fork,
            start,
            told: Told::default(),
            live: OnceLock::new(),
            home: OnceLock::new(),
            state: Mutex::new(State {
                field_status: fields.as_ref().and_then(|fields| fields.status),
                draft: Draft {
                    fields,
                    ..Draft::default()
                },
                ..State::default()
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

    /// Whether nothing of the spans in it is sent, and OpenTelemetry, which may give them
    /// ids, knows nothing of it.
    pub(crate) fn is_for_nobody(&self) -> bool {
        self.live()
            .is_some_and(|live| !live.root.is_sampled && live.w3c.is_none())
    }

    pub(crate) fn base(&self) -> &Arc<Hub> {
        &self.base
    }

    /// What it has once it has started.
    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    /// Starts the span, its ancestors first, unless it has started.
    pub(crate) fn start(&self) -> &Live {
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

    /// Whether it has started, or can on this thread: a sampler that is asked
    /// for a span must not start that span.
    pub(crate) fn may_start(&self) -> bool {
        self.live().is_some() || span_ext::is_free()
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
    fn start_alone(&self) -> &Live {
        let (mut plan, parent) = {
            let mut state = self.lock();
            // The draft is gone with the winner.
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
        // An OpenTelemetry layer starts the span for it.
        plan.w3c = self.w3c();
        let made = match (parent, &self.fork) {
            (Some(parent), _) => Live::child(parent, &plan, self.start.at),
            (None, Some(fork)) if !plan.is_root => {
                Live::in_fork(fork, plan, self.start, &self.options)
            }
            (None, _) => {
                let inside = self.inside.as_ref().filter(|_| !plan.is_root);
                Live::root(&plan, &self.base, inside, self.start, &self.options)
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
        if let Some(span) = live.recorded().filter(|_| live.tells_attributes()) {
            if !self.is_of_middleware() {
                let source = attributes::source(self.metadata);
                attributes::set(&span, source, attributes::NO_TAGS);
            } else if !live.is_root {
                attributes::set(&span, [attributes::origin()], attributes::NO_TAGS);
            }
        }
        if let Some(fields) = fields {
            self.set_first_fields(live, *fields);
        }
        if let Some(rpc) = &plan_rpc {
            live.set_facts(rpc);
        }
        live
    }

    fn w3c(&self) -> Option<Arc<W3cSpan>> {
        let ids = self.options.otel_ids.filter(|_| otel_ids::may_ask())?;
        let id = Id::from_u64(self.key);
        let dispatch = self.options.dispatch().or_else(|| {
            get_default(|dispatch| {
                let sink = span_ext::find(&id, dispatch)?;
                std::ptr::addr_eq(Arc::as_ptr(&sink), self).then(|| {
                    self.options.learn(dispatch);
                    dispatch.clone()
                })
            })
        })?;
        let ids = guarded(|| ids(&id, &dispatch)).flatten();
        ids.filter(W3cSpan::is_valid).map(Arc::new)
    }

    /// Takes fields that are recorded after the span was made.
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

    /// This span and those that it is in, from it outwards.
    pub(crate) fn around(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |cell| cell.parent.as_deref())
    }

    /// Of an RPC that has started.
    pub(crate) fn started_rpc(&self) -> Option<Arc<RpcStart>> {
        self.lock().rpc.clone()
    }

    pub(crate) fn told_by_fields(&self) -> FieldFacts {
        self.lock().told.clone()
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

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
