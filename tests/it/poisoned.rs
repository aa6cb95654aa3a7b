//! Code of the application that panics amid something of sentry's, with its locks held: the
//! calls go on as they would without us, and what can still be told is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sentry::protocol::Event;
use sentry::{Breadcrumb, ClientOptions, Hub, Level, TransactionContext, TransactionOrSpan};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::{Span, error, info, info_span, instrument};

use sentry_tonic::{GrpcClientLayer, GrpcServerLayer, SentrySpanExt};

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

/// What the caller gets of a call that panics, and then of one that does not; and what
/// Sentry gets.
fn run(amid: Amid, then: Then) -> (Option<Status>, Received, Received) {
    let world = World::with(options, |layer| layer);
    let (status, first) = world.run(async {
        let (hangs, mut is_hanging) = mpsc::channel(1);
        let (last, _arrivals) = Scripted::new().serve_unobserved().await;
        let next = last.observed_client(GrpcClientLayer::new()).await;
        let greeter = greeter(amid, then, hangs, next);
        let server = greeter.serve_with(GrpcServerLayer::new()).await;
        let mut client = server.client().await;
        let status = tokio::select! {
            result = client.say_hello(request(HARM)) => Some(result.unwrap_err()),
            Some(()) = is_hanging.recv() => None,
        };
        // A server tells of a call that its caller has left once it hears of it.
        let again = client.say_hello(request("Ferris")).await.unwrap();
        assert_eq!(again.into_inner(), reply("Ferris"));
        drop(client);
        server.stop().await;
        drop(last);
        (status, world.received())
    });
    (status, first, world.received())
}

#[test]
fn what_panics_with_a_lock_of_sentrys_harms_no_other_call() {
    let name = "poisoned::what_panics_with_a_lock_of_sentrys_harms_no_other_call";
    alone(name, || {
        for then in [Then::Falls, Then::Recovers, Then::Hangs] {
            for amid in ALL {
                let (status, received, _) = run(amid, then);
                let code = status.map(|status| status.code());
                println!(
                    "{amid:?} {then:?} {code:?} {:?} {:?} {:?}",
                    received.statuses(),
                    received
                        .txs()
                        .iter()
                        .map(|tx| tx.spans.len())
                        .collect::<Vec<_>>(),
                    received
                        .events
                        .iter()
                        .map(|e| e
                            .message
                            .clone()
                            .or(e.exception.last().and_then(|e| e.value.clone())))
                        .collect::<Vec<_>>()
                );
                let expected = match then {
                    Then::Hangs => None,
                    _ => Some(Code::Internal),
                };
                assert_eq!(code, expected, "{amid:?} {then:?}");
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
    let reply = world.run(
        Scripted::new()
            .say_hello(|name| async move {
                info!(target: "test", "in it");
                error!(target: "test", "went wrong");
                info_span!(target: "test", "inside").in_scope(|| ());
                Ok(reply(&name))
            })
            .say_hello_once("Ferris"),
    );
    assert_eq!(reply.unwrap(), crate::support::greeter::reply("Ferris"));
    let received = world.received();
    println!("{:?} {:?}", received.statuses(), received.events);
}
