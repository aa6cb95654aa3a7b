//! The example as a newcomer runs it.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the example that was built with these tests.
fn quickstart(arguments: &[&str], dsn: Option<&str>) -> Output {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    let example = profile.join("examples/quickstart");
    assert!(
        example.exists(),
        "`cargo test` builds the examples; where it is told to build one test \
         alone, `cargo build --examples` comes first"
    );
    let mut command = Command::new(example);
    command.args(arguments).env_remove("SENTRY_DSN");
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
    // Indent, operation, name and status; what follows differs from run to run.
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(' ') && line.ends_with('|'))
        .map(|line| line.get(..68).unwrap().trim_end())
        .collect();
    let row = |indent: usize, span: &str, status: &str| {
        let row = format!("{:indent$}{span:width$} {status}", "", width = 48 - indent);
        row.trim_end().to_owned()
    };
    let call = |method: &str, status: &str| {
        row(
            2,
            &format!("grpc.server  /helloworld.Greeter/{method}"),
            status,
        )
    };
    let find = row(4, "function  find_name", "ok");
    let query = |status| row(6, "db.query  query_store", status);
    let render = row(4, "template.render  render", "ok");
    let expected = [
        call("SayHello", "ok"),
        find.clone(),
        query("ok"),
        render.clone(),
        call("SayHello", "ok"),
        find.clone(),
        query("ok"),
        render.clone(),
        call("SayHello", "not_found"),
        find.clone(),
        query("ok"),
        call("SayHello", "internal_error"),
        find.clone(),
        query("internal_error"),
        call("SayHelloStream", "ok"),
        call("CollectHellos", "ok"),
        render,
        call("Chat", "ok"),
        call("Chat", "internal_error"),
        call("SayHelloStream", "cancelled"),
        call("SayHello", "deadline_exceeded"),
        find,
        query("ok"),
    ];
    assert_eq!(rows, expected, "{text}");
    for expected in [
        "trace 09e04486820349518ac7b5d2adbf6ba5, continued from span 9cf635fa5b870b3a\n",
        "error \"lookup failed\" in /helloworld.Greeter/SayHello",
        "    StoreError: connection to the name store lost\n",
        "looking up a name {\"name\":\"internal\"}\n",
        "heard from somebody {\"name\":\"Ada\"}\n",
        "envelope items: event 2, transaction 10\ntraces 10, spans 23\n",
        "transactions by status: \
         cancelled 1, deadline_exceeded 1, internal_error 2, not_found 1, ok 5\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
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
    assert_eq!(kinds, BTreeMap::from([("event", 2), ("transaction", 10)]));

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
        let mine = transactions.iter().filter(|transaction| {
            transaction["payload"]["contexts"]["trace"]["trace_id"] == trace["trace_id"]
        });
        assert_eq!(mine.count(), 1);
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
            "quickstart: unknown arguments [\"--jsno\"], usage: quickstart [--json]\n",
        ),
        (
            &["--json"],
            Some("http://key@127.0.0.1:1/1"),
            "quickstart: --json prints what the embedded ingest receives: unset SENTRY_DSN\n",
        ),
    ] {
        let output = quickstart(arguments, dsn);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        assert!(output.stdout.is_empty());
    }
}
