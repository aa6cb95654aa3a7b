//! The example as a newcomer runs it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
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

fn quickstart(arguments: &[&str], dsn: Option<&str>) -> Output {
    let mut command = example("quickstart");
    command.args(arguments);
    if let Some(dsn) = dsn {
        command.env("SENTRY_DSN", dsn);
    }
    command.output().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn it_prints_a_waterfall() {
    let output = quickstart(&[], None);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Service, indent, operation, name and status; what follows differs from
    // run to run.
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with('|'))
        .map(|line| line.get(..82).unwrap().trim_end())
        .collect();
    let row = |service: &str, depth: usize, span: &str, status: &str| {
        let span = format!("{:1$}{span}", "", 2 * depth);
        format!("{service:<7}{span:<56} {status}")
    };
    let call = |service: &str, depth, side: &str, method: &str, status: &str| {
        let span = format!("grpc.{side}  /helloworld.Greeter/{method}");
        row(service, depth, &span, status)
    };
    // SayHello, from the client to the server behind the first one.
    let chain = |depth: usize, status: &str| {
        [
            call("client", depth, "client", "SayHello", status),
            call("front", depth + 1, "server", "SayHello", status),
            call("front", depth + 2, "client", "SayHello", status),
            call("back", depth + 3, "server", "SayHello", status),
        ]
    };
    // Any other method, which the first server answers.
    let pair = |method: &str, status: &str| {
        [
            call("client", 1, "client", method, status),
            call("front", 2, "server", method, status),
        ]
    };
    let find = |service, depth, query| {
        [
            row(service, depth, "function  find_name", "ok"),
            row(service, depth + 1, "db.query  query_store", query),
        ]
    };
    let render = |service, depth| row(service, depth, "template.render  render", "ok");
    let mut expected = vec![row("client", 1, "function  main", "ok")];
    expected.extend(chain(2, "ok"));
    expected.extend(find("back", 6, "ok"));
    expected.push(render("back", 6));
    expected.extend(chain(2, "not_found"));
    expected.extend(find("back", 6, "ok"));
    expected.extend(chain(1, "internal_error"));
    expected.extend(find("back", 5, "internal_error"));
    expected.extend(chain(1, "unavailable"));
    expected.extend(find("back", 5, "ok"));
    expected.extend(pair("SayHelloStream", "ok"));
    for _ in 0..3 {
        expected.extend(find("front", 3, "ok"));
        expected.push(render("front", 3));
    }
    expected.extend(pair("CollectHellos", "ok"));
    expected.extend(find("front", 3, "ok"));
    expected.extend(find("front", 3, "ok"));
    expected.push(render("front", 3));
    expected.extend(pair("Chat", "internal_error"));
    expected.extend(find("front", 3, "ok"));
    expected.push(render("front", 3));
    expected.extend(find("front", 3, "internal_error"));
    expected.extend(pair("SayHelloStream", "cancelled"));
    expected.extend(find("front", 3, "ok"));
    expected.push(render("front", 3));
    // How far the dropped stream gets differs.
    let (rows, rest) = rows.split_at(expected.len());
    assert_eq!(rows, expected, "{text}");
    let rest: Vec<&&str> = rest.iter().filter(|row| row.contains("grpc.")).collect();
    let slow = [
        call("client", 1, "client", "SayHello", "deadline_exceeded"),
        call("front", 2, "server", "SayHello", "deadline_exceeded"),
        call("front", 3, "client", "SayHello", "cancelled"),
        call("back", 4, "server", "SayHello", "cancelled"),
    ];
    assert_eq!(rest, slow.iter().collect::<Vec<_>>(), "{text}");
    for expected in [
        ", begun by \"main\" of client, sampled true at rate 1 by 0.",
        "error \"lookup failed\" in /helloworld.Greeter/SayHello, trace ",
        "    StoreError: connection to the name store lost\n",
        "looking up a name {\"name\":\"internal\"}\n",
        "envelope items: event 3, transaction 22\ntraces 8, spans ",
        "transactions by status: cancelled 3, deadline_exceeded 2, internal_error 5, \
         not_found 2, ok 7, unavailable 3\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains("different things"), "{text}");
}

#[test]
fn it_prints_json() {
    let output = quickstart(&["--json"], None);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let items: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &items {
        let object = item.as_object().unwrap();
        let keys: Vec<_> = object.keys().map(String::as_str).collect();
        assert_eq!(keys, ["envelope_header", "item_header", "payload", "type"]);
        assert_eq!(item["type"], item["item_header"]["type"]);
        *kinds.entry(text(&item["type"])).or_default() += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("event", 3), ("transaction", 22)]));

    // Each span has its parent, each error its transaction.
    let (events, transactions): (Vec<&Value>, Vec<&Value>) =
        items.iter().partition(|item| item["type"] == "event");
    for item in &transactions {
        let transaction = &item["payload"];
        let trace = &transaction["contexts"]["trace"];
        let spans = transaction["spans"].as_array();
        let spans: Vec<&Value> = spans.into_iter().flatten().collect();
        for span in &spans {
            assert_eq!(span["trace_id"], trace["trace_id"]);
            let is_parent = |id: &Value| *id == span["parent_span_id"];
            let parents = spans.iter().filter(|parent| is_parent(&parent["span_id"]));
            assert_eq!(
                parents.count() + usize::from(is_parent(&trace["span_id"])),
                1
            );
        }
    }
    for item in events {
        let trace = &item["payload"]["contexts"]["trace"];
        let mine = transactions.iter().find(|transaction| {
            transaction["payload"]["contexts"]["trace"]["trace_id"] == trace["trace_id"]
        });
        // With the sampling context of its trace, as its transactions.
        let context = &item["envelope_header"]["trace"];
        assert_eq!(context, &mine.unwrap()["envelope_header"]["trace"]);
        assert_eq!(context["trace_id"], trace["trace_id"]);
        assert_eq!(context["public_key"], "client");
    }
}

#[test]
fn it_says_what_is_wrong() {
    for (arguments, dsn, expected) in [
        (
            &[][..],
            Some("not a dsn"),
            "quickstart: SENTRY_DSN is not a DSN: no valid url provided\n",
        ),
        (
            &["--jsno"],
            None,
            "quickstart: unknown argument \"--jsno\", usage: quickstart [--json] \
             [--spotlight http://<host>:<port>]\n",
        ),
        (
            &["--json"],
            Some("http://key@127.0.0.1:1/1"),
            "quickstart: --json prints what the embedded ingest receives: unset SENTRY_DSN\n",
        ),
        (
            &["--spotlight", "http://127.0.0.1:1"],
            Some("http://key@127.0.0.1:1/1"),
            "quickstart: Spotlight gets what the embedded ingest receives: unset SENTRY_DSN\n",
        ),
        (
            &["--json", "--spotlight"],
            None,
            "quickstart: --spotlight needs a value, usage: quickstart [--json] \
             [--spotlight http://<host>:<port>]\n",
        ),
        (
            &["--spotlight", "127.0.0.1:8969"],
            None,
            "quickstart: --spotlight must be an http:// URL such as http://127.0.0.1:8969, \
             not 127.0.0.1:8969\n",
        ),
        (
            &["--spotlight", "https://localhost:8969"],
            None,
            "quickstart: --spotlight must be an http:// URL such as http://127.0.0.1:8969, \
             not https://localhost:8969\n",
        ),
        (
            &["--spotlight", "http://localhost:8969/?a=b"],
            None,
            "quickstart: --spotlight must be a URL without a query, \
             not http://localhost:8969/?a=b\n",
        ),
    ] {
        let output = quickstart(arguments, dsn);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        assert!(output.stdout.is_empty());
    }
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
            String::from_utf8(output.stderr).unwrap(),
            format!("25 envelopes are in Spotlight now: {url}{path}\n")
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
        let received = received.into_iter().map(|envelope| {
            let mut lines = serde_json::Deserializer::from_slice(&envelope).into_iter::<Value>();
            [(); 3].map(|()| lines.next().unwrap().unwrap())
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
        (refusing, "it answered 418 I'm a teapot\n"),
    ] {
        let output = quickstart(&["--spotlight", &url], None);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        let expected = format!(
            "quickstart: 25 of 25 envelopes did not reach Spotlight at {url}/stream: {expected}"
        );
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains("envelope items: event 3, transaction 22\n"));
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
