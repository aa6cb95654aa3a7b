//! A wall clock that is set while calls are made.
//!
//! Each test runs in a process into which `tests/clock/step.rs` is preloaded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use sentry::protocol::{EnvelopeItem, SpanStatus};
use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientOptions, Hub, SessionMode};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::Status;
use tracing::{error, info, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer, TraceTransport};

use crate::support::alone::alone_with;
use crate::support::gated::{Gated, LONG};
use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::received::messages;
use crate::support::story::{self, Story};
use crate::support::world::World;

const FILE: &str = "CLOCK_STEP_FILE";

/// The wall clock of this process.
#[derive(Clone)]
struct Clock(Arc<File>);

/// By how many seconds a clock is set.
#[derive(Debug, Clone, Copy)]
enum Step {
    By(i64),
    /// To the day before the Unix epoch.
    BeforeEpoch,
}

const YEAR: i64 = 365 * 24 * 3600;

const STEPS: [Step; 4] = [
    Step::By(-3600),
    Step::By(3600),
    Step::By(-50 * YEAR),
    Step::BeforeEpoch,
];

impl Clock {
    /// Sets it, from what it really is.
    fn set(&self, step: Step) {
        self.write(0);
        let now = SystemTime::now();
        let seconds = match step {
            Step::By(seconds) => seconds,
            Step::BeforeEpoch => {
                let now = now.duration_since(UNIX_EPOCH).unwrap();
                -i64::try_from(now.as_secs()).unwrap() - 24 * 3600
            }
        };
        self.write(seconds);
        let moved = match SystemTime::now().duration_since(now) {
            Ok(moved) => i64::try_from(moved.as_secs()).unwrap(),
            Err(moved) => -i64::try_from(moved.duration().as_secs()).unwrap(),
        };
        assert!(moved.abs_diff(seconds) < 60, "it moved by {moved} seconds");
    }

    fn set_right(&self) {
        self.write(0);
    }

    fn write(&self, seconds: i64) {
        self.0.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// What is preloaded; `None` where nothing can be compiled.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let own = |extension| out.join(format!("step-{}.{extension}", std::process::id()));
        let (source, made) = (own("rs"), own("so"));
        std::fs::write(&source, include_str!("../clock/step.rs")).unwrap();
        let rustc = Command::new("rustc")
            .args([
                "--crate-name",
                "step",
                "--edition",
                "2024",
                "--crate-type",
                "cdylib",
                "-Cpanic=abort",
            ])
            .args([&source, Path::new("-o"), &made])
            .output();
        std::fs::remove_file(&source).unwrap();
        let shim = out.join("step.so");
        match rustc {
            Ok(rustc) if rustc.status.success() => {
                // Of test runs at once, each has a whole one.
                std::fs::rename(&made, &shim).unwrap();
                Some(shim)
            }
            Ok(rustc) => {
                let said = String::from_utf8_lossy(&rustc.stderr);
                panic!("the clock's source cannot be compiled: {said}")
            }
            Err(error) => {
                println!("not tested: rustc cannot be run: {error}");
                None
            }
        }
    })
    .as_deref()
}

/// Runs `test` in a process whose clock it can set; `name` is that of the test.
#[track_caller]
fn with_clock(name: &str, test: impl FnOnce(Clock)) {
    if let Some(file) = std::env::var_os(FILE) {
        let file = File::options().write(true).open(file).unwrap();
        return alone_with(name, &[], || test(Clock(Arc::new(file))));
    }
    let Some(shim) = shim() else { return };
    let file = shim.with_file_name(format!(
        "{}-{}",
        name.replace("::", "-"),
        std::process::id()
    ));
    std::fs::write(&file, 0_i64.to_ne_bytes()).unwrap();
    let variables = [
        ("LD_PRELOAD", shim.to_str().unwrap()),
        (FILE, file.to_str().unwrap()),
    ];
    alone_with(name, &variables, || unreachable!("the file is named there"));
    std::fs::remove_file(&file).unwrap();
}

/// Sets the clock amid a call and amid a stream, in spans and between them.
fn greeter(clock: &Clock, step: Step) -> Scripted {
    let [in_call, in_stream] = [(); 2].map(|()| clock.clone());
    Scripted::new()
        .say_hello(move |_| {
            let clock = in_call.clone();
            async move {
                info_span!(target: "test", "before").in_scope(|| info!(target: "test", "before"));
                info_span!(target: "test", "amid").in_scope(|| clock.set(step));
                info_span!(target: "test", "after").in_scope(|| info!(target: "test", "after"));
                error!(target: "test", "went wrong");
                Err(Status::not_found("nobody"))
            }
        })
        .say_hello_stream(move |name| {
            let clock = in_stream.clone();
            let replies = tokio_stream::iter(0..3).map(move |number| {
                if number == 1 {
                    clock.set(step);
                }
                Ok(reply(&name))
            });
            async { Ok(Box::pin(replies) as Replies) }
        })
}

/// Start and end of a transaction or a span, as Sentry reads them.
fn times(value: &Value) -> (f64, f64) {
    let start = value["start_timestamp"].as_f64().unwrap();
    let end = value["timestamp"].as_str().unwrap();
    let end = humantime::parse_rfc3339(end).unwrap();
    (start, end.duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
}

#[test]
fn a_clock_that_is_set_amid_calls_harms_none_and_makes_no_span_long_or_end_early() {
    let name =
        "clocks::a_clock_that_is_set_amid_calls_harms_none_and_makes_no_span_long_or_end_early";
    with_clock(name, |clock| {
        for step in STEPS {
            set_amid_calls(&clock, step);
        }
    });
}

fn set_amid_calls(clock: &Clock, step: Step) {
    let world = World::new();
    world.run(async {
        let server = greeter(clock, step).serve().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let status = client.say_hello(request("a")).await.unwrap_err();
        assert_eq!(status.message(), "nobody");
        clock.set_right();
        let replies = client.say_hello_stream(request("a")).await.unwrap();
        let replies: Vec<_> = replies.into_inner().collect().await;
        assert_eq!(replies.len(), 3, "{replies:?}");
        drop(client);
        server.stop().await;
    });
    let written = world.written();
    clock.set_right();
    let items: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_type = |kind: &str| {
        let is_its = |pair: &&[Value]| pair[0]["type"] == kind;
        let pairs = items.windows(2).filter(is_its);
        pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    let mut statuses = Vec::new();
    for transaction in of_type("transaction") {
        let trace = &transaction["contexts"]["trace"];
        statuses.push(trace["status"].as_str().unwrap().to_owned());
        let spans = transaction["spans"].as_array().into_iter().flatten();
        for span in spans.chain([&transaction]) {
            let (start, end) = times(span);
            assert!(start <= end, "{step:?}: {span}");
            assert!(end - start < LONG.as_secs_f64(), "{step:?}: {span}");
        }
    }
    statuses.sort();
    assert_eq!(statuses, ["not_found", "not_found", "ok", "ok"]);
    let [event] = of_type("event").try_into().unwrap();
    let breadcrumbs = event["breadcrumbs"]["values"].as_array().unwrap();
    let told = breadcrumbs
        .iter()
        .map(|one| one["message"].as_str().unwrap());
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    assert_eq!(told, ["after", "before"], "{step:?}");
}

#[test]
fn limits_go_by_another_clock() {
    with_clock("clocks::limits_go_by_another_clock", |clock| {
        let world = World::new();
        world.run(async {
            let greeter = Scripted::new().say_hello(|_| async { Err(Status::internal("failed")) });
            let layer = SentryServerLayer::new().max_events_per_minute(2);
            let server = greeter.serve_with(layer).await;
            let mut client = server.client().await;
            for step in [Step::By(0)].into_iter().chain(STEPS) {
                clock.set(step);
                for _ in 0..3 {
                    client.say_hello(request("a")).await.unwrap_err();
                }
            }
            drop(client);
            server.stop().await;
        });
        let received = world.received();
        assert_eq!(received.events.len(), 2);
        assert_eq!(received.transactions.len(), 15);
        assert_eq!(messages(&received.events[1].breadcrumbs), [] as [&str; 0]);
    });
}

#[cfg(feature = "release-health")]
#[test]
fn sessions_go_on() {
    with_clock("clocks::sessions_go_on", |clock| {
        let world = World::with(
            |options| {
                options
                    .release("greeter@1.0.0")
                    .auto_session_tracking(true)
                    .session_mode(SessionMode::Request)
            },
            |layer| layer,
        );
        for step in STEPS {
            let amid = greeter(&clock, step);
            world.run(amid.say_hello_once("a")).unwrap_err();
            // It begins with the clock as it is now.
            let reply = world.run(Scripted::new().say_hello_once("a"));
            reply.unwrap();
            clock.set_right();
        }
        world.run(Scripted::new().say_hello_once("a")).unwrap();
        assert!(world.hub.client().unwrap().close(None));
        let mut calls = 0;
        for item in world.received().others {
            if let EnvelopeItem::SessionAggregates(sessions) = item {
                let counts = sessions.aggregates.iter();
                calls += counts.map(|of| of.exited + of.errored).sum::<u32>();
            }
        }
        // One that begins before the epoch cannot be told of.
        assert_eq!(calls, 2 * 4 + 1 - 1);
    });
}

/// Times before the epoch cannot be written.
#[test]
fn whatever_the_clock_says_all_is_sent() {
    with_clock("clocks::whatever_the_clock_says_all_is_sent", |clock| {
        let ingest = Gated::opened();
        let options = ClientOptions::new()
            .dsn(&ingest.dsn())
            .traces_sample_rate(1.0)
            .transport(TraceTransport::new(DefaultTransportFactory));
        let client = Arc::new(Client::from(options));
        let hub = Arc::new(Hub::new(Some(Arc::clone(&client)), Arc::default()));
        let world =
            World::subscribed(registry().with(SentryTracingLayer::new().hub(Arc::clone(&hub))));
        for step in STEPS {
            world
                .run(greeter(&clock, step).say_hello_once("a"))
                .unwrap_err();
            world
                .run(greeter(&clock, step).say_hello_once("a"))
                .unwrap_err();
        }
        clock.set_right();
        world.run(Scripted::new().say_hello_once("a")).unwrap();
        assert!(client.close(Some(LONG)));
        let items = ingest.items();
        let count = |kind: &str| items.iter().filter(|item| item.kind == kind).count();
        assert_eq!((count("transaction"), count("event")), (2 * 4 + 1, 2 * 4));
    });
}

#[test]
fn parts_of_transactions_go_by_another_clock() {
    with_clock(
        "clocks::parts_of_transactions_go_by_another_clock",
        |clock| {
            for step in [Step::By(-3600), Step::By(3600)] {
                let world = story::world();
                let mut story = Story::default();
                let root = world.sync(|| info_span!(target: "test", "job"));
                world.sync(|| root.in_scope(|| {}));
                story.wait_for_a_cut(&world);
                clock.set(step);
                story.wait_for_a_cut(&world);
                world.sync(|| drop(root));
                story.hear(&world);
                clock.set_right();
                story.check("job", None, SpanStatus::Ok);
                for part in &story.transactions {
                    let took = part.timestamp.unwrap().duration_since(part.start_timestamp);
                    assert!(took.unwrap() < LONG, "{part:#?}");
                }
            }
        },
    );
}
