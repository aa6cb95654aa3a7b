//! Fields and facts on their way to the right Sentry span, call and root.

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::Value;

use crate::bridge::attributes;
use crate::bridge::call_facts::FieldFacts;
use crate::bridge::draft::SpanFields;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::LiveSpan;
use crate::fields;
use crate::report;
use crate::send::SpanRecord;
use crate::span_ext::{RpcStart, guarded};

impl SpanCell {
    /// Sets the fields that are known as the span starts. They may be added late: whatever the
    /// application sets on the Sentry span comes after them, and outranks them.
    pub(crate) fn set_first_fields(&self, live: &LiveSpan, mut fields: SpanFields) {
        let is_inside = matches!(live.recorded().as_deref(), Some(TransactionOrSpan::Span(_)));
        if is_inside && !live.root.tells_attributes() {
            self.lock().record_data = std::mem::take(&mut fields.data);
        }
        self.set_fields(live, fields);
    }

    pub(crate) fn set_fields(&self, live: &LiveSpan, mut fields: SpanFields) {
        let params = std::mem::take(&mut fields.params);
        let user = fields
            .user
            .take()
            .and_then(|user| report::bounded_user(*user));
        guarded(|| {
            if let Some(user) = user {
                self.tell_call(live, |facts| facts.add_user(user));
            }
            if !params.is_empty() {
                self.set_params(live, params);
            }
            live.set_fields(fields);
        });
    }

    /// Sets parameters on the span of the call around this one; on this one where there is no
    /// call.
    fn set_params(&self, live: &LiveSpan, params: Vec<(&'static str, Value)>) {
        let options = &self.options().params;
        let mut data = Vec::new();
        let mut tags = Vec::new();
        for (field, value) in params {
            let name = field.strip_prefix(fields::PARAM_PREFIX).unwrap_or(field);
            let told = options.tell(name, value);
            tags.extend(options.tag(field, name, &told));
            data.push((field, told));
        }
        self.tell_call(live, |facts| facts.add_tags(&tags));
        let rpc = self.around().find(|cell| cell.is_of_middleware());
        let of_rpc = rpc.map(|rpc| rpc.start());
        of_rpc.unwrap_or(live).set_attributes(data, tags);
    }

    /// Changes the facts of the innermost server call around the span, else those of the root.
    fn tell_call(&self, live: &LiveSpan, tell: impl FnOnce(&mut FieldFacts)) {
        let mut calls = self.rpcs(&live.root).filter(|rpc| rpc.is_server());
        match calls.next().filter(|call| !call.is_root()) {
            Some(call) => tell(&mut call.lock().field_facts),
            None => live.root.trail.tell(tell),
        }
    }

    /// What is kept of it beside its Sentry span, until the root is sent.
    pub(crate) fn take_record(
        &self,
        root: &LocalRoot,
        span: &TransactionOrSpan,
    ) -> Option<SpanRecord> {
        let TransactionOrSpan::Span(span) = span else {
            return None;
        };
        if root.tells_attributes() {
            return None;
        }
        let mut state = self.lock();
        let data = std::mem::take(&mut state.record_data);
        let call = state.rpc.clone();
        drop(state);
        Some(SpanRecord {
            id: guarded(|| span.get_span_id())?,
            metadata: self.metadata,
            call,
            data,
        })
    }

    fn is_root(&self) -> bool {
        self.live().is_some_and(|live| live.is_root)
    }
}

impl LiveSpan {
    /// Sets what the middleware knows of its call.
    pub(crate) fn set_facts(&self, rpc: &RpcStart) {
        let facts = &rpc.facts;
        guarded(|| {
            // The events of a call inside another root get it from the trail: the scope is that
            // of the outer one.
            if self.is_root {
                self.root.open_call(facts);
            }
            if self.root.is_sampled {
                let data = match self.tells_attributes() {
                    true => attributes::collected(|see| rpc.about.attributes(see)),
                    false => Vec::new(),
                };
                self.set_attributes(data, facts.tags.clone());
            }
        });
    }
}
