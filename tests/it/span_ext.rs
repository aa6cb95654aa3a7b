//! Traces that are handed over by hand, outside of gRPC.

use sentry::TracesSamplingStrategy;
use tracing::{Level, Span, debug_span, info_span, span};
use tracing_subscriber::layer::SubscriberExt;

use sentry_tonic::{ContinueTraceError, SentrySpanExt, SentryTracingLayer, TraceHeaders};

use crate::support::received::trace;
use crate::support::world::{RATES, World};

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const HEADER: (&str, &str) = (
    "Sentry-Trace",
    "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1",
);
const BAGGAGE: &str = "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=head";

fn pairs(headers: &TraceHeaders) -> Vec<(&str, &str)> {
    headers.iter().collect()
}

#[test]
fn a_span_goes_on_with_a_trace_from_any_carrier() {
    let world = World::sampled(0.0);
    world.sync(|| {
        let span = info_span!(target: "test", "job");
        let baggage = format!("vendor=1,{BAGGAGE}");
        let headers = [("x", "y"), ("BAGGAGE", &*baggage), HEADER];
        assert_eq!(span.continue_trace(headers), Ok(()));
        span.in_scope(|| {
            let headers = Span::current().trace_headers().unwrap();
            let (trace_id, rest) = headers.sentry_trace().split_once('-').unwrap();
            assert_eq!(trace_id, TRACE);
            assert!(rest.ends_with("-1"));
            assert_eq!(headers.baggage(), Some(BAGGAGE));
            let sentry_trace = headers.sentry_trace();
            let expected = [("sentry-trace", sentry_trace), ("baggage", BAGGAGE)];
            assert_eq!(pairs(&headers), expected);
        });
    });
    let received = world.received();
    let context = trace(received.only_transaction());
    assert_eq!(context.trace_id.to_string(), TRACE);
    assert_eq!(
        context.parent_span_id.unwrap().to_string(),
        "9cf635fa5b870b3a"
    );
    assert_eq!(received.contexts[0]["public_key"], "head");
}

#[test]
fn a_span_inside_another_is_a_transaction_once_it_goes_on_with_a_trace() {
    let world = World::new();
    world.sync(|| {
        let _outer = info_span!(target: "test", "outer").entered();
        let inner = info_span!(target: "test", "inner");
        inner.continue_trace([HEADER]).unwrap();
        inner.in_scope(|| {});
    });
    let names: Vec<_> = world
        .received()
        .txs()
        .into_iter()
        .map(|tx| (tx.name, tx.spans.len()))
        .collect();
    assert_eq!(names, [("inner".to_owned(), 0), ("outer".to_owned(), 0)]);
}

/// Of such a span nothing is kept, until it is asked for.
#[test]
fn a_span_in_one_that_is_not_sampled_goes_on_with_a_trace_that_is() {
    let world = World::sampled(0.0);
    world.sync(|| {
        let _outer = info_span!(target: "test", "outer").entered();
        let inner = info_span!(target: "test", "inner");
        let innermost = inner.in_scope(|| info_span!(target: "test", "innermost"));
        innermost.continue_trace([HEADER]).unwrap();
        innermost.in_scope(|| info_span!(target: "test", "work").in_scope(|| {}));
    });
    let received = world.received();
    let tx = received.only_tx();
    assert_eq!((tx.name.as_str(), tx.spans.len()), ("innermost", 1));
    let context = trace(received.only_transaction());
    assert_eq!(context.trace_id.to_string(), TRACE);
}

#[test]
fn a_span_that_cannot_go_on_says_why_and_stays_as_it_is() {
    let world = World::new();
    world.sync(|| {
        let span = info_span!(target: "test", "job");
        for headers in [
            &[][..],
            &[("sentry-trace", "nonsense")],
            &[("baggage", BAGGAGE)],
        ] {
            let result = span.continue_trace(headers.iter().copied());
            assert_eq!(result, Err(ContinueTraceError::NoTrace));
        }
        span.in_scope(|| {});
        assert_eq!(
            span.continue_trace([HEADER]),
            Err(ContinueTraceError::Started)
        );

        let told = info_span!(target: "test", "told");
        let before = told.trace_headers();
        assert_eq!(
            told.continue_trace([HEADER]),
            Err(ContinueTraceError::Started)
        );
        assert_eq!(told.trace_headers(), before);

        for span in [Span::none(), debug_span!(target: "test", "left out")] {
            let result = span.continue_trace([HEADER]);
            assert_eq!(result, Err(ContinueTraceError::NotRecorded));
        }
    });
    tracing::subscriber::with_default(tracing_subscriber::registry(), || {
        let span = info_span!(target: "test", "job");
        let result = span.continue_trace([HEADER]);
        assert_eq!(result, Err(ContinueTraceError::NotRecorded));
    });
    let received = world.received();
    assert_eq!(received.transactions.len(), 2);
    for transaction in &received.transactions {
        assert_eq!(trace(transaction).parent_span_id, None);
    }
    assert_eq!(
        ContinueTraceError::Started.to_string(),
        "the span has started"
    );
}

#[test]
fn a_span_that_is_left_out_hands_on_the_one_around_it() {
    let world = World::new();
    world.sync(|| {
        let outer = info_span!(target: "test", "outer");
        let expected = outer.trace_headers();
        assert!(expected.is_some());
        outer.in_scope(|| {
            let inner = debug_span!(target: "test", "left out");
            assert_eq!(inner.trace_headers(), expected);
            inner.in_scope(|| assert_eq!(Span::current().trace_headers(), expected));
        });
    });
}

#[test]
fn each_span_hands_on_itself_if_it_is_sampled_and_else_its_transaction() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        let ids = world.sync(|| {
            let outer = info_span!(target: "test", "outer");
            let inner = outer.in_scope(|| info_span!(target: "test", "inner"));
            [outer, inner].map(|span| {
                let headers = span.trace_headers().unwrap();
                headers.sentry_trace().to_owned()
            })
        });
        assert_eq!(ids[0] == ids[1], rate == 0.0, "{ids:?}");
        assert_eq!(
            ids[0].split_once('-').unwrap().0,
            ids[1].split_once('-').unwrap().0
        );
    }
}

#[test]
fn headers_are_added_to_what_a_request_has() {
    let world = World::new();
    world.sync(|| {
        let span = info_span!(target: "test", "job");
        span.continue_trace([HEADER, ("baggage", BAGGAGE)]).unwrap();
        let mut request = http::HeaderMap::new();
        request.insert("baggage", "vendor=1".parse().unwrap());
        request.insert("sentry-trace", "old".parse().unwrap());
        let headers = span.trace_headers().unwrap();
        headers.inject(&mut request);
        assert_eq!(request["baggage"], format!("vendor=1,{BAGGAGE}"));
        assert_eq!(request["sentry-trace"], headers.sentry_trace());
        assert_eq!(request.len(), 2);
    });
}

#[test]
fn there_are_headers_with_tracing_disabled_and_none_without_a_client() {
    let world = World::with(
        |mut options| {
            options.traces_sampling_strategy = TracesSamplingStrategy::Disabled;
            options
        },
        |layer| layer,
    );
    world.sync(|| {
        let span = info_span!(target: "test", "job");
        let headers = span.trace_headers().unwrap();
        assert_eq!(headers.sentry_trace().split('-').count(), 2);
        assert!(headers.baggage().unwrap().contains("sentry-sample_rand=0."));
        assert!(!headers.baggage().unwrap().contains("sentry-sampled"));
    });
    let world = World::new();
    world.hub.client().unwrap().close(None);
    world.sync(|| {
        assert_eq!(info_span!(target: "test", "job").trace_headers(), None);
    });
}

#[test]
fn without_a_layer_the_trace_of_the_current_hub_is_handed_on() {
    let world = World::new();
    tracing::subscriber::with_default(tracing_subscriber::registry(), || {
        let hub = std::sync::Arc::clone(&world.hub);
        sentry::Hub::run(hub, || {
            let scope = sentry::configure_scope(|scope| {
                scope.iter_trace_propagation_headers().next().unwrap().1
            });
            let headers = info_span!(target: "test", "job").trace_headers().unwrap();
            assert_eq!(headers.sentry_trace(), scope);
            assert!(
                headers
                    .baggage()
                    .unwrap()
                    .contains("sentry-public_key=public")
            );

            let transaction = sentry::start_transaction(sentry::TransactionContext::new("a", "b"));
            sentry::configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
            let headers = Span::none().trace_headers().unwrap();
            let (_, own) = transaction.iter_headers().next().unwrap();
            assert_eq!(headers.sentry_trace(), own);
            assert!(headers.baggage().unwrap().contains("sentry-sampled=true"));
        });
    });
}

#[test]
fn an_application_that_continues_a_trace_itself_has_no_sampling_context_to_hand_on() {
    let world = World::new();
    sentry::Hub::run(std::sync::Arc::clone(&world.hub), || {
        let context = sentry::TransactionContext::continue_from_headers(
            "a",
            "b",
            [("sentry-trace", HEADER.1), ("baggage", BAGGAGE)],
        );
        let transaction = sentry::start_transaction(context);
        sentry::configure_scope(|scope| scope.set_span(Some(transaction.into())));
        let headers = Span::none().trace_headers().unwrap();
        assert!(headers.sentry_trace().starts_with(TRACE));
        assert_eq!(headers.baggage(), None);
    });
}

#[test]
fn it_works_under_levels_that_the_layer_is_told() {
    let layer = SentryTracingLayer::new();
    let layer = layer.span_level(tracing::level_filters::LevelFilter::TRACE);
    let world = World::subscribed(tracing_subscriber::registry().with(layer));
    world.sync(|| {
        let span = span!(target: "test", Level::TRACE, "job");
        assert_eq!(span.continue_trace([HEADER]), Ok(()));
    });
    assert_eq!(world.received().only_tx().name, "job");
}

#[test]
fn a_span_that_was_entered_goes_on_with_no_trace_at_any_rate() {
    for rate in RATES {
        let world = World::rated(rate, |options| options, |layer| layer);
        world.sync(|| {
            let _outer = info_span!(target: "test", "outer").entered();
            let inner = info_span!(target: "test", "inner");
            inner.in_scope(|| ());
            let late = inner.continue_trace([HEADER]);
            assert_eq!(late, Err(ContinueTraceError::Started), "{rate:?}");
        });
        let names = world.received().txs().into_iter().map(|tx| tx.name);
        assert!(names.into_iter().all(|name| name == "outer"), "{rate:?}");
    }
}
