//! What a trail does with the events in its root.

use std::sync::Arc;

use sentry_core::Hub;
use sentry_core::protocol::{Context, Event, SpanId};

use crate::bridge::breadcrumb::{self, Crumb};
use crate::bridge::call_facts;
use crate::bridge::place::Place;
use crate::bridge::repeats::{Failure, Source};
use crate::bridge::told::Told;
use crate::bridge::trace_transport;
use crate::bridge::trail::Trail;
use crate::fields;
use crate::report;
use crate::span_ext;

impl Trail {
    /// An event processor that adds this trail to events.
    ///
    /// A hub that the application forked in one root and uses in another has
    /// the processor of the first: it leaves events alone while the thread is in
    /// a span of another root.
    pub(crate) fn processor(
        self: &Arc<Self>,
        max_breadcrumbs: usize,
    ) -> impl Fn(Event<'static>) -> Option<Event<'static>> + Send + Sync + use<> {
        let trail = Arc::clone(self);
        move |mut event| {
            if !trail.is_elsewhere() {
                let place = Place::of(trail.root_if_kept());
                let held_back;
                (event, held_back) = trail.admit(event, &place)?;
                trail.apply(&mut event, &place, max_breadcrumbs);
                report::set_held_back(&mut event, held_back);
                if let Some(Context::Trace(trace)) = event.contexts.get("trace")
                    && trace.trace_id == trail.trace_id()
                {
                    trace_transport::expect_event(event.event_id, &trail);
                }
            }
            Some(event)
        }
    }

    /// Gives an event back that is to be sent from the current hub, and how many were held
    /// back before it. One that tells of a failure that was told is not.
    fn admit(&self, mut event: Event<'static>, place: &Place) -> Option<(Event<'static>, u64)> {
        let failure = Failure::of(&event);
        report::clean(&mut event);
        let all = || [&self.told].into_iter().chain(place.told());
        // An event that is dropped takes from its hub what that says of the last one.
        all().for_each(Told::settle);
        let source = Source::of(&event);
        let is_told = self.is_told_once
            && match (source, &failure) {
                (Source::Tracing, Some(failure)) => all().any(|told| told.has_told(failure)),
                (Source::Panic, _) => place.told_in_call().unwrap_or(&self.told).has_sent_any(),
                _ => false,
            };
        if source == Source::Tracing {
            report::bounded_event(&mut event);
        }
        let event = match source {
            // It may be that of the call, or none of its business.
            Source::Panic if is_told => *span_ext::hold(event).err()?,
            _ if is_told => {
                self.keep_as_breadcrumb(&event);
                return None;
            }
            _ => event,
        };
        let call = || place.call().or_else(|| self.lock().rpc.clone());
        let call = if source == Source::Panic {
            call()
        } else {
            None
        };
        let Some(held_back) = call.map_or(Some(0), |call| call.admit_panic()) else {
            all().for_each(Told::set_sent);
            return None;
        };
        let current = Hub::current();
        let main = place.main_hub().unwrap_or(&current);
        for told in all() {
            told.note(event.event_id, [&current, main], failure.as_ref());
        }
        Some((event, held_back))
    }

    /// Keeps what an event says that is not sent, for the ones that follow.
    fn keep_as_breadcrumb(&self, event: &Event<'_>) {
        let root = self.root_if_kept();
        if let Some(client) = root.as_ref().and_then(|root| root.client.as_ref()) {
            self.add_breadcrumb(breadcrumb::from_sentry_event(event).into(), client);
        }
    }

    fn apply(&self, event: &mut Event<'static>, place: &Place, max_breadcrumbs: usize) {
        let (rpc, told) = {
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
            (state.rpc.clone(), state.told.clone())
        };
        if !place.tell_inner_call(event, rpc.as_deref()) {
            told.add_to(event);
        }
        let span_id = self.renew_trace(event);
        if let Some(rpc) = &rpc {
            call_facts::add_call(event, rpc, Some(self.root_id()), false);
            if !place.tells_attributes() {
                call_facts::add_span_data(event, span_id, rpc);
            }
        }
    }

    /// Has an event that is of the root be of its current part, whose id this returns.
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
