//! The state of a [`SpanCell`](crate::bridge::span_cell::SpanCell): what changes in its life,
//! and what it has once it has started.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use sentry_core::protocol::{SpanStatus, Value};
use sentry_core::{Hub, TransactionOrSpan};

use crate::bridge::attributes;
use crate::bridge::begun::RootStart;
use crate::bridge::breadcrumb::Crumb;
use crate::bridge::call_facts::FieldFacts;
use crate::bridge::carried_span::CarriedSpan;
use crate::bridge::draft::{Draft, FieldStatus, Plan, SpanFields};
use crate::bridge::duration::StartTime;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::options::LayerOptions;
use crate::bridge::origin::HubFork;
use crate::bridge::parts::HeldPart;
use crate::fields;
use crate::propagation::{IncomingTrace, W3cSpanContext};
use crate::report::{self, CallBreadcrumb};
use crate::send::{self, NO_OP};
use crate::span_ext::{RpcStart, guarded};

const ORIGIN_TRACING: &str = "auto.tracing";

/// The part of a span that changes.
#[derive(Debug, Default)]
pub(crate) struct SpanState {
    pub(crate) draft: Draft,
    /// The draft has been read: changes to it come too late.
    pub(crate) is_starting: bool,
    /// Of an RPC that has started.
    pub(crate) rpc: Option<Arc<RpcStart>>,
    /// What fields say of the call, where the span is that of a server's RPC inside a root.
    pub(crate) field_facts: FieldFacts,
    pub(crate) rpc_status: Option<SpanStatus>,
    /// Attributes that are added when the span is sent: how the RPC ended; for a span of
    /// another kind, what its fields said as it started.
    pub(crate) record_data: Vec<(Cow<'static, str>, Value)>,
    pub(crate) field_status: Option<FieldStatus>,
    /// An ERROR event was seen in the span.
    pub(crate) saw_error: bool,
    /// A panic went through the span.
    pub(crate) saw_panic: bool,
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) is_finished: bool,
}

impl SpanState {
    /// The status to finish with.
    pub(crate) fn status(&self) -> FinalStatus {
        let (status, is_certain) = match (self.rpc_status, self.field_status) {
            (Some(status), _) => (status, true),
            (None, Some(FieldStatus::Grpc(code))) => (report::span_status_of_number(code), true),
            (None, Some(FieldStatus::OtelError)) => (SpanStatus::InternalError, true),
            (None, Some(FieldStatus::OtelOk)) => (SpanStatus::Ok, true),
            (None, None) if self.saw_error => (SpanStatus::InternalError, false),
            (None, None) => (SpanStatus::Ok, false),
        };
        FinalStatus { status, is_certain }
    }
}

/// The status of a span that finishes.
#[derive(Debug)]
pub(crate) struct FinalStatus {
    pub(crate) status: SpanStatus,
    /// Whether it outranks a status that the application set on the Sentry span.
    pub(crate) is_certain: bool,
}

/// A span that has started.
#[derive(Debug, Clone)]
pub(crate) struct LiveSpan {
    pub(crate) root: Arc<LocalRoot>,
    /// Whether `root` began with this span.
    pub(crate) is_root: bool,
    /// Its span in Sentry, as it was first made; `None` where none is recorded.
    first: Option<TransactionOrSpan>,
    /// Set where its root may be cut while it is open.
    carried: Option<Arc<CarriedSpan>>,
    /// Its ids in OpenTelemetry; else those of the nearest span around it that has some.
    pub(crate) w3c: Option<Arc<W3cSpanContext>>,
}

impl LiveSpan {
    /// Begins a local root: a transaction, or where there is an `app_span`, a child of that.
    pub(crate) fn root(
        plan: &Plan,
        base: &Arc<Hub>,
        app_span: Option<&TransactionOrSpan>,
        start: StartTime,
        options: &LayerOptions,
    ) -> Self {
        // A span whose lock is poisoned is never sent.
        let is_sound = |span: &&TransactionOrSpan| guarded(|| span.get_status()).is_some();
        let app_span = app_span.filter(is_sound);
        let root = LocalRoot::begin(&RootStart {
            base,
            app_span,
            name: match app_span {
                Some(_) => plan.name(),
                None => report::bounded_name(plan.name()),
            },
            op: &plan.op(),
            origin: match plan.rpc {
                Some(_) => send::ORIGIN_RPC,
                None => ORIGIN_TRACING,
            },
            incoming: plan.incoming.as_deref(),
            only_if_parent: plan.only_if_parent,
            start,
            rpc: plan.rpc.as_ref(),
            w3c: plan.w3c.as_deref(),
            deduplicate_errors: options.deduplicate_errors,
            part_duration: options.part_duration,
        });
        Self {
            first: Some(root.first.clone()),
            root,
            is_root: true,
            carried: None,
            w3c: plan.w3c.clone(),
        }
    }

    /// Starts a span in the root of its parent.
    pub(crate) fn child(parent: &Self, plan: &Plan, started_at: SystemTime) -> Self {
        let root = &parent.root;
        let around = parent.first.as_ref().unwrap_or(&root.first);
        let carried = carry(root, around, started_at);
        let first = record_inside(root, || parent.around(), plan, started_at);
        Self {
            carried: carried.filter(|_| first.is_some()),
            root: Arc::clone(root),
            is_root: false,
            first,
            w3c: plan.w3c.clone().or_else(|| parent.w3c.clone()),
        }
    }

    /// Starts a span in a fork of a root's hub. Once the root has been sent, it
    /// begins a root that goes on from it.
    pub(crate) fn in_fork(
        fork: &HubFork,
        mut plan: Plan,
        start: StartTime,
        options: &LayerOptions,
    ) -> Self {
        if let Some(root) = fork.trail.root() {
            let carried = carry(&root, &fork.span, start.at);
            let around = || root.around(&fork.span);
            let first = record_inside(&root, around, &plan, start.at);
            // Nothing was recorded: perhaps the root was sent a moment ago.
            if first.is_some() || !fork.trail.is_over() {
                return Self {
                    carried: carried.filter(|_| first.is_some()),
                    root,
                    is_root: false,
                    first,
                    w3c: plan.w3c.clone(),
                };
            }
        }
        let headers = fork.trail.headers(&fork.span, None);
        plan.incoming = IncomingTrace::from_own(&headers).map(Arc::new);
        plan.only_if_parent = false;
        Self::root(&plan, fork.trail.base(), None, start, options)
    }

    /// Whether attributes are set on the span while it is open, instead of when it is sent. A
    /// transaction that is no RPC has those that say where it was made set at once: nothing adds
    /// them later.
    pub(crate) fn tells_attributes(&self) -> bool {
        self.root.tells_attributes() || self.is_root && !self.root.is_rpc
    }

    /// Sets attributes on its span in Sentry, if it has one.
    pub(crate) fn set_attributes<D, T>(
        &self,
        data: impl IntoIterator<Item = (D, Value)>,
        tags: impl IntoIterator<Item = (T, String)>,
    ) where
        D: Into<Cow<'static, str>>,
        T: Into<Cow<'static, str>>,
    {
        if self.is_root && self.root.is_unsampled_transaction() {
            let data = data.into_iter().map(|(name, value)| (name.into(), value));
            self.root.trail.keep_data(data);
        } else if let Some(span) = self.recorded() {
            attributes::set(&span, data, tags);
        }
    }

    /// Undoes a start: another thread was first.
    pub(crate) fn discard(self) {
        if !self.is_root && self.first.is_some() {
            uncount(&self.root);
        }
    }

    /// Whether there is a span in Sentry.
    pub(crate) fn is_recorded(&self) -> bool {
        self.first.is_some()
    }

    /// Its span in the current part of its root.
    pub(crate) fn recorded(&self) -> Option<Cow<'_, TransactionOrSpan>> {
        let first = self.first.as_ref()?;
        Some(match &self.carried {
            _ if self.is_root => self.root.span(),
            Some(carried) => carried.in_current(&self.root, first),
            None => Cow::Borrowed(first),
        })
    }

    /// Its span, and the part of the root that the span is in, which is held until it is
    /// released; `None` where roots are not cut.
    pub(crate) fn hold(&self) -> Option<(HeldPart, Cow<'_, TransactionOrSpan>)> {
        let first = self.first.as_ref()?;
        let carried = self.carried.as_ref()?;
        loop {
            let part = self.root.hold_part()?;
            match carried.in_part(&part, first) {
                Some(span) => return Some((part, span)),
                // The span has moved on to a later part meanwhile.
                None => self.root.release_part(part.number, None),
            }
        }
    }

    /// The parent in Sentry of the spans that are made in it.
    fn around(&self) -> Cow<'_, TransactionOrSpan> {
        self.recorded().unwrap_or_else(|| self.root.span())
    }

    /// Replaces the span's name by [`UNKNOWN_METHOD`](fields::UNKNOWN_METHOD), and keeps `path`
    /// as an attribute: callers may make up any number of paths.
    pub(crate) fn forget_name(&self, path: &str) {
        if self.is_root {
            self.root.trail.set_transaction(fields::UNKNOWN_METHOD);
        }
        if let Some(span) = self.recorded() {
            span.set_name(fields::UNKNOWN_METHOD);
            let original = (fields::RPC_METHOD_ORIGINAL, path.into());
            self.set_attributes([original], attributes::NO_TAGS);
            if let Some(carried) = &self.carried {
                carried.keep(Some(fields::UNKNOWN_METHOD), None, &[]);
            }
        }
    }

    /// Leaves the breadcrumb of a call for the errors that follow: in its root, or where it is
    /// the root, on the hub that the root was forked from. With `has_event`, an event of the
    /// call itself follows, and is to have it too.
    pub(crate) fn leave_breadcrumb(&self, breadcrumb: CallBreadcrumb, has_event: bool) {
        let Some(client) = &self.root.client else {
            return;
        };
        if self.is_root {
            let base = self.root.trail.base();
            base.add_breadcrumb(breadcrumb.to_breadcrumb());
        }
        if !self.is_root || has_event {
            self.root
                .trail
                .add_breadcrumb(Crumb::Call(breadcrumb), client);
        }
    }

    pub(crate) fn set_fields(&self, fields: SpanFields) {
        let Some(span) = self.recorded() else { return };
        let name = fields.name.or(fields.otel_name);
        if let Some(carried) = &self.carried {
            carried.keep(name.as_deref(), fields.op.as_deref(), &fields.tags);
        }
        if let Some(name) = name {
            let is_transaction = self.is_root && self.root.trail.is_transaction();
            let name = match is_transaction {
                true => report::bounded_name(&name),
                false => &name,
            };
            span.set_name(name);
            if self.is_root {
                self.root.trail.set_transaction(report::bounded_name(name));
            }
        }
        if let Some(op) = &fields.op {
            span.set_op(op);
        }
        if !(fields.data.is_empty() && fields.tags.is_empty()) {
            self.set_attributes(fields.data, fields.tags);
        }
    }
}

/// Prepares a span that is about to be made in `around` for a cut of its root. Called before
/// the span is made: if a cut comes between, the span counts as one of the part before, and is
/// made once more as it finishes.
fn carry(
    root: &LocalRoot,
    around: &TransactionOrSpan,
    started_at: SystemTime,
) -> Option<Arc<CarriedSpan>> {
    root.parts.as_ref()?;
    let parent = match around {
        TransactionOrSpan::Transaction(_) => None,
        TransactionOrSpan::Span(span) => guarded(|| span.get_span_id()),
    };
    Some(Arc::new(CarriedSpan::new(root.part(), parent, started_at)))
}

/// Undoes [`LocalRoot::child_opened`], for a span that was not made after all.
fn uncount(root: &LocalRoot) {
    if let Some(own) = root.child_finished(None) {
        own.finish();
    }
}

/// Makes the Sentry span of a span inside `root`; `None` where none is to be recorded.
fn record_inside<'s>(
    root: &LocalRoot,
    around: impl FnOnce() -> Cow<'s, TransactionOrSpan>,
    plan: &Plan,
    started_at: SystemTime,
) -> Option<TransactionOrSpan> {
    if !root.is_sampled || !root.child_opened() {
        return None;
    }
    let w3c = plan.w3c.as_ref();
    let w3c = w3c.filter(|w3c| w3c.trace_id == root.trail.trace_id());
    let id = w3c.map(|w3c| w3c.span_id).unwrap_or_default();
    let (op, name) = match root.tells_attributes() {
        true => (plan.op(), plan.name()),
        // Name and operation are added with the other attributes, as the span is sent.
        false => (NO_OP.into(), ""),
    };
    let span = guarded(|| around().start_child_with_details(&op, name, id, started_at));
    if span.is_none() {
        uncount(root);
    }
    Some(span?.into())
}
