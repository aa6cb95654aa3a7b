//! What a trail does with the events in its root.

use std::sync::Arc;

use sentry_core::Hub;
use sentry_core::Level;
use sentry_core::protocol::{Context, Event, SpanId};

use crate::bridge::breadcrumb::{self, Crumb};
use crate::bridge::call_facts;
use crate::bridge::event_place::EventPlace;
use crate::bridge::repeats::{EventSource, Failure};
use crate::bridge::sent_events::SentEvents;
use crate::bridge::trail::Trail;
use crate::fields;
use crate::report;
use crate::send;
use crate::span_ext;

impl Trail {
    /// An event processor that adds this trail to events.
    ///
    /// A hub that the application forked in one root and uses in another still has the
    /// processor of the first root. So a processor leaves events alone while the thread is in a
    /// span of another root.
    pub(crate) fn processor(
        self: &Arc<Self>,
        max_breadcrumbs: usize,
    ) -> impl Fn(Event<'static>) -> Option<Event<'static>> + Send + Sync + use<> {
        let trail = Arc::clone(self);
        move |mut event| {
            if !trail.is_elsewhere() {
                let place = EventPlace::of(trail.root_if_kept());
                let held_back;
                (event, held_back) = trail.admit(event, &place)?;
                trail.apply(&mut event, &place, max_breadcrumbs);
                report::set_held_back(&mut event, held_back);
                if let Some(Context::Trace(trace)) = event.contexts.get("trace")
                    && trace.trace_id == trail.trace_id()
                {
                    let context = || trail.sampling_context(None).envelope();
                    send::expect_event(event.event_id, context);
                }
            }
            Some(event)
        }
    }

    /// Decides whether an event is sent from the current hub: returns it, and how many were held
    /// back before it. `None` for an event that repeats a reported failure, or is held back.
    fn admit(
        &self,
        mut event: Event<'static>,
        place: &EventPlace,
    ) -> Option<(Event<'static>, u64)> {
        let failure = Failure::of(&event);
        report::clean_event(&mut event);
        let all = || [&self.sent_events].into_iter().chain(place.sent_events());
        // First, while the hubs still know their last events: this one replaces the id, even if
        // it is dropped.
        all().for_each(SentEvents::settle);
        let source = EventSource::of(&event);
        let is_repeated = self.deduplicate_errors
            && match (source, &failure) {
                (EventSource::Tracing, Some(failure)) => all().any(|sent| sent.has_sent(failure)),
                (EventSource::Panic, _) => place
                    .sent_in_call()
                    .unwrap_or(&self.sent_events)
                    .has_sent_error(),
                _ => false,
            };
        if source == EventSource::Tracing {
            report::bounded_event(&mut event);
        }
        let event = match source {
            // It is held until it is known whether this panic ends the call.
            EventSource::Panic if is_repeated => *span_ext::hold_panic(event).err()?,
            _ if is_repeated => {
                self.keep_as_breadcrumb(&event);
                return None;
            }
            _ => event,
        };
        let call = || place.call().or_else(|| self.lock().rpc.clone());
        let call = if source == EventSource::Panic {
            call()
        } else {
            None
        };
        let Some(held_back) = call.map_or(Some(0), |call| call.admit_panic()) else {
            all().for_each(SentEvents::set_sent);
            return None;
        };
        let current = Hub::current();
        let main = place.main_hub().unwrap_or(&current);
        for sent in all() {
            let hubs = [&current, main];
            sent.note(
                event.event_id,
                hubs,
                failure.as_ref(),
                event.level >= Level::Error,
            );
        }
        Some((event, held_back))
    }

    /// Keeps an event that is not sent as a breadcrumb of those that follow.
    fn keep_as_breadcrumb(&self, event: &Event<'_>) {
        let root = self.root_if_kept();
        if let Some(client) = root.as_ref().and_then(|root| root.client.as_ref()) {
            self.add_breadcrumb(breadcrumb::from_sentry_event(event).into(), client);
        }
    }

    fn apply(&self, event: &mut Event<'static>, place: &EventPlace, max_breadcrumbs: usize) {
        let (rpc, field_facts) = {
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
            (state.rpc.clone(), state.field_facts.clone())
        };
        if !place.tell_inner_call(event, rpc.as_deref()) {
            field_facts.add_to(event);
        }
        let span_id = self.renew_trace(event);
        if let Some(rpc) = &rpc {
            call_facts::add_call(event, rpc, Some(self.root_id()), false);
        }
        if let Some(Context::Trace(trace)) = event.contexts.get_mut("trace")
            && trace.span_id == span_id
            && !place.tells_attributes()
        {
            self.segment_facts().complete(trace, 0);
        }
    }

    /// Moves an event from an earlier part of the root to the current one; returns the id of the
    /// transaction that it belongs to.
    fn renew_trace(&self, event: &mut Event<'_>) -> SpanId {
        let root = self.root_if_kept();
        let Some((root, current)) = root.and_then(|root| {
            let current = root.later_part_id()?;
            Some((root, current))
        }) else {
            return self.root_id();
        };
        if let Some(Context::Trace(trace)) = event.contexts.get_mut("trace")
            && root.is_earlier_part(trace)
        {
            trace.span_id = current;
            trace.parent_span_id = Some(self.root_id());
            let part = fields::TRANSACTION_PART.to_owned();
            trace.data.insert(part, root.part().into());
        }
        current
    }
}
