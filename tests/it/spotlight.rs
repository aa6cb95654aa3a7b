//! What the example hands on to Spotlight.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

use crate::support::example::example;
use crate::support::ingest::Ingest;
use crate::support::spotlight::Spotlight;

/// What the example itself says at last: before that, Rust tells of a panic.
fn last_line(stderr: Vec<u8>) -> String {
    let said = String::from_utf8(stderr).unwrap();
    said.lines().next_back().unwrap_or_default().to_owned()
}

/// What Spotlight is to those who send it something.
struct FakeSpotlight {
    address: SocketAddr,
    received: Received,
}

type Received = Arc<Mutex<Vec<(String, String, Bytes)>>>;

impl FakeSpotlight {
    fn start(answer: StatusCode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Received::default();
        let receive = async move |State(received): State<Received>,
                                  method: Method,
                                  uri: Uri,
                                  headers: HeaderMap,
                                  body: Bytes| {
            let content_type = headers["content-type"].to_str().unwrap();
            let request = (format!("{method} {uri}"), content_type.to_owned(), body);
            received.lock().unwrap().push(request);
            answer
        };
        let app = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&received));
        thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    axum::serve(listener, app).await
                })
        });
        Self { address, received }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The envelopes, each of which came as Spotlight wants it.
    fn envelopes(&self, path: &str) -> Vec<Bytes> {
        let received = std::mem::take(&mut *self.received.lock().unwrap());
        let envelopes = received
            .into_iter()
            .map(|(request, content_type, envelope)| {
                assert_eq!(request, format!("POST {path}"));
                assert_eq!(content_type, "application/x-sentry-envelope");
                envelope
            });
        envelopes.collect()
    }
}

#[test]
fn spotlight_gets_each_byte() {
    let envelopes = [
        "{ \"event_id\" :\"9ec79c33ec9942ab8353589fcb2e04dc\"}\n{\"type\":\"event\"}\n{\"b\" : 1e0,\"a\":\"\u{e4}\"}",
        "{}\r\n{\"type\":\"event\", \"length\":4}\n{\n\n}\n\n",
    ];
    let ingest = Ingest::start().unwrap();
    let address = ingest.dsn("key").replace("http://key@", "");
    let address = address.strip_suffix("/1").unwrap();
    for envelope in envelopes {
        let mut stream = TcpStream::connect(address).unwrap();
        let length = envelope.len();
        write!(
            stream,
            "POST /api/1/envelope/ HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{envelope}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let fake = FakeSpotlight::start(StatusCode::OK);
    let spotlight = Spotlight::at(&fake.url()).unwrap();
    let forwarded = spotlight.forward(ingest.envelopes()).unwrap();
    let expected = format!("2 envelopes are in Spotlight now: {}", fake.url());
    assert_eq!(forwarded, expected);
    assert_eq!(fake.envelopes("/stream"), envelopes);
}

#[test]
fn it_hands_on_to_spotlight() {
    let fake = FakeSpotlight::start(StatusCode::OK);
    let url = fake.url();
    let nowhere = "http://127.0.0.1:1";
    for (argument, variable, path) in [
        (Some(url.clone()), None, ""),
        (
            Some(format!("{url}/behind/a/proxy/")),
            None,
            "/behind/a/proxy",
        ),
        (Some(format!("{url}/stream")), Some(nowhere), ""),
        (None, Some(&*url), ""),
    ] {
        let mut command = example("quickstart");
        command.arg("--json");
        if let Some(url) = argument {
            command.args(["--spotlight", &url]);
        }
        if let Some(url) = variable {
            command.env("SENTRY_SPOTLIGHT", url);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            last_line(output.stderr),
            format!("35 envelopes are in Spotlight now: {url}{path}")
        );
        let printed = String::from_utf8(output.stdout).unwrap();
        let printed = printed.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            [
                &line["envelope_header"],
                &line["item_header"],
                &line["payload"],
            ]
            .map(Value::clone)
        });
        let received = fake.envelopes(&format!("{path}/stream"));
        let received = received.into_iter().flat_map(|envelope| {
            let lines = serde_json::Deserializer::from_slice(&envelope).into_iter::<Value>();
            let lines: Vec<Value> = lines.collect::<Result<_, _>>().unwrap();
            let (header, items) = lines.split_first().unwrap();
            let items = items.chunks_exact(2);
            items
                .map(|item| [header, &item[0], &item[1]].map(Value::clone))
                .collect::<Vec<_>>()
        });
        assert_eq!(received.collect::<Vec<_>>(), printed.collect::<Vec<_>>());
    }
}

#[test]
fn it_says_what_spotlight_did_not_get() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unreachable = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let refusing = FakeSpotlight::start(StatusCode::IM_A_TEAPOT).url();
    for (url, expected) in [
        (unreachable, "client error (Connect): tcp connect error: "),
        (refusing, "it answered 418 I'm a teapot"),
    ] {
        let output = example("quickstart")
            .args(["--spotlight", &url])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = last_line(output.stderr);
        let expected = format!(
            "quickstart: 35 of 35 envelopes did not reach Spotlight at {url}/stream: {expected}"
        );
        assert!(error.starts_with(&expected), "{error}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("\nenvelope items: client_report 1, event 8, transaction 26\n"));
    }
}

#[test]
fn spotlight_is_configured_as_in_other_sdks() {
    let at = |url| Some(Spotlight::at(url).unwrap());
    for value in ["", "0", "false", "F", "n", "No", " off\n"] {
        assert_eq!(Spotlight::configured(value).unwrap(), None, "{value:?}");
    }
    for value in ["1", "true", "T", "y", "Yes", " on\n"] {
        let expected = at("http://localhost:8969/stream");
        assert_eq!(Spotlight::configured(value).unwrap(), expected, "{value:?}");
    }
    let expected = at("http://[::1]:80/stream");
    let found = Spotlight::configured(" http://[::1]:80/stream/ ").unwrap();
    assert_eq!(found, expected);
    for value in [
        "2",
        "localhost:8969",
        "https://localhost:8969",
        "http://:8969",
        "http://localhost:89690",
    ] {
        let output = example("quickstart")
            .env("SENTRY_SPOTLIGHT", value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            format!(
                "quickstart: SENTRY_SPOTLIGHT must be an http:// URL such as \
                 http://127.0.0.1:8969, not {value}\n"
            )
        );
        assert!(output.stdout.is_empty());
    }
}
