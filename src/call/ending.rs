//! What is reported of a call that has ended.

use std::borrow::Cow;
use std::sync::Arc;

use sentry_core::protocol::{Context, Event, Value};
use tonic::Code;

use crate::call::rpc_call::{RpcCall, SeenResponse};
use crate::fields;
use crate::lifecycle::{Finished, Watch};
use crate::report::{self, CallBreadcrumb, EventKind, OutcomeAttributes, RpcOutcome};
use crate::rpc::{Outcome, RpcSide};
use crate::span_ext::{self, RpcEnd, SpanSink};

impl RpcCall {
    /// Whether tonic's router has answered, having no such method.
    fn is_unknown_method(&self, outcome: &Outcome) -> bool {
        self.about.head.side == RpcSide::Server
            && outcome.code == Code::Unimplemented
            && outcome.message.is_none()
    }

    /// How it ended and what the response said, as attributes of the span.
    fn data(&self, finished: &Finished<'_>) -> Vec<(Cow<'static, str>, Value)> {
        let SeenResponse {
            metadata, details, ..
        } = &self.response;
        let outcome = self.outcome_attributes(finished);
        let metadata = metadata.attributes(self.options().conventions, self.about.sends_pii);
        let details = details.attributes(self.about.sends_pii);
        let mut data = Vec::with_capacity(OutcomeAttributes::MAX + metadata.len() + details.len());
        data.extend(outcome.data());
        let response = metadata.into_iter().chain(details);
        data.extend(response.map(|(name, value)| (Cow::Owned(name), value)));
        data
    }

    /// `None` where it is held back.
    fn event(&self, known: &RpcOutcome<'_>, finished: &Finished<'_>) -> Option<Event<'static>> {
        // All methods that do not exist are one issue with one limit: callers make them up.
        let is_unknown = self.is_unknown_method(&finished.outcome);
        let limiter = self.options().limiter.as_ref();
        let held_back = match limiter {
            Some(limiter) if is_unknown => {
                limiter.admit(fields::UNKNOWN_METHOD, EventKind::of(known))?
            }
            Some(limiter) => limiter.admit(self.about.head.path.full(), EventKind::of(known))?,
            None => 0,
        };
        let mut event = match finished.panic {
            Some(message) => report::event_of_panic(known, message),
            None => report::event_of_status(known),
        };
        if is_unknown {
            let unknown = [fields::UNKNOWN_METHOD, known.code_name()];
            event.fingerprint = unknown.into_iter().map(Into::into).collect();
        }
        if let Some(fingerprint) = self.options().fingerprint(known) {
            let fingerprint = report::bounded_fingerprint(fingerprint);
            event.fingerprint = fingerprint.map(Into::into).collect();
        }
        if let Some(Context::Other(context)) = event.contexts.get_mut(report::RPC_CONTEXT) {
            if !self.response.metadata.is_empty() {
                let metadata = self.response.metadata.to_value();
                context.insert("response_metadata".to_owned(), metadata);
            }
            let counts = [self.progress().messages(), finished.response_messages];
            if counts.into_iter().flatten().any(|count| count > 1) {
                report::set_streams(context);
            }
        }
        report::set_held_back(&mut event, held_back);
        self.response.details.tell(&mut event, self.about.sends_pii);
        if !self.options().attach_rpc_context {
            event.contexts.remove(report::RPC_CONTEXT);
        }
        Some(event)
    }

    /// Reports the end of the call to metrics, OpenTelemetry and Sentry.
    pub(crate) fn tell(&self, finished: &Finished<'_>) {
        let sink = self.sink();
        let outcome = &finished.outcome;
        let known = RpcOutcome {
            side: self.about.head.side,
            path: &self.about.head.path,
            outcome,
            duration: finished.duration,
            cause: finished.cause,
            is_panic: finished.panic.is_some(),
        };
        let is_known =
            !self.is_unknown_method(outcome) && self.options().knows(&self.about.head.path);
        let metrics = &self.options().metrics;
        // The address of the server is an attribute of the metrics of clients alone.
        let server = self.about.head.server.as_ref();
        let server = server.filter(|_| known.side == RpcSide::Client);
        span_ext::guarded(|| metrics.record(&known, is_known, server));
        // Without a panic or a cause, the span has all there is to say: its status.
        #[cfg(feature = "opentelemetry")]
        if known.is_panic || known.cause.is_some() {
            let exception = || report::otel_exception(&known, finished.panic);
            span_ext::add_otel_event(&self.span, fields::EXCEPTION, exception);
        }
        if let Some(sink) = sink {
            self.tell_sentry(sink, &known, finished);
        }
    }

    fn tell_sentry(
        &self,
        sink: &Arc<dyn SpanSink>,
        known: &RpcOutcome<'_>,
        finished: &Finished<'_>,
    ) {
        let outcome = &finished.outcome;
        let breadcrumb = || {
            CallBreadcrumb::new(
                known,
                self.progress().messages(),
                finished.response_messages,
            )
        };
        let event = || self.event(known, finished);
        // A panic that goes on is reported by whoever catches it.
        let is_captured =
            known.is_panic || !outcome.has_panicked && self.options().capture.wants(known);
        let message = outcome.message.as_deref().map(report::scrubbed);
        let data = || self.data(finished);
        Arc::clone(sink).end(RpcEnd {
            status: report::span_status(outcome.code),
            message: message.as_deref(),
            unknown_method: (self.options().span_name.is_none() && self.is_unknown_method(outcome))
                .then(|| self.about.head.path.full()),
            has_panicked: outcome.has_panicked,
            data: &data,
            breadcrumb: self.options().breadcrumbs.then_some(&breadcrumb),
            event: is_captured.then_some(&event),
        });
    }
}
