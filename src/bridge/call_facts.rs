//! What is added to events of the call that they belong to.

use sentry_core::protocol::{Context, Event, Map, SpanId, User};

use crate::fields;
use crate::report;
use crate::span_ext::RpcStart;

/// What the fields of spans say of the call that the spans are in, or of a root that is no
/// call. The last value counts.
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

    /// Adds to an event what it does not have.
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

/// Adds to an event what it does not have of its call. With `is_its_end`, it is the event of the
/// call's failure, and its `rpc` context is completed; else a context that is there stays.
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

/// Removes from an event of the call `inner` the user and the tags that the scope has of
/// `outer`, the call around it: they are not those of `inner`.
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
