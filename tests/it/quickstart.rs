//! The example as a newcomer runs it.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::support::example::example;

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
        "envelope items: event 2, transaction 22\ntraces 8, spans ",
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
    assert_eq!(kinds, BTreeMap::from([("event", 2), ("transaction", 22)]));

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
