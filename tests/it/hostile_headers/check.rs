//! What holds of a journey, whatever the headers say.

use http::{HeaderMap, HeaderValue};
use sentry::protocol::SpanStatus;
use sentry_tonic::{SentrySpanExt, TraceHeaders};
use tonic::Code;

use crate::hostile_headers::input::Input;
use crate::hostile_headers::journey::{Journey, hang_up, travel};
use crate::hostile_headers::oracle::{self, Named};
use crate::hostile_headers::told::Told;
use crate::transparent::{Mood, STATUSES, World, Worlds, code_in, of_others};

const MAX_LEN: usize = 8192;
const MAX_MEMBERS: usize = 64;
const MAX_STATES: usize = 32;
const MINUTE: u128 = 60_000_000_000;

/// What this crate writes on a request.
const WRITTEN: [&str; 4] = ["sentry-trace", "baggage", "traceparent", "tracestate"];

/// Makes the calls that these lines tell of, and panics where one is not as it should be.
pub(crate) fn check(worlds: &Worlds, bytes: &[u8]) {
    let input = Input::new(bytes);
    let world = worlds.get(input.world);
    let journey = travel(world, &input);
    let told = Told::of(world);
    let check = Check {
        world,
        input: &input,
        journey: &journey,
    };
    check.passes_through();
    match world.mood {
        Mood::NoClient | Mood::NoSubscriber => check.says_nothing(&told),
        _ => {
            let named = check.goes_out();
            check.is_told(&told, &named);
            check.is_understood(&named);
            check.is_the_same_elsewhere(&named);
            check.takes_any_text();
            check.hangs_up();
        }
    }
}

struct Check<'a> {
    world: &'a World,
    input: &'a Input,
    journey: &'a Journey,
}

impl Check<'_> {
    fn passes_through(&self) {
        let Self { input, journey, .. } = self;
        assert_eq!(journey.received, input.request);
        for answer in &journey.answers {
            assert_eq!(*answer, input.answer);
        }
        let of_others = |headers: &HeaderMap| {
            let mut headers = headers.clone();
            for name in WRITTEN {
                headers.remove(name);
            }
            headers
        };
        for headers in [&journey.sent, &journey.intercepted] {
            assert_eq!(of_others(headers), of_others(&input.own));
        }
    }

    fn says_nothing(&self, told: &Told) {
        let Self { input, journey, .. } = self;
        assert!(told.transactions.is_empty() && journey.of_span.is_none());
        assert_eq!(journey.sent, input.own);
        assert_eq!(journey.intercepted, input.own);
    }

    /// Returns what is said in `sentry-trace`.
    fn goes_out(&self) -> Named {
        let Self { input, journey, .. } = self;
        let of_span = journey.of_span.as_ref().unwrap();
        check_baggage_of(of_span);
        for headers in [&journey.sent, &journey.intercepted] {
            let named = named(headers);
            let [w3c] = &oracle::texts(headers, "traceparent").collect::<Vec<_>>()[..] else {
                panic!("{headers:#?}")
            };
            let w3c = Named::by_w3c(w3c).unwrap();
            assert_eq!((&w3c.trace, &w3c.span), (&named.trace, &named.span));
            assert_eq!(w3c.sampled == Some(true), named.sampled == Some(true));
            assert_eq!(of_others(headers), of_others(&input.own));
            check_members(headers, of_span);
            if let Some(state) = self.state() {
                let [sent] = &oracle::texts(headers, "tracestate").collect::<Vec<_>>()[..] else {
                    panic!("{headers:#?}")
                };
                assert!(state.starts_with(sent) && sent.len() <= MAX_LEN);
                assert!(sent.split(',').count() <= MAX_STATES);
            }
        }
        let (sent, intercepted) = (named(&journey.sent), named(&journey.intercepted));
        let span = Named::by_sentry(of_span.sentry_trace()).unwrap();
        assert_eq!(intercepted, span);
        assert_eq!((&sent.trace, sent.sampled), (&span.trace, span.sampled));
        if let Some(incoming) = oracle::incoming(&input.request) {
            assert_eq!(sent.trace, incoming.trace);
        }
        sent
    }

    /// What `tracestate` is there, beside a `traceparent` that counts, and goes on.
    fn state(&self) -> Option<String> {
        oracle::w3c(&self.input.request)?;
        let values: Vec<&str> = oracle::texts(&self.input.request, "tracestate").collect();
        let state = values.join(",");
        let first = state.split(',').next().map_or(0, str::len);
        (!state.is_empty() && (1..=MAX_LEN).contains(&first)).then_some(state)
    }

    fn is_told(&self, told: &Told, named: &Named) {
        let is_sampled = named.sampled == Some(true);
        let Some((transaction, trace)) = told.transaction() else {
            assert!(!is_sampled || self.world.mood == Mood::Disabled);
            return;
        };
        assert!(is_sampled);
        let incoming = oracle::incoming(&self.input.request);
        let parent = trace.parent_span_id.map(|id| id.to_string());
        assert_eq!(trace.trace_id.to_string(), named.trace);
        assert_eq!(parent, incoming.map(|incoming| incoming.span));
        let [client] = transaction.spans.as_slice() else {
            panic!("{transaction:#?}")
        };
        assert_eq!(client.span_id.to_string(), named.span);
        let code = code_in(&self.input.answer).unwrap_or(Code::Unknown);
        let status = Some(STATUSES[code as usize]);
        assert_eq!((trace.status, client.status), (status, status));
        let message = |data: &sentry::protocol::Map<String, sentry::protocol::Value>| {
            let message = data.get("otel.status_description");
            message.map(|message| message.as_str().unwrap().to_owned())
        };
        let told = message(&client.data);
        assert_eq!(message(&trace.data), told);
        self.check_message(code, told.as_deref());
    }

    /// As tonic reads it.
    fn check_message(&self, code: Code, told: Option<&str>) {
        let mut answer = self.input.answer.clone();
        // On some of which it panics.
        answer.remove("grpc-status-details-bin");
        let read = tonic::Status::from_header_map(&answer);
        let (read_code, read) = match &read {
            Some(status) => (status.code(), status.message()),
            None => (Code::Unknown, ""),
        };
        let Some(told) = told else {
            assert!(code == Code::Ok || read.is_empty(), "{read}");
            return;
        };
        assert!(code != Code::Ok && told.len() <= 1024, "{told}");
        // Of what is no text tonic says so, and UNKNOWN.
        if read_code == code && code != Code::Unknown {
            let told = told.trim_end_matches("[Filtered]");
            assert!(read.starts_with(told), "{told:?}, but {read:?}");
        }
    }

    /// Who receives it goes on with it, and hands on the same.
    fn is_understood(&self, named: &Named) {
        let sent = &self.journey.sent;
        let own = HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        )]);
        let next = Input {
            request: sent.clone(),
            own,
            ..Input::new(b"")
        };
        let journey = travel(self.world, &next);
        let told = Told::of(self.world);
        let again = named_by(&journey);
        assert_eq!(again.trace, named.trace);
        assert_eq!(again.sampled, named.sampled);
        if let Some((_, trace)) = told.transaction() {
            let parent = trace.parent_span_id.map(|id| id.to_string());
            assert_eq!(parent.as_ref(), Some(&named.span));
        }
        let baggage = journey.of_span.as_ref().unwrap().baggage();
        assert_eq!(members(baggage), oracle::of_sentry(sent));
        if self.state().is_some() {
            let state = |headers: &HeaderMap| headers.get("tracestate").cloned();
            assert_eq!(state(&journey.sent), state(sent));
        }
    }

    /// By another way in, and another way out.
    fn is_the_same_elsewhere(&self, named: &Named) {
        let of_span = self.journey.of_span.as_ref().unwrap();
        let headers = self.continued(of_span.iter()).unwrap();
        let again = Named::by_sentry(headers.sentry_trace()).unwrap();
        assert_eq!((&again.trace, again.sampled), (&named.trace, named.sampled));
        assert_eq!(headers.baggage(), of_span.baggage());
        let request = &self.input.request;
        let pairs = request.iter();
        let pairs = pairs.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let headers = self.continued(pairs);
        let incoming = oracle::incoming(request);
        let trace = headers.map(|headers| Named::by_sentry(headers.sentry_trace()).unwrap().trace);
        assert_eq!(trace, incoming.map(|incoming| incoming.trace));
    }

    fn takes_any_text(&self) {
        let texts = self.input.texts.iter();
        let texts = texts.map(|(name, text)| (*name, text.as_str()));
        if let Some(headers) = self.continued(texts) {
            check_baggage_of(&headers);
            let mut sent = HeaderMap::new();
            headers.inject(&mut sent);
            headers.inject_traceparent(&mut sent);
            assert!(sent.contains_key("sentry-trace") && sent.contains_key("traceparent"));
            for value in sent.values() {
                assert!(value.to_str().is_ok(), "{value:?}");
            }
            assert_eq!(members(headers.baggage()), oracle::of_sentry(&sent));
        }
    }

    /// What a span that goes on with these hands on, if there is a trace in them.
    fn continued<'k, 'v>(
        &self,
        headers: impl Iterator<Item = (&'k str, &'v str)>,
    ) -> Option<TraceHeaders> {
        let headers = self.world.within(|| {
            let span = tracing::info_span!("job");
            span.continue_trace(headers).ok()?;
            Some(span.trace_headers().unwrap())
        });
        Told::of(self.world);
        headers
    }

    fn hangs_up(&self) {
        hang_up(self.world, self.input);
        let told = Told::of(self.world);
        let Some((_, trace)) = told.transaction() else {
            return;
        };
        let late = Some(SpanStatus::DeadlineExceeded);
        let early = Some(SpanStatus::Cancelled);
        match oracle::timeout(&self.input.request) {
            Some(0) => assert_eq!(trace.status, late),
            // It is up to the clock.
            Some(1..MINUTE) => assert!(trace.status == late || trace.status == early),
            None | Some(_) => assert_eq!(trace.status, early),
        }
    }
}

fn named_by(journey: &Journey) -> Named {
    named(&journey.sent)
}

fn named(headers: &HeaderMap) -> Named {
    let values: Vec<&str> = oracle::texts(headers, "sentry-trace").collect();
    let [value] = values.as_slice() else {
        panic!("{headers:#?}")
    };
    assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
    assert_eq!(value.trim().to_lowercase(), *value);
    Named::by_sentry(value).unwrap()
}

fn members(baggage: Option<&str>) -> Vec<&str> {
    baggage.map_or(vec![], |list| list.split(',').collect())
}

fn check_baggage_of(headers: &TraceHeaders) {
    let baggage = headers.baggage().unwrap_or("sentry-none=");
    assert!(baggage.len() <= MAX_LEN && members(Some(baggage)).len() <= MAX_MEMBERS);
    assert!(HeaderValue::from_str(baggage).unwrap().to_str().is_ok());
    for member in members(Some(baggage)) {
        assert!(
            member.starts_with("sentry-") && member.contains('='),
            "{member}"
        );
    }
}

/// Of Sentry's members there are those of the span, as many as there is room for.
fn check_members(headers: &HeaderMap, of_span: &TraceHeaders) {
    let ours: Vec<&str> = of_span
        .baggage()
        .map_or(vec![], |all| all.split(',').collect());
    let sent = oracle::of_sentry(headers);
    assert!(sent.iter().all(|member| ours.contains(member)), "{sent:?}");
    let values = || headers.get_all("baggage").iter();
    let len: usize = values().map(|value| value.len() + 1).sum();
    let members = |value: &HeaderValue| value.to_str().map_or(1, |text| text.split(',').count());
    let members: usize = values().map(members).sum();
    let longest = ours.iter().map(|member| member.len() + 1).max();
    let has_room = len + longest.unwrap_or_default() <= MAX_LEN && members < MAX_MEMBERS;
    assert!(sent.len() == ours.len() || !has_room, "{sent:?}");
}
