//! What events of failures say of errors: bounded, and no metadata.

use std::error::Error;
use std::fmt;

use tonic::Status;

use sentry_tonic::SentryServerLayer;

use crate::failures::{fail, some, with_source};
use crate::support::received::{exceptions, rpc_context};
use crate::support::world::World;

/// Prints more than anybody wants to read.
#[derive(Debug)]
struct Chatty;

impl fmt::Display for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..1_000_000 {
            f.write_str("é")?;
        }
        Ok(())
    }
}

impl Error for Chatty {}

#[test]
fn what_an_event_says_is_bounded() {
    let world = World::new();
    let message = "m".repeat(4_000);
    world.run(fail(
        SentryServerLayer::new(),
        with_source(Status::internal(message.clone()), Chatty),
    ));
    let received = world.received();
    let event = received.only_event();
    assert_eq!(
        exceptions(event),
        [
            ("Chatty".to_owned(), Some("é".repeat(512))),
            ("INTERNAL".to_owned(), Some("m".repeat(1024))),
        ]
    );
    assert_eq!(rpc_context(event)["message"], "m".repeat(1024));
}

#[test]
fn a_status_as_source_tells_no_metadata() {
    let world = World::new();
    let mut inner = Status::unauthenticated("who are you");
    inner
        .metadata_mut()
        .insert("authorization", "Bearer secret".parse().unwrap());
    let mut outer = with_source(Status::internal("upstream said no"), inner);
    outer
        .metadata_mut()
        .insert("x-api-key", "secret".parse().unwrap());
    world.run(fail(SentryServerLayer::new(), outer));
    let received = world.received();
    let event = received.only_event();
    assert_eq!(
        exceptions(event),
        [
            ("UNAUTHENTICATED".to_owned(), some("who are you")),
            ("INTERNAL".to_owned(), some("upstream said no")),
        ]
    );
    let text = serde_json::to_string(event).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_source_that_panics_when_it_is_printed_harms_no_call() {
    #[derive(Debug)]
    struct Mine;
    impl fmt::Display for Mine {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("not to be printed")
        }
    }
    impl Error for Mine {}

    let world = World::new();
    world.run(fail(
        SentryServerLayer::new(),
        with_source(Status::internal("failed"), Mine),
    ));
    let received = world.received();
    assert_eq!(
        exceptions(received.only_event()),
        [
            ("Mine".to_owned(), some("")),
            ("INTERNAL".to_owned(), some("failed")),
        ]
    );
}

#[test]
fn a_status_that_is_boxed_tells_no_metadata_either() {
    #[derive(Debug)]
    struct Wrapped(Box<Status>);
    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "wrapped: {:?}", self.0)
        }
    }
    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    let world = World::new();
    let mut inner = Status::unauthenticated("who are you");
    inner
        .metadata_mut()
        .insert("authorization", "Bearer secret".parse().unwrap());
    let outer = with_source(Status::internal("no"), Wrapped(Box::new(inner)));
    world.run(fail(SentryServerLayer::new(), outer));
    let received = world.received();
    let event = received.only_event();
    assert_eq!(
        exceptions(event),
        [
            ("UNAUTHENTICATED".to_owned(), some("who are you")),
            ("Wrapped".to_owned(), None),
            ("INTERNAL".to_owned(), some("no")),
        ]
    );
    assert!(!serde_json::to_string(event).unwrap().contains("secret"));
}

/// Is printed as it is told to.
struct Printed {
    display: String,
    debug: String,
}

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl Error for Printed {}

#[test]
fn a_message_is_no_type() {
    let long = "a@b.example ".repeat(50);
    for (display, debug, ty) in [
        (
            "alice@b.example",
            "alice@b.example\n\nStack backtrace:",
            "Error",
        ),
        ("gone", "gone", "Error"),
        ("gone", "\"gone\"", "Error"),
        ("gone", "Gone(1)", "Gone"),
        ("gone", "store::Gone { a: 1 }", "store::Gone"),
        ("gone for good", "gone", "gone"),
        ("x", "alice@b.example { }", "Error"),
        (long.as_str(), long.as_str(), "Error"),
    ] {
        let world = World::new();
        let source = Printed {
            display: display.to_owned(),
            debug: debug.to_owned(),
        };
        let status = with_source(Status::internal(""), source);
        world.run(fail(SentryServerLayer::new(), status));
        let received = world.received();
        let event = received.only_event();
        assert_eq!(event.fingerprint[2], ty, "{display:?} {debug:?}");
    }
}
