//! What nobody is to read in Sentry, whatever becomes of a call.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use tonic::metadata::{Binary, MetadataMap, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Layer;
use tracing::{Instrument, error, info, info_span, instrument, warn};

use sentry_tonic::{SentryClientLayer, StatusExt as _};

use crate::support::greeter::{Scripted, reply};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::observed::{KINDS, Kind, Observed, failing, keys, metadata, on_both_sides};
use crate::support::world::{RATES, World};

/// In all that is secret, and in nothing else.
const SECRET: &str = "s3cret-s3cret-s3cret";

/// What a peer or an application says that is to be told.
const PUBLIC: &str = "who are you";

const KEYS: [&str; 6] = [
    "authorization",
    "cookie",
    "x-api-key",
    "session-token",
    "token-bin",
    "grpc-trace-bin",
];

fn secrets() -> MetadataMap {
    let bearer = format!("Bearer {SECRET}");
    metadata(&KEYS.map(|key| (key, bearer.as_str())))
}

/// With details that are none: of those it is not known what they are.
fn with_raw_details(code: Code) -> Status {
    let details = Bytes::from(format!("\u{fffd}{SECRET}"));
    Status::with_details_and_metadata(code, PUBLIC, details, secrets())
}

/// With details whose names say that they are secrets.
fn with_details(code: Code) -> Status {
    let secret = |key: &str| (key.to_owned(), SECRET.to_owned());
    let details =
        ErrorDetails::with_error_info("REASON", "example.com", [secret("password"), secret("jwt")]);
    Status::with_error_details_and_metadata(code, PUBLIC, details, secrets())
}

/// Without metadata, which would tell that it is a status.
fn with_details_alone(code: Code) -> Status {
    let details = with_details(code).details().to_vec();
    Status::with_details(code, PUBLIC, details.into())
}

const STATUSES: [fn(Code) -> Status; 3] = [with_raw_details, with_details, with_details_alone];

/// The forms that a secret has in text: as it is, and in base64 from whatever byte on.
fn forms() -> Vec<String> {
    let in_base64 = (0..3).map(|before| {
        let bytes = [&b"xx"[..before.min(2)], SECRET.as_bytes()].concat();
        let encoded = MetadataValue::<Binary>::from_bytes(&bytes);
        let encoded = String::from_utf8(encoded.as_encoded_bytes().to_vec()).unwrap();
        // What neighbours have no part in.
        encoded[4..24].to_owned()
    });
    [SECRET.to_owned()].into_iter().chain(in_base64).collect()
}

/// Takes what was sent, in which there must be `count` events at least.
#[track_caller]
fn assert_no_secret(world: &World, count: usize, case: &str) {
    let written = world.written();
    let events = written.matches(r#"{"type":"event""#).count();
    assert!(events >= count, "{case}: {events} events in {written}");
    for form in forms() {
        let at = written.find(&form);
        let around = at.map(|at| &written[at.saturating_sub(300)..(at + 100).min(written.len())]);
        assert_eq!(around, None, "{case}");
    }
}

/// With no key allowed, and with all of them.
macro_rules! layers {
    () => {
        on_both_sides!(|layer| layer.capture_codes([Code::Internal, Code::Unavailable]))
            .into_iter()
            .chain(on_both_sides!(|layer| {
                layer
                    .capture_codes([Code::Internal, Code::Unavailable])
                    .request_metadata(keys(KEYS))
                    .response_metadata(
                        keys(KEYS)
                            .into_iter()
                            .chain(keys(["grpc-status-details-bin"])),
                    )
            }))
    };
}

/// Where each failure is told as often as it is told of, or else kept as a breadcrumb.
fn world_of(rate: Option<f32>, pii: bool, is_told_once: bool) -> World {
    World::rated(
        rate,
        |options| options.send_default_pii(pii),
        |layer| layer.deduplicate_errors(is_told_once),
    )
}

fn world(rate: Option<f32>, pii: bool) -> World {
    world_of(rate, pii, false)
}

fn run(world: &World, side: &Observed, kind: Kind, greeter: Scripted) {
    let job = async {
        let call = side.call(greeter.head(secrets()), kind, secrets());
        let _ = call.await;
        // With the breadcrumb of the call.
        error!("afterwards");
    };
    world.run(async { job.instrument(info_span!("job")).await });
}

#[test]
fn forms_are_found() {
    for before in 0..3 {
        let bytes = format!("{}{SECRET}", "x".repeat(before));
        let value = MetadataValue::<Binary>::from_bytes(bytes.as_bytes());
        let encoded = String::from_utf8(value.as_encoded_bytes().to_vec()).unwrap();
        assert!(
            forms().iter().any(|form| encoded.contains(form)),
            "{before}"
        );
    }
}

#[test]
fn calls_that_end_well_or_not_tell_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (pii, side) in [false, true]
            .into_iter()
            .flat_map(|p| layers!().map(move |s| (p, s)))
        {
            let case = format!("{kind:?} {rate:?} {pii} {side:?}");
            let world = world(rate, pii);
            run(&world, &side, kind, Scripted::new());
            assert_no_secret(&world, 1, &case);
            for status in STATUSES {
                run(&world, &side, kind, failing(move || status(Code::Internal)));
                assert_no_secret(&world, 2, &case);
                let greeter = Scripted::new()
                    .say_hello(move |_| async move { Err(status(Code::Internal)) })
                    .say_hello_stream(move |_| async move { Err(status(Code::Internal)) });
                run(&world, &side, kind, greeter);
                assert_no_secret(&world, 2, &case);
            }
        }
    }
}

/// The message of a call's status, as a handler that asks others may write it.
#[test]
fn a_status_that_is_printed_into_another_one_tells_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (status, side) in STATUSES
            .into_iter()
            .flat_map(|s| layers!().map(move |l| (s, l)))
        {
            let world = world(rate, false);
            let case = format!("{kind:?} {rate:?} {side:?}");
            let printed = failing(move || Status::internal(format!("{:?}", status(Code::Aborted))));
            run(&world, &side, kind, printed);
            assert_no_secret(&world, 2, &case);
        }
    }
}

/// An error that prints what it is made of, as some do.
#[derive(Debug)]
struct Upstream(Status);

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream: {:?}", self.0)
    }
}

impl Error for Upstream {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn caused_by(source: impl Error + Send + Sync + 'static) -> Status {
    Status::with_metadata(Code::Internal, PUBLIC, secrets()).with_source(source)
}

/// A status in which another one is.
fn nested(status: fn(Code) -> Status) -> [Status; 4] {
    let inner = status(Code::Unauthenticated);
    [
        caused_by(inner.clone()),
        caused_by(Box::new(inner.clone())),
        caused_by(Upstream(inner.clone())),
        caused_by(caused_by(Upstream(inner))),
    ]
}

#[instrument(err)]
fn fails(status: Status) -> Result<(), Status> {
    Err(status)
}

#[instrument(skip_all, fields(reason = %status))]
fn is_told_why(status: &Status) {
    tracing::Span::current().record("reason", tracing::field::display(status));
    warn!(error = status as &dyn Error, "asked");
    info!("asked: {status}");
    error!("cannot greet: {status}");
    error!(%status, "cannot greet");
    error!(error = status as &dyn Error, "cannot greet");
    let upstream = Upstream(status.clone());
    warn!(error = &upstream as &dyn Error, "asked upstream");
    error!(error = &upstream as &dyn Error, "cannot ask upstream");
    let _ = fails(status.clone());
    sentry::capture_error(status);
}

#[test]
fn what_a_handler_says_of_a_status_tells_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (pii, status) in [false, true]
            .into_iter()
            .flat_map(|p| STATUSES.map(|s| (p, s)))
        {
            for side in layers!().filter(Observed::is_server) {
                for (outer, told_once) in nested(status).into_iter().zip([true, false].repeat(2)) {
                    let world = world_of(rate, pii, told_once);
                    let case = format!("{kind:?} {rate:?} {pii} {outer:?}");
                    let greeter = failing(move || {
                        is_told_why(&outer);
                        outer.clone()
                    });
                    run(&world, &side, kind, greeter);
                    assert_no_secret(&world, if told_once { 3 } else { 8 }, &case);
                }
            }
        }
    }
}

fn asked(failure: Status) -> Result<(), Status> {
    Err(failure)
}

#[test]
fn a_panic_with_a_status_tells_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (has_hook, status) in [false, true]
            .into_iter()
            .flat_map(|h| STATUSES.map(|s| (h, s)))
        {
            for side in layers!().filter(Observed::is_server) {
                let world = World::rated(
                    rate,
                    |options| match has_hook {
                        true => options
                            .add_integration(sentry::integrations::panic::PanicIntegration::new()),
                        false => options,
                    },
                    |layer| layer,
                );
                let greeter = failing(move || {
                    asked(status(Code::Internal)).unwrap();
                    unreachable!()
                });
                run(&world, &side, kind, greeter);
                assert_no_secret(&world, 2, &format!("{kind:?} {rate:?} {has_hook}"));
            }
        }
    }
}

#[test]
fn a_call_in_a_handler_tells_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (pii, status) in [false, true]
            .into_iter()
            .flat_map(|p| STATUSES.map(|s| (p, s)))
        {
            let world = world(rate, pii);
            world.run(async {
                let (upstream, _arrivals) = failing(move || status(Code::Internal))
                    .serve_unobserved()
                    .await;
                let layer = SentryClientLayer::new()
                    .capture_codes([Code::Internal])
                    .request_metadata(keys(KEYS));
                let client = upstream.observed_client(layer).await;
                let greeter = Scripted::new().say_hello(move |name| {
                    let mut client = client.clone();
                    async move {
                        let failure = kind.call(&mut client, secrets()).await.unwrap_err();
                        error!(error = &failure as &dyn Error, "cannot ask");
                        match name.as_str() {
                            "Ferris" => Err(caused_by(failure)),
                            _ => Ok(reply(&name)),
                        }
                    }
                });
                let [side, _] = on_both_sides!(|layer| layer.request_metadata(keys(KEYS)));
                let call = side.call(greeter, Kind::Unary, secrets());
                call.await.unwrap_err();
                upstream.stop().await;
            });
            assert_no_secret(&world, 3, &format!("{kind:?} {rate:?} {pii}"));
        }
    }
}

#[cfg(feature = "transport")]
#[test]
fn a_call_that_reaches_nobody_tells_none() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (pii, side) in [false, true]
            .into_iter()
            .flat_map(|p| layers!().map(move |s| (p, s)))
        {
            let Observed::Client(layer) = side else {
                continue;
            };
            let world = world(rate, pii);
            world.run(async {
                let server = Scripted::new().serve_unobserved().await.0;
                let endpoint: Endpoint = server.endpoint();
                server.stop().await;
                let mut client = GreeterClient::new(layer.layer(endpoint.connect_lazy()));
                let failure = kind.call(&mut client, secrets()).await.unwrap_err();
                assert_eq!(failure.code(), Code::Unavailable);
                error!(error = &failure as &dyn Error, "cannot ask");
            });
            assert_no_secret(&world, 2, &format!("{kind:?} {rate:?} {pii}"));
        }
    }
}
