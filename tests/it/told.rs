//! What is told once, what is told each time, and what is let go with a call.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, panic_any};
use std::sync::{Arc, Mutex};

use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::Event;
use sentry::{Breadcrumb, ClientOptions, Hub, Level, SentryFutureExt};
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tracing::{Instrument, Span, error, info_span};

use sentry_tonic::{SentryServerLayer, StatusExt};

use crate::support::alone::alone;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::messages;
use crate::support::world::World;

/// The message of each, or what its outermost exception says.
fn texts(events: &[Event<'_>]) -> Vec<String> {
    let exception = |event: &Event<'_>| event.exception.last()?.value.clone();
    let text = |event| exception(event).unwrap_or_default();
    let texts = events.iter();
    texts
        .map(|event| event.message.clone().unwrap_or_else(|| text(event)))
        .collect()
}

fn with_hook(options: ClientOptions) -> ClientOptions {
    let options = options.traces_sample_rate(1.0);
    options.add_integration(PanicIntegration::new())
}

/// What Sentry receives of a call whose handler does this, and succeeds.
fn told_in_call(handler: impl Fn() + Send + Sync + 'static) -> Vec<String> {
    let world = World::with(with_hook, |layer| layer);
    let greeter = Scripted::new().say_hello(move |name| {
        handler();
        async move { Ok(reply(&name)) }
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap();
    texts(&world.received().events)
}

/// Runs once: a task that outlives the call which spawned it.
struct Later {
    start: Mutex<Option<oneshot::Receiver<()>>>,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Later {
    fn new() -> (Arc<Self>, oneshot::Sender<()>, oneshot::Receiver<()>) {
        let (start, started) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let later = Self {
            start: Mutex::new(Some(started)),
            done: Mutex::new(Some(done)),
        };
        (Arc::new(later), start, is_done)
    }

    async fn run(self: Arc<Self>, f: impl FnOnce()) {
        let start = self.start.lock().unwrap().take().unwrap();
        start.await.unwrap();
        let done = self.done.lock().unwrap().take().unwrap();
        f();
        done.send(()).unwrap();
    }
}

#[test]
fn errors_that_have_a_part_in_common_are_different() {
    type Case = fn();
    let cases: [(Case, [&str; 2]); 4] = [
        (
            || {
                error!("cannot read a.txt: No such file or directory");
                error!("cannot read b.txt: No such file or directory");
            },
            [
                "cannot read a.txt: No such file or directory",
                "cannot read b.txt: No such file or directory",
            ],
        ),
        (
            || {
                error!(table = "users", "cannot load");
                error!(table = "orders", "cannot load");
            },
            ["cannot load", "cannot load"],
        ),
        (
            || {
                error!(error = %"timeout", "cannot charge the card");
                error!(error = %"timeout", "cannot send the mail");
            },
            ["cannot charge the card", "cannot send the mail"],
        ),
        (
            || {
                error!("first");
                error!("second");
            },
            ["first", "second"],
        ),
    ];
    for (handler, expected) in cases {
        assert_eq!(told_in_call(handler), expected);
    }
}

#[test]
fn an_error_is_told_once_with_more_or_with_less_around_it() {
    type Case = fn();
    let cases: [Case; 5] = [
        || {
            error!("refused");
            error!("refused");
        },
        || {
            error!("refused");
            error!("cannot connect: refused");
        },
        || {
            error!(error = %"refused", "cannot connect");
            error!("refused");
        },
        || {
            error!(table = "users", "cannot load");
            error!(table = "users", "cannot load");
        },
        || {
            error!("cannot connect: refused");
            error!(user = 7, "cannot greet: cannot connect: refused");
        },
    ];
    for handler in cases {
        let told = told_in_call(handler);
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[test]
fn a_panic_that_ends_no_call_is_told_whatever_was_told_before() {
    let caught = told_in_call(|| {
        error!("the cache is cold");
        std::panic::catch_unwind(|| panic!("caught")).unwrap_err();
    });
    assert_eq!(caught, ["the cache is cold", "caught"]);
    let world = World::with(with_hook, |layer| layer);
    let greeter = Scripted::new().say_hello(|name| async move {
        sentry::capture_message("audit", Level::Error);
        let task = async { panic!("in a task") };
        let task = tokio::spawn(task.instrument(info_span!("task")));
        task.await.unwrap_err();
        Ok(reply(&name))
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap();
    assert_eq!(texts(&world.received().events), ["audit", "in a task"]);
}

#[test]
fn panics_that_are_caught_are_told_as_they_were() {
    let world = World::with(with_hook, |layer| layer);
    let greeter = Scripted::new().say_hello(|_| async {
        let by_hand = |message: &str| Breadcrumb {
            message: Some(message.to_owned()),
            ..Breadcrumb::default()
        };
        sentry::add_breadcrumb(by_hand("before"));
        error!("the cache is cold");
        std::panic::catch_unwind(|| panic!("first")).unwrap_err();
        panic!("that ends the call")
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    let events = world.received().events;
    assert_eq!(texts(&events), ["the cache is cold", "first"]);
    assert_eq!(messages(&events[1].breadcrumbs), ["before"]);
}

#[test]
fn a_panic_hook_that_logs_tells_nothing_twice() {
    alone("told::a_panic_hook_that_logs_tells_nothing_twice", || {
        std::panic::set_hook(Box::new(|info| error!("{info}")));
        // sentry's integration calls that hook after its own.
        let world = World::with(with_hook, |layer| layer);
        let greeter = Scripted::new().say_hello(|_| async { panic!("boom") });
        world.run(greeter.say_hello_once("Ferris")).unwrap_err();
        assert_eq!(texts(&world.received().events), ["boom"]);
    });
}

#[test]
fn no_callback_runs_in_a_panic_hook() {
    alone("told::no_callback_runs_in_a_panic_hook", || {
        let options = |options| {
            with_hook(options).before_breadcrumb(|breadcrumb| {
                assert_ne!(breadcrumb.message.as_deref(), Some("boom"));
                Some(breadcrumb)
            })
        };
        let world = World::with(options, |layer| layer);
        let greeter = Scripted::new().say_hello(|_| async {
            sentry::capture_message("audit", Level::Error);
            panic!("boom")
        });
        let status = world.run(greeter.say_hello_once("Ferris")).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(texts(&world.received().events), ["audit"]);
    });
}

#[test]
fn after_a_call_everything_is_told() {
    let world = World::new();
    world.run(async {
        let (later, start, done) = Later::new();
        let greeter = Scripted::new().say_hello(move |name| {
            let later = Arc::clone(&later);
            async move {
                error!("disk full");
                let hub = Hub::new_from_top(Hub::current());
                tokio::spawn(later.run(|| error!("disk full")).bind_hub(hub));
                Ok(reply(&name))
            }
        });
        greeter.say_hello_once("Ferris").await.unwrap();
        start.send(()).unwrap();
        done.await.unwrap();
    });
    assert_eq!(texts(&world.received().events), ["disk full", "disk full"]);
}

#[test]
fn what_is_told_through_a_handle_of_the_hub_is_told() {
    let world = World::new();
    let greeter = Scripted::new().say_hello(|_| async {
        let hub = Hub::current();
        let capture = move || hub.capture_message("from a thread", Level::Error);
        std::thread::spawn(capture).join().unwrap();
        Err(Status::internal("failed"))
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    assert_eq!(texts(&world.received().events), ["from a thread"]);
}

#[test]
fn before_send_may_capture() {
    let options = |options: ClientOptions| {
        options.traces_sample_rate(1.0).before_send(|event| {
            if event.message.as_deref() != Some("also") {
                sentry::capture_message("also", Level::Info);
            }
            Some(event)
        })
    };
    let world = World::with(options, |layer| layer);
    let greeter = Scripted::new().say_hello(|_| async {
        error!("disk full");
        error!("disk full");
        Err(Status::internal("disk full"))
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    assert_eq!(texts(&world.received().events), ["also", "disk full"]);
}

#[test]
fn a_call_in_which_something_was_told_leaves_nothing_behind() {
    for tells in [false, true] {
        let token = Arc::new(());
        let world = World::new();
        let held = Arc::clone(&token);
        let greeter = Scripted::new().say_hello(move |name| {
            let held = Arc::clone(&held);
            async move {
                sentry::configure_scope(|scope| {
                    scope.add_event_processor(move |event| {
                        let _ = &held;
                        Some(event)
                    });
                });
                if tells {
                    sentry::capture_message("told", Level::Info);
                }
                Ok(reply(&name))
            }
        });
        world.run(greeter.say_hello_once("Ferris")).unwrap();
        drop(world);
        assert_eq!(Arc::strong_count(&token), 1, "{tells}");
    }
}

/// A source that holds the span it was made in, as those with a `SpanTrace` do.
#[derive(Debug)]
struct WithSpan(#[expect(dead_code, reason = "held")] (Span, Arc<()>));

impl fmt::Display for WithSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("with its span")
    }
}

impl Error for WithSpan {}

#[test]
fn the_source_of_a_status_that_is_never_sent_is_dropped() {
    let token = Arc::new(());
    let world = World::new();
    let held = Arc::clone(&token);
    world.run(async {
        let (later, start, done) = Later::new();
        let greeter = Scripted::new().say_hello(move |name| {
            let (later, held) = (Arc::clone(&later), Arc::clone(&held));
            async move {
                let fail = move || {
                    let source = WithSpan((Span::current(), held));
                    drop(Status::internal("too late").with_source(source));
                };
                tokio::spawn(later.run(fail).in_current_span());
                Ok(reply(&name))
            }
        });
        greeter.say_hello_once("Ferris").await.unwrap();
        start.send(()).unwrap();
        done.await.unwrap();
    });
    drop(world);
    assert_eq!(Arc::strong_count(&token), 1);
}

/// Panics when it is dropped, unless it is dropped by a panic.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bomb")
    }
}

impl Error for Bomb {}

#[test]
fn what_panics_once_more_as_it_is_dropped_harms_no_call() {
    let not_found = || Scripted::new().say_hello(|_| async { Err(Status::not_found("nobody")) });
    let panics = Scripted::new().say_hello(|_| async { panic_any(Bomb) });
    let keeps = Scripted::new().say_hello(|_| async {
        let failed = Status::internal("failed").with_source(Bomb);
        // Dropped by a panic.
        let drop_it = AssertUnwindSafe(|| {
            let _failed = failed;
            panic!("dropped")
        });
        std::panic::catch_unwind(drop_it).unwrap_err();
        Err(Status::not_found("nobody"))
    });
    let layer = SentryServerLayer::new;
    for (layer, greeter, code) in [
        (
            layer().capture_if(|_| panic_any(Bomb)),
            not_found(),
            Code::NotFound,
        ),
        (
            layer().identify_caller(|_| panic_any(Bomb)),
            not_found(),
            Code::NotFound,
        ),
        (
            layer().span_name(|_| panic_any(Bomb)),
            not_found(),
            Code::NotFound,
        ),
        (
            layer().ignore_if(|_| panic_any(Bomb)),
            not_found(),
            Code::NotFound,
        ),
        (layer(), keeps, Code::NotFound),
        (layer(), panics, Code::Internal),
    ] {
        let world = World::new();
        let status = world.run(async {
            let server = greeter.serve_with(layer).await;
            let mut client = server.client().await;
            let status = client.say_hello(request("Ferris")).await.unwrap_err();
            drop(client);
            server.stop().await;
            status
        });
        assert_eq!(status.code(), code);
    }
}

#[test]
fn a_thread_tells_on_after_a_callback_that_panics_twice() {
    let options = |options: ClientOptions| {
        options.before_send(|event| match event.message.as_deref() {
            Some("first") => panic_any(Bomb),
            _ => Some(event),
        })
    };
    let world = World::with(options, |layer| layer);
    world.sync(|| {
        error!("first");
        error!("second");
    });
    assert_eq!(texts(&world.received().events), ["second"]);
}
