//! Code of the application that panics amid something of sentry's, with its locks held: the
//! calls go on as they would without us, and what can still be told is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sentry::protocol::{Event, SpanStatus};
use sentry::{Breadcrumb, ClientOptions, Hub, Level, TransactionContext, TransactionOrSpan};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::{Span, error, info, info_span, instrument};

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentrySpanExt};

use crate::support::alone::alone;
use crate::support::greeter::{ObservedClient, Scripted, reply, request};
use crate::support::received::Received;
use crate::support::world::World;

/// Amid what the application panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amid {
    ConfigureScope,
    WithActive,
    EventProcessor,
    BeforeSend,
    BeforeBreadcrumb,
    TracesSampler,
    /// With the lock held of the call's transaction.
    Transaction,
    /// Of the span that it is in, inside the call.
    Span,
    /// Of a span that it has made itself.
    OwnSpan,
}

const ALL: [Amid; 9] = [
    Amid::ConfigureScope,
    Amid::WithActive,
    Amid::EventProcessor,
    Amid::BeforeSend,
    Amid::BeforeBreadcrumb,
    Amid::TracesSampler,
    Amid::Transaction,
    Amid::Span,
    Amid::OwnSpan,
];

const HARM: &str = "harm";

fn harm_by(message: Option<&str>) {
    assert_ne!(message, Some(HARM), "the application panics");
}

fn options(options: ClientOptions) -> ClientOptions {
    options
        .before_send(|event| {
            harm_by(event.message.as_deref());
            Some(event)
        })
        .before_breadcrumb(|breadcrumb| {
            harm_by(breadcrumb.message.as_deref());
            Some(breadcrumb)
        })
        .traces_sampler(|context: &TransactionContext| {
            harm_by(Some(context.name()));
            1.0
        })
}

/// Panics with the lock of a span held.
fn hold_and_panic(span: &TransactionOrSpan) {
    match span {
        TransactionOrSpan::Transaction(transaction) => {
            let _data = transaction.data();
            harm_by(Some(HARM));
        }
        TransactionOrSpan::Span(span) => {
            let _data = span.data();
            harm_by(Some(HARM));
        }
    }
}

fn span_of_scope() -> TransactionOrSpan {
    sentry::configure_scope(|scope| scope.get_span()).unwrap()
}

impl Amid {
    /// Panics. Called in a span inside the call whose transaction this is.
    fn panic(self, transaction: &TransactionOrSpan) {
        match self {
            Self::ConfigureScope => sentry::configure_scope(|scope| {
                scope.set_tag("half", "done");
                harm_by(Some(HARM));
            }),
            Self::WithActive => Hub::with_active(|_| harm_by(Some(HARM))),
            Self::EventProcessor => {
                sentry::configure_scope(|scope| {
                    scope.add_event_processor(|event: Event<'static>| {
                        harm_by(event.logger.as_deref());
                        Some(event)
                    });
                });
                sentry::capture_event(Event {
                    logger: Some(HARM.to_owned()),
                    ..Event::default()
                });
            }
            Self::BeforeSend => {
                sentry::capture_message(HARM, Level::Info);
            }
            Self::BeforeBreadcrumb => sentry::add_breadcrumb(Breadcrumb {
                message: Some(HARM.to_owned()),
                ..Breadcrumb::default()
            }),
            Self::TracesSampler => {
                sentry::start_transaction(TransactionContext::new(HARM, HARM)).finish();
            }
            Self::Transaction => hold_and_panic(transaction),
            Self::Span => hold_and_panic(&span_of_scope()),
            Self::OwnSpan => {
                let own = span_of_scope().start_child("own", "own").into();
                hold_and_panic(&own);
            }
        }
    }
}

/// What follows a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It goes through the call.
    Falls,
    /// It is caught, and the call does all that calls do.
    Recovers,
    /// It is caught, and the call is dropped.
    Hangs,
}

#[instrument(target = "test", skip_all, fields(late))]
async fn inner(amid: Amid, then: Then, transaction: TransactionOrSpan, hangs: mpsc::Sender<()>) {
    if then == Then::Falls {
        return amid.panic(&transaction);
    }
    catch_unwind(AssertUnwindSafe(|| amid.panic(&transaction))).unwrap_err();
    info!(target: "test", "recovered");
    Span::current().record("late", 1);
    let _ = Span::current().trace_headers();
    info_span!(target: "test", "innermost").in_scope(|| error!(target: "test", "went wrong"));
    if then == Then::Hangs {
        hangs.send(()).await.unwrap();
        std::future::pending::<()>().await;
    }
}

/// Panics in the calls whose name says so.
fn greeter(amid: Amid, then: Then, hangs: mpsc::Sender<()>, next: ObservedClient) -> Scripted {
    Scripted::new().say_hello(move |name| {
        let (hangs, mut next) = (hangs.clone(), next.clone());
        async move {
            if name == HARM {
                inner(amid, then, span_of_scope(), hangs).await;
                next.say_hello(request("next")).await?;
                return Err(Status::internal("after all"));
            }
            Ok(reply(&name))
        }
    })
}

/// What the caller gets of a call that panics, and what Sentry gets of that and of one that
/// comes after it.
fn run(amid: Amid, then: Then) -> (Option<Code>, Received) {
    let world = World::with(options, |layer| layer);
    let code = world.run(async {
        let (hangs, mut is_hanging) = mpsc::channel(1);
        let (last, _arrivals) = Scripted::new().serve_unobserved().await;
        let next = last.observed_client(SentryClientLayer::new()).await;
        let greeter = greeter(amid, then, hangs, next);
        let server = greeter.serve_with(SentryServerLayer::new()).await;
        let mut client = server.client().await;
        let code = tokio::select! {
            result = client.say_hello(request(HARM)) => Some(result.unwrap_err().code()),
            Some(()) = is_hanging.recv() => None,
        };
        let after = client.say_hello(request("Ferris")).await.unwrap();
        assert_eq!(after.into_inner(), reply("Ferris"));
        drop(client);
        server.stop().await;
        code
    });
    (code, world.received())
}

/// Status and number of spans of each transaction, and what the events say.
type Told = (Vec<(SpanStatus, usize)>, Vec<String>);

fn told(received: &Received) -> Told {
    let mut transactions: Vec<_> = received
        .txs()
        .into_iter()
        .map(|tx| (tx.status, tx.spans.len()))
        .collect();
    // A call that its caller has left may end after the next one.
    transactions.sort_by_key(|(status, _)| *status == SpanStatus::Ok);
    let text = |event: &Event<'_>| {
        let exception = event.exception.last().and_then(|one| one.value.clone());
        let text = event.message.clone().or(exception).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    (transactions, received.events.iter().map(text).collect())
}

fn expected(amid: Amid, then: Then) -> Told {
    // What happens in the span, that itself, and the call to another server.
    let (status, spans, event) = match then {
        Then::Falls => (
            SpanStatus::InternalError,
            1,
            "assertion `left != right` failed",
        ),
        Then::Recovers => (SpanStatus::InternalError, 3, "went wrong"),
        Then::Hangs => (SpanStatus::Cancelled, 2, "went wrong"),
    };
    let after = (SpanStatus::Ok, 0);
    let (transactions, events) = match (amid, then) {
        // sentry-core cannot send it any more.
        (Amid::Transaction, _) => (vec![after], vec![event]),
        // Nor this one, with what is told in it.
        (Amid::Span, Then::Falls) => (vec![(status, 0), after], vec![event]),
        (Amid::Span, Then::Recovers) => (vec![(status, 1), after], vec!["after all"]),
        (Amid::Span, Then::Hangs) => (vec![(status, 0), after], vec![]),
        _ => (vec![(status, spans), after], vec![event]),
    };
    let said = |text: &str| match then {
        Then::Falls => format!("{text}: the application panics"),
        _ => text.to_owned(),
    };
    (transactions, events.into_iter().map(said).collect())
}

#[test]
fn what_panics_with_a_lock_of_sentrys_costs_what_is_behind_that_lock() {
    let name = "poisoned::what_panics_with_a_lock_of_sentrys_costs_what_is_behind_that_lock";
    alone(name, || {
        for then in [Then::Falls, Then::Recovers, Then::Hangs] {
            for amid in ALL {
                let (code, received) = run(amid, then);
                let fails = (then != Then::Hangs).then_some(Code::Internal);
                assert_eq!(code, fails, "{amid:?} {then:?}");
                assert_eq!(told(&received), expected(amid, then), "{amid:?} {then:?}");
            }
        }
    });
}

/// A transaction of the application around all calls, whose lock is poisoned.
#[test]
fn calls_in_a_transaction_of_the_application_that_is_poisoned_are_made() {
    let world = World::with(options, |layer| layer);
    let manual = world
        .hub
        .start_transaction(TransactionContext::new("manual", "manual"));
    let manual = TransactionOrSpan::from(manual);
    let scoped = manual.clone();
    world
        .hub
        .configure_scope(move |scope| scope.set_span(Some(scoped)));
    catch_unwind(AssertUnwindSafe(|| hold_and_panic(&manual))).unwrap_err();
    let call = Scripted::new().say_hello(|name| async move {
        info!(target: "test", "in it");
        info_span!(target: "test", "inside").in_scope(|| error!(target: "test", "went wrong"));
        Ok(reply(&name))
    });
    assert_eq!(world.run(call.say_hello_once("a")).unwrap(), reply("a"));
    let received = world.received();
    // It is lost, and nothing is told in it: they are transactions of their own.
    let tx = received.only_tx();
    assert_eq!((tx.status, tx.spans.len()), (SpanStatus::Ok, 1));
    assert_eq!(received.only_event().message.as_deref(), Some("went wrong"));
    // Nor is it a parent for those that want one.
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let layer = SentryClientLayer::new().only_if_parent(true);
        let mut client = server.observed_client(layer).await;
        client.say_hello(request("a")).await.unwrap();
    });
    assert_eq!(world.received().txs(), []);
}
