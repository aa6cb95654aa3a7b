//! The examples as processes: a client, and two servers in a chain, which share
//! nothing but what they send each other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::example::example;
use crate::support::gated::LONG;
use crate::support::ingest::{Ingest, Item};

/// A server that ends with the test.
pub(crate) struct Server {
    process: Child,
    pub(crate) uri: String,
}

impl Server {
    pub(crate) fn start(name: &str, dsn: &str, rate: &str, upstream: Option<&Self>) -> Self {
        let mut command = example("server");
        command.args(["--addr", "127.0.0.1:0"]);
        if let Some(upstream) = upstream {
            command.args(["--upstream", &upstream.uri]);
        }
        let mut process = command
            .env("SENTRY_DSN", dsn)
            .env("SENTRY_TRACES_SAMPLE_RATE", rate)
            .env("SENTRY_ENVIRONMENT", format!("{name}-env"))
            .env("SENTRY_RELEASE", format!("{name}@1.0"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap();
        Self {
            uri: format!("http://{address}"),
            process,
        }
    }

    /// Ends it by a signal, with all sent that it has to send.
    pub(crate) fn stop(mut self, signal: &str) {
        let id = self.process.id().to_string();
        let told = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(told.unwrap().success());
        let status = ended(&mut self.process);
        let mut stderr = String::new();
        let pipe = self.process.stderr.as_mut().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        assert!(status.success(), "{status}: {stderr}");
    }
}

/// How it ended, which it has to before long.
pub(crate) fn ended(process: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LONG {
            process.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn call(server: &Server, ingest: &Ingest, rate: &str, arguments: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = example("client")
        .args(["--addr", &server.uri])
        .args(arguments)
        .env("SENTRY_DSN", ingest.dsn("client"))
        .env("SENTRY_TRACES_SAMPLE_RATE", rate)
        .env("SENTRY_ENVIRONMENT", "client-env")
        .env("SENTRY_RELEASE", "client@1.0")
        .output()
        .unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(stdout).unwrap()
}

/// One row for each transaction of a trace: release, name, operation, status.
type Rows = Vec<[String; 4]>;

/// The traces of all transactions, each checked: one head, each parent there,
/// what the head says of it in each envelope.
fn traces(items: &[Item]) -> Vec<Rows> {
    let mut traces: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in items.iter().filter(|item| item.kind() == "transaction") {
        let trace = &item.payload["contexts"]["trace"];
        let id = trace["trace_id"].as_str().unwrap();
        traces.entry(id).or_default().push(item);
    }
    let check = |(trace_id, items): (&str, Vec<&Item>)| {
        let spans = items.iter().flat_map(|item| {
            let own = &item.payload["contexts"]["trace"]["span_id"];
            let inner = item.payload["spans"].as_array().into_iter().flatten();
            inner.map(|span| &span["span_id"]).chain([own])
        });
        let spans: Vec<&Value> = spans.collect();
        let parent = |item: &Item| item.payload["contexts"]["trace"]["parent_span_id"].clone();
        let (heads, others): (Vec<&Item>, Vec<&Item>) =
            items.iter().partition(|item| parent(item).is_null());
        let [head] = heads.as_slice() else {
            panic!("{} heads of {trace_id}", heads.len())
        };
        for item in others {
            assert!(spans.contains(&&parent(item)), "an orphan in {trace_id}");
        }
        let context = &head.envelope_header["trace"];
        let rand: f64 = context["sample_rand"].as_str().unwrap().parse().unwrap();
        let rate: f64 = context["sample_rate"].as_str().unwrap().parse().unwrap();
        assert!(rand < rate, "{context}");
        assert_eq!(
            *context,
            json!({
                "trace_id": trace_id,
                "public_key": "client",
                "sample_rate": context["sample_rate"],
                "sample_rand": context["sample_rand"],
                "sampled": "true",
                "release": "client@1.0",
                "environment": "client-env",
                "transaction": head.payload["transaction"],
            })
        );
        let mut rows: Rows = items
            .iter()
            .map(|item| {
                assert_eq!(&item.envelope_header["trace"], context);
                let payload = &item.payload;
                let trace = &payload["contexts"]["trace"];
                [
                    &payload["release"],
                    &payload["transaction"],
                    &trace["op"],
                    &trace["status"],
                ]
                .map(|value| value.as_str().unwrap().to_owned())
            })
            .collect();
        rows.sort();
        rows
    };
    traces.into_iter().map(check).collect()
}

fn row(release: &str, name: &str, op: &str, status: &str) -> [String; 4] {
    [release, name, op, status].map(str::to_owned)
}

#[test]
fn a_chain_of_processes_is_one_trace_by_the_decision_of_its_head() {
    let ingest = Ingest::start().unwrap();
    // Left to themselves, the servers would send nothing.
    let back = Server::start("back", &ingest.dsn("back"), "0", None);
    let front = Server::start("front", &ingest.dsn("front"), "0", Some(&back));
    let names = ["Ferris", "notfound", "internal", "unavailable", "panic"];
    let said = call(&front, &ingest, "1", &names);
    assert_eq!(
        said,
        "Ferris: Hello FERRIS!\n\
         notfound: NotFound: nobody has this name\n\
         internal: Internal: lookup failed\n\
         unavailable: Unavailable: the name store is down\n\
         panic: Internal: internal server error\n"
    );
    let said = call(&front, &ingest, "1", &["--streams", "Ada"]);
    assert_eq!(
        said,
        "Ada: Hello ADA!\n\
         Ada: Hello ADA! Hello ADA! Hello ADA!\n\
         Ada: Hello ADA and ADA and ADA!\n\
         Ada: Hello ADA! Hello ADA! Hello ADA!\n"
    );
    // Nor does a caller that is not sampled have them send anything.
    call(&front, &ingest, "0", &names);
    front.stop("-TERM");
    back.stop("-INT");

    let items = ingest.items();
    let chain = |front: &str, back: &str| {
        let say_hello = "/helloworld.Greeter/SayHello";
        vec![
            row("back@1.0", say_hello, "grpc.server", back),
            row("client@1.0", "greet", "function", "ok"),
            row("front@1.0", say_hello, "grpc.server", front),
        ]
    };
    let served = |method: &str| {
        let name = format!("/helloworld.Greeter/{method}");
        row("front@1.0", &name, "grpc.server", "ok")
    };
    let mut expected = vec![
        chain("ok", "ok"),
        chain("not_found", "not_found"),
        chain("internal_error", "internal_error"),
        chain("unavailable", "unavailable"),
        chain("internal_error", "internal_error"),
        chain("ok", "ok"),
        vec![
            row("client@1.0", "greet_in_streams", "function", "ok"),
            served("Chat"),
            served("CollectHellos"),
            served("SayHelloStream"),
        ],
    ];
    let mut traces = traces(&items);
    traces.sort();
    expected.sort();
    assert_eq!(traces, expected);

    // The errors of the last server: one that it logged, one panic, twice for
    // the caller that was not sampled.
    let mut errors: Vec<_> = items.iter().filter(|item| item.kind() == "event").collect();
    errors.retain(|error| error.payload["release"] == "back@1.0");
    assert_eq!(errors.len(), 4);
    for error in errors {
        let context = &error.envelope_header["trace"];
        assert_eq!(context["public_key"], "client");
        assert_eq!(
            context["trace_id"],
            error.payload["contexts"]["trace"]["trace_id"]
        );
    }
}

#[test]
fn a_server_that_is_told_to_stop_at_once_stops_in_peace() {
    let ingest = Ingest::start().unwrap();
    for signal in ["-TERM", "-INT"] {
        for _ in 0..5 {
            Server::start("back", &ingest.dsn("back"), "1", None).stop(signal);
        }
    }
}

#[test]
fn a_call_that_runs_when_its_server_is_told_to_stop_is_reported() {
    let ingest = Ingest::start().unwrap();
    let back = Server::start("back", &ingest.dsn("back"), "1", None);
    let mut caller = example("client")
        .args(["--addr", &back.uri, "Ferris", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Once it has said the first, it makes the second call.
    let mut said = BufReader::new(caller.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "Ferris: Hello FERRIS!\n");
    back.stop("-TERM");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(caller.wait().unwrap().success());
    let items = ingest.items();
    let calls = items.iter().filter(|item| item.kind() == "transaction");
    // The server may have stopped before the second call came.
    let expected = 1 + usize::from(rest == "slow: Hello SLOW!\n");
    assert_eq!(calls.count(), expected, "{rest}");
}

#[test]
fn at_half_the_rate_no_trace_is_torn() {
    let ingest = Ingest::start().unwrap();
    let back = Server::start("back", &ingest.dsn("back"), "0.9", None);
    let front = Server::start("front", &ingest.dsn("front"), "0.1", Some(&back));
    let said = call(&front, &ingest, "0.5", &["Ferris"; 200]);
    assert_eq!(said.lines().count(), 200);
    front.stop("-TERM");
    back.stop("-TERM");
    let traces = traces(&ingest.items());
    for trace in &traces {
        let releases: Vec<&str> = trace.iter().map(|row| &*row[0]).collect();
        assert_eq!(releases, ["back@1.0", "client@1.0", "front@1.0"]);
    }
    assert!(
        (60..=140).contains(&traces.len()),
        "{} of 200",
        traces.len()
    );
}

#[test]
fn what_is_wrong_is_one_line() {
    let run = |name: &str, arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = example(name);
        command.args(arguments);
        if let Some((key, value)) = variable {
            command.env(key, value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let usage = "usage: server --addr <ip>:<port> [--upstream http://<host>:<port>]";
    for (arguments, expected) in [
        (
            &["--addr", "localhost"][..],
            "--addr is not an address and a port such as 127.0.0.1:50051: localhost",
        ),
        (
            &["--addr", "127.0.0.1:99999"],
            "--addr is not an address and a port such as 127.0.0.1:50051: 127.0.0.1:99999",
        ),
        (
            &["--addr", "127.0.0.1:0", "--upstream", "nowhere"],
            "--upstream is not a URI such as http://127.0.0.1:50051: nowhere",
        ),
        (&["--addr"], &format!("--addr needs a value, {usage}")),
        (&[], &format!("--addr is missing, {usage}")),
        (
            &["--port"],
            &format!("unknown argument \"--port\", {usage}"),
        ),
    ] {
        let said = run("server", arguments, None);
        assert_eq!(said, format!("server: {expected}\n"));
    }
    let usage = "usage: client --addr http://<host>:<port> [--streams] <name>...";
    for (arguments, expected) in [
        (
            &["--addr", "127.0.0.1:50051", "a"][..],
            "--addr is not a URI such as http://127.0.0.1:50051: 127.0.0.1:50051",
        ),
        (
            &["--addr", "http://", "a"],
            "--addr is not a URI such as http://127.0.0.1:50051: http://",
        ),
        (
            &["--addr", "http://:80", "a"],
            "--addr is not a URI such as http://127.0.0.1:50051: http://:80",
        ),
        (
            &["--addr", "http://127.0.0.1:99999", "a"],
            "--addr is not a URI such as http://127.0.0.1:50051: http://127.0.0.1:99999",
        ),
        (
            &["--addr", "http://127.0.0.1:0", "a"],
            "--addr is not a URI such as http://127.0.0.1:50051: http://127.0.0.1:0",
        ),
        (
            &["--addr", "http://127.0.0.1:1"],
            &format!("there is no name to greet, {usage}"),
        ),
    ] {
        let said = run("client", arguments, None);
        assert_eq!(said, format!("client: {expected}\n"));
    }
    let addr = ["--addr", "127.0.0.1:0"];
    for (variable, expected) in [
        (
            ("SENTRY_DSN", "nonsense"),
            "SENTRY_DSN is not a DSN: no valid url provided",
        ),
        (
            ("SENTRY_TRACES_SAMPLE_RATE", "2"),
            "SENTRY_TRACES_SAMPLE_RATE is not from 0 to 1: 2",
        ),
    ] {
        let said = run("server", &addr, Some(variable));
        assert!(said.ends_with(&format!("server: {expected}\n")), "{said}");
    }
}
