//! Tracing events, and what a handler captures itself.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sentry::integrations::tracing::{ErrorLayer, LogLayer};
use sentry::protocol::{EnvelopeItem, ItemContainer, SpanStatus, Value};
use sentry::{Breadcrumb, Hub, Level};
use serde_json::json;
use tonic::Status;
use tracing::level_filters::LevelFilter;
use tracing::{debug, error, info, info_span, instrument, warn};
use tracing_subscriber::layer::{Layer, SubscriberExt};

use sentry_tonic::{SentrySpanExt, SentryTracingLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::{Sp, event_trace, map, messages, trace};
use crate::support::world::World;

#[derive(Debug)]
struct Inner;

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inner")
    }
}

impl Error for Inner {}

#[derive(Debug)]
struct Outer(Inner);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn events_become_breadcrumbs_and_errors() {
    let world = World::new();
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        debug!(target: "test", "not kept");
        info!(target: "test", number = 1, text = "t", debug = ?[1], "with fields");
        let outer = Outer(Inner);
        warn!(target: "test", error = &outer as &dyn Error, "with an error");
        error!(target: "test", error = &outer as &dyn Error, "failed");
        error!(target: "test", "failed again");
    });
    let received = world.received();
    let [first, second] = received.events.as_slice() else {
        panic!("{:?}", received.events)
    };
    let breadcrumb = |level, message: &str, data: Vec<(&'static str, Value)>| Breadcrumb {
        ty: "log".to_owned(),
        category: Some("test".to_owned()),
        level,
        message: Some(message.to_owned()),
        data: map(data).into_iter().collect(),
        timestamp: std::time::UNIX_EPOCH,
    };
    let expected = [
        breadcrumb(
            Level::Info,
            "with fields",
            vec![
                ("number", json!(1)),
                ("text", json!("t")),
                ("debug", json!("[1]")),
            ],
        ),
        breadcrumb(
            Level::Warning,
            "with an error",
            vec![("error", json!(["Outer: outer", "Inner: inner"]))],
        ),
    ];
    for event in [first, second] {
        let breadcrumbs: Vec<_> = event
            .breadcrumbs
            .iter()
            .map(|breadcrumb| Breadcrumb {
                timestamp: std::time::UNIX_EPOCH,
                ..breadcrumb.clone()
            })
            .collect();
        assert_eq!(breadcrumbs, expected);
        assert_eq!(event.level, Level::Error);
        assert_eq!(event.logger.as_deref(), Some("test"));
        assert_eq!(event.transaction.as_deref(), Some("job"));
    }
    assert_eq!(first.message.as_deref(), Some("failed"));
    let exceptions: Vec<_> = first
        .exception
        .iter()
        .map(|exception| (exception.ty.as_str(), exception.value.as_deref().unwrap()))
        .collect();
    assert_eq!(exceptions, [("Inner", "inner"), ("Outer", "outer")]);
    assert_eq!(second.message.as_deref(), Some("failed again"));
}

#[test]
fn breadcrumbs_obey_the_client() {
    let world = World::with(
        |options| {
            options
                .traces_sample_rate(1.0)
                .max_breadcrumbs(3)
                .before_breadcrumb(|mut breadcrumb| {
                    let message = breadcrumb.message.as_mut()?;
                    message.push('!');
                    (message != "2!").then_some(breadcrumb)
                })
        },
        |layer| layer,
    );
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        for n in 0..5 {
            info!("{n}");
        }
        let own = Breadcrumb {
            message: Some("own".to_owned()),
            ..Breadcrumb::default()
        };
        sentry::add_breadcrumb(own);
        error!("failed");
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(messages(&event.breadcrumbs), ["3!", "4!", "own!"]);
}

#[test]
fn before_breadcrumb_may_trace() {
    let world = World::with(
        |options| {
            options.before_breadcrumb(|breadcrumb| {
                info!("in before_breadcrumb");
                Some(breadcrumb)
            })
        },
        |layer| layer,
    );
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        info!("by tracing");
        // sentry-core calls `before_breadcrumb` for this one with its hub locked.
        sentry::add_breadcrumb(Breadcrumb {
            message: Some("own".to_owned()),
            ..Breadcrumb::default()
        });
        error!("failed");
    });
    let received = world.received();
    let breadcrumbs = messages(&received.only_event().breadcrumbs);
    assert_eq!(breadcrumbs[..2], ["by tracing", "own"]);
}

#[test]
fn levels_of_breadcrumbs_and_the_capture_of_errors_can_be_set() {
    let world = World::with(
        |options| options.traces_sample_rate(1.0),
        |layer| {
            layer
                .breadcrumb_level(LevelFilter::DEBUG)
                .capture_errors(false)
        },
    );
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        debug!("debugged");
        error!("failed");
        sentry::capture_message("captured", Level::Error);
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.message.as_deref(), Some("captured"));
    assert_eq!(messages(&event.breadcrumbs), ["debugged", "failed"]);
    assert_eq!(received.only_tx().status, SpanStatus::InternalError);
}

#[test]
fn events_outside_of_spans_go_to_the_hub() {
    let world = World::new();
    world.sync(|| {
        info!("before");
        error!("failed");
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.message.as_deref(), Some("failed"));
    assert_eq!(messages(&event.breadcrumbs), ["before"]);
    assert_eq!(event.transaction, None);
}

#[test]
fn events_belong_to_the_span_they_name() {
    // Without it, one that names no span belongs to the span that is entered.
    let world = World::new().pinned();
    world.sync(|| {
        let a = info_span!(target: "test", "a");
        let b = info_span!(target: "test", "b").entered();
        info!(parent: &a, "of a");
        info!("of b");
        error!(parent: &a, "a failed");
        error!("b failed");
        error!(parent: None, "nobody failed");
        assert!(Hub::current().last_event_id().is_some());
        drop(b);
    });
    let received = world.received();
    let stories: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            (
                event.message.as_deref().unwrap(),
                event.transaction.as_deref(),
                messages(&event.breadcrumbs),
            )
        })
        .collect();
    assert_eq!(
        stories,
        [
            ("a failed", Some("a"), vec!["of a"]),
            ("b failed", Some("b"), vec!["of b"]),
            ("nobody failed", None, vec![]),
        ]
    );
    for name in ["a", "b"] {
        let transaction = received
            .transactions
            .iter()
            .find(|t| t.name.as_deref() == Some(name));
        let trace = trace(transaction.unwrap());
        let event = received
            .events
            .iter()
            .find(|e| e.transaction.as_deref() == Some(name));
        assert_eq!(event_trace(event.unwrap()).trace_id, trace.trace_id);
        assert_eq!(trace.status, Some(SpanStatus::InternalError));
    }
}

#[test]
fn what_a_handler_captures_lands_in_its_rpc() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        world.run(async {
            let greeter = Scripted::new().say_hello(|_| async move {
                sentry::configure_scope(|scope| scope.set_tag("by", "handler"));
                info!("on the way");
                let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
                let child = span.start_child("db.query", "SELECT 1");
                child.set_status(SpanStatus::Ok);
                child.finish();
                tokio::task::yield_now().await;
                sentry::capture_error(&Outer(Inner));
                Err::<crate::support::helloworld::HelloReply, _>(Status::internal("failed"))
            });
            greeter.say_hello_once("a").await.unwrap_err();
        });
        let received = world.received();
        let event = received.only_event();
        assert_eq!(event.exception.len(), 2);
        assert_eq!(event.tags["by"], "handler");
        assert_eq!(messages(&event.breadcrumbs), ["on the way"]);
        assert_eq!(received.transactions.len(), usize::from(rate > 0.0));
        for transaction in &received.transactions {
            assert_eq!(transaction.tags["by"], "handler");
            assert_eq!(trace(transaction).trace_id, event_trace(event).trace_id);
            assert_eq!(trace(transaction).span_id, event_trace(event).span_id);
            let tx = received.only_tx();
            assert_eq!(tx.spans, [Sp::ok("SELECT 1", &tx.name).op("db.query")]);
            assert_eq!(tx.status, SpanStatus::InternalError);
        }
    }
}

#[test]
fn streams_capture_in_their_rpc_to_the_last_byte() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello_stream(|_| async move {
            sentry::configure_scope(|scope| scope.set_tag("by", "handler"));
            let mut n = 0;
            let replies = tokio_stream::iter([(); 3]);
            let replies = tokio_stream::StreamExt::map(replies, move |()| {
                n += 1;
                info!("message {n}");
                match n {
                    3 => {
                        error!("torn");
                        Err(Status::data_loss("torn"))
                    }
                    _ => Ok(reply("a")),
                }
            });
            Ok(Box::pin(replies) as _)
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        let mut replies = client
            .say_hello_stream(request("a"))
            .await
            .unwrap()
            .into_inner();
        while let Ok(Some(_)) = replies.message().await {}
        drop((client, replies));
        server.stop().await;
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(
        messages(&event.breadcrumbs),
        ["message 1", "message 2", "message 3"]
    );
    assert_eq!(event.tags["by"], "handler");
    let transaction = received.only_transaction();
    assert_eq!(event_trace(event).span_id, trace(transaction).span_id);
    assert_eq!(received.only_tx().status, SpanStatus::DataLoss);
}

#[test]
fn destructors_of_a_dropped_call_are_in_the_rpc() {
    struct Tells;
    impl Drop for Tells {
        fn drop(&mut self) {
            error!("dropped");
        }
    }
    let world = World::new();
    world.run(async {
        let started = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&started);
        let greeter = Scripted::new().say_hello(move |_| {
            let tells = Tells;
            notify.notify_one();
            async move {
                let _tells = tells;
                std::future::pending().await
            }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        tokio::select! {
            _ = client.say_hello(request("a")) => unreachable!(),
            () = started.notified() => {}
        }
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let event = received.only_event();
    let transaction = received.only_transaction();
    assert_eq!(event_trace(event).span_id, trace(transaction).span_id);
    assert_eq!(received.only_tx().status, SpanStatus::Cancelled);
}

#[test]
fn logs_link_to_the_span_they_are_in() {
    let world = World::subscribed(
        tracing_subscriber::registry()
            .with(SentryTracingLayer::new())
            .with(LogLayer::new().with_filter(LevelFilter::INFO)),
    );
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            info!("in the call");
            info_span!(target: "test", "inner").in_scope(|| info!("in the span"));
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    world.hub.client().unwrap().flush(None);
    let received = world.received();
    let transaction = received.only_transaction();
    let trace = trace(transaction);
    let logs: Vec<_> = received
        .others
        .iter()
        .filter_map(|item| match item {
            EnvelopeItem::ItemContainer(ItemContainer::Logs(logs)) => Some(logs),
            _ => None,
        })
        .flatten()
        .map(|log| {
            assert_eq!(log.trace_id, Some(trace.trace_id));
            (log.body.clone(), log.attributes["parent_span_id"].0.clone())
        })
        .collect();
    assert_eq!(
        logs,
        [
            ("in the call".to_owned(), json!(trace.span_id.to_string())),
            (
                "in the span".to_owned(),
                json!(transaction.spans[0].span_id.to_string())
            ),
        ]
    );
}

#[test]
fn an_error_layer_of_the_applications_own_captures_in_the_rpc() {
    let world = World::subscribed(
        tracing_subscriber::registry()
            .with(SentryTracingLayer::new().capture_errors(false))
            .with(ErrorLayer::new().with_filter(LevelFilter::WARN)),
    );
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        warn!("careful");
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.level, Level::Warning);
    assert_eq!(event.transaction.as_deref(), Some("job"));
}

#[test]
fn callbacks_that_trace_do_not_call_themselves() {
    let world = World::with(
        |options| {
            options
                .traces_sampler(|_| {
                    let _span = info_span!(target: "test", "in the sampler").entered();
                    error!("in the sampler");
                    1.0
                })
                .before_send(|event| {
                    let _span = info_span!(target: "test", "in before_send").entered();
                    error!("in before_send");
                    Some(event)
                })
        },
        |layer| layer,
    );
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        error!("failed");
    });
    let received = world.received();
    assert_eq!(received.only_event().message.as_deref(), Some("failed"));
    assert_eq!(received.only_tx().spans, []);
}

#[instrument(target = "test", err(level = "warn"))]
fn fails_mildly() -> Result<(), String> {
    Err("mildly".to_owned())
}

#[test]
fn an_error_without_a_message_is_the_message() {
    let world = World::new();
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        fails_mildly().unwrap_err();
        error!("failed");
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(messages(&event.breadcrumbs), ["mildly"]);
    assert!(event.breadcrumbs[0].data.is_empty());
}

#[test]
fn callbacks_that_panic_harm_no_call_and_leave_nothing_behind() {
    let world = World::with(
        |options| {
            options
                .traces_sampler(|context| match context.name() {
                    "calm" => 1.0,
                    _ => panic!("the sampler panics"),
                })
                .before_send(|_| panic!("before_send panics"))
                .before_breadcrumb(|_| panic!("before_breadcrumb panics"))
        },
        |layer| layer,
    );
    let before = Hub::current();
    world.sync(|| {
        let calm = info_span!(target: "test", "calm");
        let job = info_span!(target: "test", "job");
        job.in_scope(|| {
            info!("a breadcrumb");
            error!("an error");
            error!(parent: &calm, "an error elsewhere");
            info_span!(target: "test", "inside").in_scope(|| {});
        });
        drop(info_span!(target: "test", "never entered"));
    });
    assert!(Arc::ptr_eq(&before, &Hub::current()));
    world.run(async {
        let answer = Scripted::new().say_hello_once("a").await.unwrap();
        assert_eq!(answer, reply("a"));
    });
    let received = world.received();
    let names: Vec<_> = received.txs().into_iter().map(|tx| tx.name).collect();
    assert_eq!(names, ["calm"]);
    assert_eq!(received.events.len(), 0);
}

#[test]
fn a_transport_that_panics_harms_no_call() {
    struct Panics;
    impl sentry::Transport for Panics {
        fn send_envelope(&self, _: sentry::Envelope) {
            panic!("the transport panics");
        }
    }
    let options = sentry::ClientOptions::new()
        .dsn(crate::support::world::DSN)
        .traces_sample_rate(1.0)
        .transport(|_: &sentry::ClientOptions| Arc::new(Panics) as Arc<dyn sentry::Transport>);
    let client = Arc::new(sentry::Client::from(options));
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    let layer = SentryTracingLayer::new().hub(hub);
    let world = World::subscribed(tracing_subscriber::registry().with(layer));
    world.run(async {
        let answer = Scripted::new().say_hello_once("a").await.unwrap();
        assert_eq!(answer, reply("a"));
    });
}

#[test]
fn a_lock_of_sentrys_that_a_handler_poisons_costs_that_call_alone() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            let span = sentry::configure_scope(|scope| scope.get_span());
            if let Some(sentry::TransactionOrSpan::Transaction(transaction)) = span {
                let _data = transaction.data();
                assert_ne!(name, "panic", "the handler panics with sentry's lock held");
            }
            Ok(reply(&name))
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        client.say_hello(request("panic")).await.unwrap_err();
        client.say_hello(request("a")).await.unwrap();
        drop(client);
        server.stop().await;
    });
    assert_eq!(world.received().only_tx().status, SpanStatus::Ok);
}

#[test]
fn a_callback_that_asks_for_headers_gets_none_and_does_not_hang() {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let world = World::with(
            |options| {
                options.before_breadcrumb(|breadcrumb| {
                    assert_eq!(tracing::Span::none().trace_headers(), None);
                    Some(breadcrumb)
                })
            },
            |layer| layer,
        );
        // On the hub, and on the trail of a root.
        world.sync(|| {
            info!(target: "test", "outside");
            info_span!(target: "test", "job").in_scope(|| info!(target: "test", "inside"));
            world.hub.capture_message("with both", Level::Info);
        });
        let event = world.received().only_event().clone();
        done.send(messages(&event.breadcrumbs.values) == ["outside"])
    });
    let is_kept = finished.recv_timeout(Duration::from_secs(30));
    assert_eq!(is_kept, Ok(true));
}

#[test]
fn an_error_keeps_the_transaction_that_it_names() {
    let world = World::new();
    world.sync(|| {
        info_span!(target: "test", "job").in_scope(|| {
            sentry::capture_event(sentry::protocol::Event {
                transaction: Some("its own".to_owned()),
                ..sentry::protocol::Event::default()
            })
        });
    });
    let received = world.received();
    assert_eq!(
        received.only_event().transaction.as_deref(),
        Some("its own")
    );
}

#[test]
fn an_error_in_a_manual_transaction_has_what_led_to_it_too() {
    let world = World::new();
    let transaction = world
        .hub
        .start_transaction(sentry::TransactionContext::new("manual", "manual"));
    world
        .hub
        .configure_scope(|scope| scope.set_span(Some(transaction.into())));
    world.sync(|| {
        info!(target: "test", "before");
        info_span!(target: "test", "job").in_scope(|| {
            info!(target: "test", "inside");
            error!(target: "test", "failed");
        });
    });
    let received = world.received();
    let breadcrumbs = &received.only_event().breadcrumbs.values;
    assert_eq!(messages(breadcrumbs), ["before", "inside"]);
}
