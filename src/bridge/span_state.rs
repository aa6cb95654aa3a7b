//! The changing part of a span, and what it has once it has started.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use sentry_core::protocol::{SpanStatus, Value};
use sentry_core::{Hub, TransactionOrSpan};

use crate::bridge::again::Again;
use crate::bridge::attributes;
use crate::bridge::begun::RootStart;
use crate::bridge::breadcrumb::Crumb;
use crate::bridge::call_facts::FieldFacts;
use crate::bridge::draft::{Draft, FieldStatus, Plan, SpanFields};
use crate::bridge::duration::Start;
use crate::bridge::late;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::options::LayerOptions;
use crate::bridge::origin::Fork;
use crate::bridge::parts::HeldPart;
use crate::fields;
use crate::propagation::{IncomingTrace, W3cSpan};
use crate::report::{self, CallBreadcrumb};
use crate::span_ext::{RpcStart, guarded};

const ORIGIN_TRACING: &str = "auto.tracing";

/// The part of a span that changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) draft: Draft,
    /// What it starts with has been read.
    pub(crate) is_starting: bool,
    /// Of an RPC that has started.
    pub(crate) rpc: Option<Arc<RpcStart>>,
    /// What fields tell of an RPC that a server received inside a root.
    pub(crate) told: FieldFacts,
    /// What a stream of the RPC failed with.
    pub(crate) kept: Option<Box<tonic::Status>>,
    pub(crate) rpc_status: Option<SpanStatus>,
    /// What its span is told as it is sent, and not while it lives: how the RPC ended, or
    /// what the fields said that a span of another kind started with.
    pub(crate) late: Vec<(Cow<'static, str>, Value)>,
    pub(crate) field_status: Option<FieldStatus>,
    /// An ERROR event was seen in the span.
    pub(crate) saw_error: bool,
    /// A panic went through the span.
    pub(crate) saw_panic: bool,
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) is_finished: bool,
}

impl State {
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
    /// Whether it outranks one that the application set on the Sentry span.
    pub(crate) is_certain: bool,
}

/// A span that has started.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) root: Arc<LocalRoot>,
    /// Whether `root` began with this span.
    pub(crate) is_root: bool,
    /// Its span in Sentry as it began; `None` where nothing would come of it.
    first: Option<TransactionOrSpan>,
    /// Where it may have to begin again.
    again: Option<Arc<Again>>,
    /// What OpenTelemetry knows of it, or of the nearest around it that it knows.
    pub(crate) w3c: Option<Arc<W3cSpan>>,
}

impl Live {
    /// Begins a local root; `inside` a span of the application, where there is
    /// one.
    pub(crate) fn root(
        plan: &Plan,
        base: &Arc<Hub>,
        inside: Option<&TransactionOrSpan>,
        start: Start,
        options: &LayerOptions,
    ) -> Self {
        // Of one whose lock is poisoned, nothing will be sent.
        let is_sound = |span: &&TransactionOrSpan| guarded(|| span.get_status()).is_some();
        let inside = inside.filter(is_sound);
        let root = LocalRoot::begin(&RootStart {
            base,
            inside,
            name: match inside {
                Some(_) => plan.name(),
                None => report::bounded_name(plan.name()),
            },
            op: &plan.op(),
            origin: match plan.rpc {
                Some(_) => attributes::ORIGIN_RPC,
                None => ORIGIN_TRACING,
            },
            incoming: plan.incoming.as_deref(),
            only_if_parent: plan.only_if_parent,
            start,
            rpc: plan.rpc.as_ref(),
            w3c: plan.w3c.as_deref(),
            is_told_once: options.is_told_once,
            part_duration: options.part_duration,
        });
        Self {
            first: Some(root.first.clone()),
            root,
            is_root: true,
            again: None,
            w3c: plan.w3c.clone(),
        }
    }

    /// Starts a span in the root of its parent.
    pub(crate) fn child(parent: &Self, plan: &Plan, started_at: SystemTime) -> Self {
        let root = &parent.root;
        let around = parent.first.as_ref().unwrap_or(&root.first);
        let again = again(root, around, started_at);
        let first = record_inside(root, || parent.around(), plan, started_at);
        Self {
            again: again.filter(|_| first.is_some()),
            root: Arc::clone(root),
            is_root: false,
            first,
            w3c: plan.w3c.clone().or_else(|| parent.w3c.clone()),
        }
    }

    /// Starts a span in a fork of a root's hub. Once the root has been sent, it
    /// begins a root that goes on from it.
    pub(crate) fn in_fork(
        fork: &Fork,
        mut plan: Plan,
        start: Start,
        options: &LayerOptions,
    ) -> Self {
        if let Some(root) = fork.trail.root() {
            let again = again(&root, &fork.span, start.at);
            let around = || root.around(&fork.span);
            let first = record_inside(&root, around, &plan, start.at);
            // It may be sent just now.
            if first.is_some() || !fork.trail.is_over() {
                return Self {
                    again: again.filter(|_| first.is_some()),
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

    /// Whether the span has its attributes while it lives. The transaction has where it was
    /// made, unless it is an RPC: nobody else would tell.
    pub(crate) fn tells_attributes(&self) -> bool {
        self.root.tells_attributes() || self.is_root && !self.root.is_rpc
    }

    /// Of one that was made in vain: another thread has started the span.
    pub(crate) fn discard(self) {
        if !self.is_root && self.first.is_some() {
            give_back(&self.root);
        }
    }

    /// Whether something comes of it in Sentry.
    pub(crate) fn is_recorded(&self) -> bool {
        self.first.is_some()
    }

    /// Its span in Sentry, in the part of its root that is current.
    pub(crate) fn recorded(&self) -> Option<Cow<'_, TransactionOrSpan>> {
        let first = self.first.as_ref()?;
        Some(match &self.again {
            _ if self.is_root => self.root.span(),
            Some(again) => again.in_current(&self.root, first),
            None => Cow::Borrowed(first),
        })
    }

    /// Its span in a part of its root, which is held from now on; `None` where that is not cut.
    pub(crate) fn hold(&self) -> Option<(HeldPart, Cow<'_, TransactionOrSpan>)> {
        let first = self.first.as_ref()?;
        let again = self.again.as_ref()?;
        loop {
            let part = self.root.hold_part()?;
            match again.in_part(&part, first) {
                Some(span) => return Some((part, span)),
                // It is in a later one by now.
                None => self.root.release_part(part.number, None),
            }
        }
    }

    /// What spans are made in that are made in it.
    fn around(&self) -> Cow<'_, TransactionOrSpan> {
        self.recorded().unwrap_or_else(|| self.root.span())
    }

    /// Takes the span's name, which is `path`, for one of any number.
    pub(crate) fn forget_name(&self, path: &str) {
        if self.is_root {
            self.root.trail.set_transaction(fields::UNKNOWN_METHOD);
        }
        if let Some(span) = self.recorded() {
            span.set_name(fields::UNKNOWN_METHOD);
            let original = (fields::RPC_METHOD_ORIGINAL, path.into());
            attributes::set(&span, [original], attributes::NO_TAGS);
            if let Some(again) = &self.again {
                again.keep(Some(fields::UNKNOWN_METHOD), None, &[]);
            }
        }
    }

    /// Leaves a breadcrumb of what the span was, for the errors that follow: those
    /// of its root, or where it is one, those of who began it.
    /// Where `is_told`, an error of its own follows.
    pub(crate) fn leave(&self, breadcrumb: CallBreadcrumb, is_told: bool) {
        let Some(client) = &self.root.client else {
            return;
        };
        if self.is_root {
            let base = self.root.trail.base();
            base.add_breadcrumb(breadcrumb.to_breadcrumb());
        }
        if !self.is_root || is_told {
            self.root
                .trail
                .add_breadcrumb(Crumb::Call(breadcrumb), client);
        }
    }

    pub(crate) fn set_fields(&self, fields: SpanFields) {
        let Some(span) = self.recorded() else { return };
        let name = fields.name.or(fields.otel_name);
        if let Some(again) = &self.again {
            again.keep(name.as_deref(), fields.op.as_deref(), &fields.tags);
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
            attributes::set(&span, fields.data, fields.tags);
        }
    }
}

/// For a span that is about to be made inside a root: if that is cut meanwhile, it counts as one
/// of the part before, and is made once more as it finishes.
fn again(
    root: &LocalRoot,
    around: &TransactionOrSpan,
    started_at: SystemTime,
) -> Option<Arc<Again>> {
    root.parts.as_ref()?;
    let parent = match around {
        TransactionOrSpan::Transaction(_) => None,
        TransactionOrSpan::Span(span) => guarded(|| span.get_span_id()),
    };
    Some(Arc::new(Again::new(root.part(), parent, started_at)))
}

/// Takes back that a span inside `root` was counted.
fn give_back(root: &LocalRoot) {
    if let Some(own) = root.child_finished(None) {
        own.finish();
    }
}

/// The Sentry span of a span inside `root`; `None` where nothing would come of
/// it.
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
        // What fields say is set with them.
        false => late::NAMELESS,
    };
    let span = guarded(|| around().start_child_with_details(&op, name, id, started_at));
    if span.is_none() {
        give_back(root);
    }
    Some(span?.into())
}
