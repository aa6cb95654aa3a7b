//! What events are told of the call that they are of.

use std::borrow::Cow;

use sentry_core::protocol::{Context, Event, Map, SpanId, TraceContext, User, Value};

use crate::fields;
use crate::report;
use crate::span_ext::RpcStart;

/// What the fields of spans tell of the call that they are in, or of a root that is
/// none. What they tell last counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldFacts {
    user: Option<Box<User>>,
    tags: Vec<(String, String)>,
}

impl FieldFacts {
    pub(crate) fn add_user(&mut self, user: User) {
        let known = self.user.take().unwrap_or_default();
        self.user = Some(Box::new(report::merged_users(user, *known)));
    }

    pub(crate) fn add_tags(&mut self, tags: &[(String, String)]) {
        for (key, value) in tags {
            self.tags.retain(|(known, _)| known != key);
            self.tags.push((key.clone(), value.clone()));
        }
    }

    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_deref()
    }

    /// Adds what an event does not say.
    pub(crate) fn add_to(&self, event: &mut Event<'_>) {
        for (key, value) in &self.tags {
            let tag = event.tags.entry(key.clone());
            tag.or_insert_with(|| value.clone());
        }
        if let Some(user) = &self.user {
            let known = event.user.take().unwrap_or_default();
            event.user = Some(report::merged_users(known, User::clone(user)));
        }
    }
}

/// Adds what an event does not say of the call that it is of: the one that ends with
/// it where `is_its_end`, whose context it has.
pub(crate) fn add_call(
    event: &mut Event<'_>,
    rpc: &RpcStart,
    stream_id: Option<SpanId>,
    is_its_end: bool,
) {
    let own = [
        (fields::RPC_SERVICE, rpc.about.service()),
        (fields::RPC_METHOD, rpc.about.method()),
    ];
    let tags = rpc
        .facts
        .tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in own.into_iter().chain(tags) {
        let tag = event.tags.entry(key.to_owned());
        tag.or_insert_with(|| value.to_owned());
    }
    let has_one = event.contexts.contains_key(report::RPC_CONTEXT);
    if has_one && !is_its_end {
        return;
    }
    let Some(known) = rpc.about.context() else {
        return;
    };
    let context = event.contexts.entry(report::RPC_CONTEXT.to_owned());
    if let Context::Other(context) = context.or_insert_with(|| Context::Other(Map::new())) {
        for (key, value) in known {
            context.entry(key).or_insert(value);
        }
        if let Some(stream_id) = stream_id {
            report::name_stream(context, stream_id);
        }
    }
}

/// Adds to the trace context of an event what the span of the call does not say.
pub(crate) fn add_span_data(event: &mut Event<'_>, span_id: SpanId, rpc: &RpcStart) {
    if let Some(Context::Trace(trace)) = event.contexts.get_mut("trace")
        && trace.span_id == span_id
    {
        add_data(trace, rpc.about.data());
    }
}

/// Adds attributes that the span does not say.
pub(crate) fn add_data(
    trace: &mut TraceContext,
    data: impl IntoIterator<Item = (Cow<'static, str>, Value)>,
) {
    for (name, value) in data {
        trace.data.entry(name.into_owned()).or_insert(value);
    }
}

/// Takes out of an event what the scope told of `outer`, the call around that which
/// it is of: its people are others, and so are its tags.
pub(crate) fn forget_outer(event: &mut Event<'_>, outer: &RpcStart, inner: &RpcStart) {
    for (key, value) in &outer.facts.tags {
        if event.tags.get(key) == Some(value) {
            event.tags.remove(key);
        }
    }
    if inner.facts.user.is_some() && event.user.as_ref() == outer.facts.user.as_deref() {
        event.user = None;
    }
}
