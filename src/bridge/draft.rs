//! What is known of a span before it starts.

use std::borrow::Cow;
use std::sync::Arc;

use sentry_core::protocol::{User, Value};
use tracing::Metadata;

use crate::bridge::options::LayerOptions;
use crate::bridge::visitor::{FieldSink, ValueVisitor};
use crate::fields;
use crate::propagation::{IncomingTrace, W3cSpanContext};
use crate::report;
use crate::send;
use crate::span_ext::RpcStart;

/// Relay, which takes Sentry's data in, cuts operations to this length.
const MAX_OP_LEN: usize = 128;

/// Fields of a span, parsed.
#[derive(Debug, Default)]
pub(crate) struct SpanFields {
    /// `sentry.name`.
    pub(crate) name: Option<String>,
    /// `otel.name`, where there is no `sentry.name`.
    pub(crate) otel_name: Option<String>,
    pub(crate) op: Option<String>,
    /// `sentry.trace`: counts at creation alone, and without a parent.
    pub(crate) incoming: Option<Arc<IncomingTrace>>,
    pub(crate) status: Option<FieldStatus>,
    pub(crate) data: Vec<(Cow<'static, str>, Value)>,
    pub(crate) tags: Vec<(&'static str, String)>,
    /// `rpc.param.*`, by their full names.
    pub(crate) params: Vec<(&'static str, Value)>,
    /// How many bytes of each parameter are kept.
    max_param_len: usize,
    /// `user.*`.
    pub(crate) user: Option<Box<User>>,
}

/// A status that a field set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldStatus {
    /// `rpc.grpc.status_code`.
    Grpc(i64),
    /// `otel.status_code`.
    OtelError,
    OtelOk,
}

/// A span that has not started.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// `None` where there are none, as with many spans.
    pub(crate) fields: Option<Box<SpanFields>>,
    pub(crate) rpc: Option<Arc<RpcStart>>,
    /// The trace that the application gave to this span.
    pub(crate) continued: Option<Arc<IncomingTrace>>,
}

impl Draft {
    pub(crate) fn incoming(&self) -> Option<&Arc<IncomingTrace>> {
        let rpc = self.rpc.as_ref().and_then(|rpc| rpc.incoming.as_ref());
        let continued = self.continued.as_ref();
        let fields = || self.fields.as_ref()?.incoming.as_ref();
        continued.or(rpc).or_else(fields)
    }

    /// Whether the span begins a transaction, even inside another span.
    pub(crate) fn is_root(&self) -> bool {
        let rpc = self.rpc.as_ref();
        let is_forced = |rpc: &Arc<RpcStart>| rpc.force_transaction || rpc.incoming.is_some();
        self.continued.is_some() || rpc.is_some_and(is_forced)
    }
}

impl SpanFields {
    pub(crate) fn read(
        options: &LayerOptions,
        record: impl FnOnce(&mut ValueVisitor<'_, Self>),
    ) -> Box<Self> {
        let mut fields = Box::new(Self {
            max_param_len: options.params.max_len,
            ..Self::default()
        });
        record(&mut ValueVisitor(&mut fields));
        fields
    }

    /// Adds fields that were recorded later.
    pub(crate) fn update(&mut self, later: Self) {
        let Self {
            name,
            otel_name,
            op,
            incoming: _,
            status,
            data,
            tags,
            params,
            max_param_len: _,
            user,
        } = later;
        self.name = name.or(self.name.take());
        self.otel_name = otel_name.or(self.otel_name.take());
        self.op = op.or(self.op.take());
        self.status = status.or(self.status);
        replace(&mut self.data, data);
        replace(&mut self.tags, tags);
        replace(&mut self.params, params);
        if let Some(user) = user {
            let known = self.user.take().unwrap_or_default();
            self.user = Some(Box::new(report::merged_users(*user, *known)));
        }
    }
}

/// Replaces values by later ones of the same name: a field may be recorded any number of times
/// before its span starts.
fn replace<K: PartialEq, V>(known: &mut Vec<(K, V)>, later: Vec<(K, V)>) {
    for (name, value) in later {
        match known.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => known.push((name, value)),
        }
    }
}

/// What it takes to start a span, copied out of its draft.
#[derive(Debug)]
pub(crate) struct Plan {
    metadata: &'static Metadata<'static>,
    /// As its fields say, if the span is no RPC and is recorded.
    own: NameAndOp,
    pub(crate) incoming: Option<Arc<IncomingTrace>>,
    pub(crate) is_root: bool,
    /// Whether nothing is sent where there is no span around it.
    pub(crate) only_if_parent: bool,
    pub(crate) rpc: Option<Arc<RpcStart>>,
    /// Its ids in OpenTelemetry.
    pub(crate) w3c: Option<Arc<W3cSpanContext>>,
}

/// A name and an operation.
#[derive(Debug, Default)]
struct NameAndOp {
    name: Option<String>,
    op: Option<String>,
}

impl NameAndOp {
    fn new(fields: &SpanFields) -> Self {
        Self {
            name: fields.name.as_ref().or(fields.otel_name.as_ref()).cloned(),
            op: fields.op.clone(),
        }
    }
}

impl Plan {
    pub(crate) fn new(
        draft: &Draft,
        metadata: &'static Metadata<'static>,
        is_recorded: bool,
    ) -> Self {
        let rpc = draft.rpc.as_ref();
        let fields = draft.fields.as_deref();
        let fields = fields.filter(|_| is_recorded && rpc.is_none());
        Self {
            metadata,
            own: fields.map(NameAndOp::new).unwrap_or_default(),
            incoming: draft.incoming().cloned(),
            is_root: draft.is_root(),
            only_if_parent: rpc.is_some_and(|rpc| rpc.only_if_parent),
            rpc: rpc.cloned(),
            w3c: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match &self.rpc {
            Some(rpc) => rpc.about.name(),
            None => self.own.name.as_deref().unwrap_or(self.metadata.name()),
        }
    }

    pub(crate) fn op(&self) -> Cow<'_, str> {
        match (&self.rpc, &self.own.op) {
            (Some(rpc), _) => (&*rpc.op).into(),
            (None, Some(op)) => op.into(),
            (None, None) => send::span_op(self.metadata).into(),
        }
    }
}

impl FieldSink for SpanFields {
    /// For a parameter one character more than is kept, to tell whether it has to be cut.
    fn max_len(&self, name: &str) -> usize {
        match name {
            fields::SENTRY_OP => MAX_OP_LEN,
            name if name.starts_with(fields::PARAM_PREFIX) => self.max_param_len.saturating_add(4),
            _ => report::MAX_TEXT_LEN,
        }
    }

    fn take(&mut self, name: &'static str, value: Value) {
        match (name, value) {
            (fields::SENTRY_NAME, Value::String(text)) => self.name = Some(text),
            (fields::SENTRY_OP, Value::String(text)) => self.op = Some(text),
            (fields::SENTRY_TRACE, Value::String(text)) => {
                self.incoming = IncomingTrace::from_sentry_trace(&text).map(Arc::new);
            }
            (fields::OTEL_NAME, Value::String(text)) => self.otel_name = Some(text),
            (fields::OTEL_STATUS_CODE, Value::String(text)) => {
                if text.eq_ignore_ascii_case("error") {
                    self.status = Some(FieldStatus::OtelError);
                } else if text.eq_ignore_ascii_case("ok") {
                    self.status = Some(FieldStatus::OtelOk);
                }
            }
            (fields::OTEL_KIND, Value::String(text)) => self
                .data
                .push((fields::SENTRY_KIND.into(), text.to_lowercase().into())),
            (fields::RPC_GRPC_STATUS_CODE, value) => {
                self.status = value.as_i64().map(FieldStatus::Grpc).or(self.status);
                self.data.push((name.into(), value));
            }
            (name, value) if name.starts_with(fields::PARAM_PREFIX) => {
                self.params.push((name, value));
            }
            (name, value) => match name.strip_prefix(fields::TAGS_PREFIX) {
                Some(tag) => match tag_value(value) {
                    Ok(value) => self.tags.push((tag, value)),
                    Err(value) => self.data.push((name.into(), value)),
                },
                None => {
                    self.take_user(name, &value);
                    self.data.push((name.into(), value));
                }
            },
        }
    }
}

impl SpanFields {
    fn take_user(&mut self, name: &str, value: &Value) {
        let Some(field @ ("id" | "email" | "name")) = name.strip_prefix(fields::USER_PREFIX) else {
            return;
        };
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        report::set_user_field(self.user.get_or_insert_default(), field, text);
    }
}

fn tag_value(value: Value) -> Result<String, Value> {
    match value {
        Value::String(text) => Ok(report::bounded_tag_value(text)),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(value),
    }
}
