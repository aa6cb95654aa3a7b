//! The table in the manual, of what arrives in Sentry, outcome by outcome.

use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};

use http::{Request, Response};
use http_body_util::BodyExt;
use sentry::Level;
use sentry::protocol::{Context, Event};
use serde_json::Value;
use tonic::body::Body;
use tower::{Layer, Service, service_fn};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::endings::NAMES;
use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;
type Answer = Result<Response<ScriptedBody<BoxError>>, BoxError>;

/// What a row of the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    status: String,
    event: String,
    breadcrumb: String,
    code: String,
}

/// The rows of the table, by what a call ends with.
fn rows() -> Vec<(String, Row)> {
    let page = include_str!("../../src/manual/calls.md");
    let heading = "| a call ends with |";
    let start = page.find(heading).expect("the table is in the manual");
    let lines = page[start..].lines().skip(2);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        let cells: Vec<_> = cells.map(|cell| cell.trim().replace('`', "")).collect();
        let [end, status, event, breadcrumb, code] = cells.as_slice() else {
            panic!("{line}")
        };
        let row = Row {
            status: status.clone(),
            event: event.clone(),
            breadcrumb: breadcrumb.clone(),
            code: code.clone(),
        };
        (end.clone(), row)
    });
    rows.collect()
}

/// How a call of a test ends.
enum End {
    Answer(Answer),
    PanicInCall,
    DropInCall,
    DropInStream,
    OutOfTime,
}

/// One for each code that a cell lists, or for what it describes.
fn ends(cell: &str) -> Vec<End> {
    let head = |code| {
        let mut response = Response::new(ScriptedBody::new([]));
        *response.headers_mut() = grpc_status(code);
        End::Answer(Ok(response))
    };
    let stream =
        |steps: Vec<Step<BoxError>>| End::Answer(Ok(Response::new(ScriptedBody::new(steps))));
    let in_trailers = |code| stream(vec![Step::Trailers(grpc_status(code))]);
    let codes: Option<Vec<(i32, _)>> = cell
        .split(", ")
        .map(|name| (0..).zip(NAMES).find(|(_, known)| *known == name))
        .collect();
    if let Some(codes) = codes {
        let in_both = |(code, _)| [head(code), in_trailers(code)];
        return codes.into_iter().flat_map(in_both).collect();
    }
    match cell {
        "a panic in its handler" => vec![End::PanicInCall],
        "a panic in its stream" => vec![stream(vec![Step::Panic])],
        "its caller hanging up" => vec![End::DropInCall, End::DropInStream],
        "its grpc-timeout, or assume_server_timeout, running down" => vec![End::OutOfTime],
        "no grpc-status" => vec![stream(vec![])],
        "HTTP 503 and no grpc-status" => {
            let mut response = Response::new(ScriptedBody::new([]));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            vec![End::Answer(Ok(response))]
        }
        "a connection that breaks" => {
            let broken = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            let in_stream = stream(vec![Step::Fail(broken().into())]);
            vec![End::Answer(Err(broken().into())), in_stream]
        }
        other => panic!("no test of {other:?}"),
    }
}

/// A call from a client to a server, both of which are observed.
async fn call(end: End) {
    let mut timeout = None;
    let (drops, in_stream) = match &end {
        End::DropInCall => (true, false),
        End::DropInStream => (true, true),
        End::OutOfTime => {
            timeout = Some("1n");
            (true, false)
        }
        End::Answer(_) | End::PanicInCall => (false, false),
    };
    let mut end = Some(end);
    let service = service_fn(move |_: Request<_>| {
        let end = end.take().unwrap();
        async move {
            match end {
                End::Answer(answer) => answer,
                End::PanicInCall => panic!("the handler panics"),
                End::DropInStream => Ok(Response::new(ScriptedBody::new([Step::Data(b"")]))),
                End::DropInCall | End::OutOfTime => pending().await,
            }
        }
    });
    let server = SentryServerLayer::new().layer(service);
    let mut client = SentryClientLayer::new().layer(server);
    let mut request = Request::builder()
        .uri("http://localhost/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    // A service that is a function is always ready.
    let call = client.call(request.body(Body::empty()).unwrap());
    if drops && !in_stream {
        let mut call = pin!(call);
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        return;
    }
    let Ok(response) = call.await else { return };
    let mut body = response.into_body();
    if drops {
        drop(body);
        return;
    }
    while let Some(Ok(_)) = body.frame().await {}
}

fn kind(event: &Event<'_>) -> Option<String> {
    match event.contexts.get("rpc") {
        Some(Context::Other(rpc)) => rpc["kind"].as_str().map(str::to_owned),
        _ => None,
    }
}

/// What Sentry received of such a call.
fn received(end: End, rate: Option<f32>) -> Row {
    let world = World::rated(rate, |options| options, |layer| layer);
    world.run(call(end));
    // Of a call outside of any span, the hub has the breadcrumb.
    world.hub.capture_message("probe", Level::Info);
    let received = world.received();
    let (probes, events): (Vec<_>, Vec<_>) = received
        .events
        .iter()
        .partition(|event| event.message.as_deref() == Some("probe"));
    assert!(
        events
            .iter()
            .all(|event| kind(event).as_deref() == Some("server"))
    );
    let event = match events.as_slice() {
        [] => "-".to_owned(),
        [event] => {
            let mechanism = event.exception.last().unwrap().mechanism.as_ref().unwrap();
            assert_eq!(event.tags["rpc.service"], "helloworld.Greeter");
            assert_eq!(event.tags["rpc.method"], "SayHello");
            match mechanism.handled {
                Some(true) => event.level.to_string(),
                _ => format!("{}, unhandled", event.level),
            }
        }
        more => panic!("{more:?}"),
    };
    let breadcrumbs = probes.first().unwrap().breadcrumbs.values.as_slice();
    let [breadcrumb] = breadcrumbs else {
        panic!("{breadcrumbs:?}")
    };
    assert_eq!(breadcrumb.category.as_deref(), Some("grpc.client"));
    let code = breadcrumb.data["status_code"].clone();
    for event in events {
        let tag = event.tags["rpc.grpc.status_code"].as_str();
        assert_eq!(Value::from(tag), code.to_string());
    }
    let txs = received.txs();
    let status = match txs.as_slice() {
        [] => String::new(),
        [server, client] => {
            let ops = (server.op.as_str(), client.op.as_str());
            assert_eq!(ops, ("grpc.server", "grpc.client"));
            assert_eq!(server.status, client.status);
            for tx in [server, client] {
                assert_eq!(tx.data["rpc.grpc.status_code"], code);
            }
            let status = serde_json::to_value(server.status).unwrap();
            status.as_str().unwrap().to_owned()
        }
        more => panic!("{more:?}"),
    };
    Row {
        status,
        event,
        breadcrumb: breadcrumb.level.to_string(),
        code: code.to_string(),
    }
}

#[test]
fn the_table_in_the_manual_is_true() {
    let rows = rows();
    assert!(rows.len() > 20, "{rows:?}");
    for (end, row) in rows {
        for one in ends(&end) {
            assert_eq!(received(one, Some(1.0)), row, "{end}");
        }
        // What is not sampled tells the same, but for its spans.
        for rate in [Some(0.0), None] {
            for one in ends(&end) {
                let told = received(one, rate);
                let expected = Row {
                    status: String::new(),
                    ..row.clone()
                };
                assert_eq!(told, expected, "{end} {rate:?}");
            }
        }
    }
}
