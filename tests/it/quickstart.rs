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
    let found = |service, depth, found, query| {
        [
            row(service, depth, "function  find_name", found),
            row(service, depth + 1, "db.query  query_store", query),
        ]
    };
    let find = |service, depth, query| found(service, depth, "ok", query);
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
    expected.extend(pair("CollectHellos", "internal_error"));
    expected.extend(find("front", 3, "ok"));
    expected.extend(found("front", 3, "internal_error", "internal_error"));
    expected.extend(pair("SayHello", "invalid_argument"));
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
        "\nenvelope items: client_report 1, event 8, transaction 26\ntraces 10, spans ",
        "\ntransactions by status: cancelled 3, deadline_exceeded 2, internal_error 7, \
         invalid_argument 2, not_found 2, ok 7, unavailable 3\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains("different things"), "{text}");
}

/// Where a trace's id stands for `<id>`, and the number of a line for `<line>`.
const ERRORS: &str = "\
error  LookupError: cannot look up a name (logged)
    caused by   StoreError: connection to the name store lost
    message     lookup failed
    at          examples/support/greeter.rs:<line>
    in          /helloworld.Greeter/SayHello of back
    trace       <id>
    caller got  INTERNAL: lookup failed
    tags        rpc.param.table=names
    params      api_key=[Filtered], table=names
    breadcrumbs info: looking up a name, name=internal

error  INTERNAL: lookup failed (handled)
    in          /helloworld.Greeter/SayHello of front
    trace       <id>
    caller got  INTERNAL: lookup failed
    breadcrumbs error: grpc.client /helloworld.Greeter/SayHello ended with INTERNAL: lookup failed

fatal  panic: nobody expected this name (unhandled)
    at          greeter.rs:<line>, in quickstart::support::greeter::query_store
    in          /helloworld.Greeter/CollectHellos of front
    trace       <id>
    caller got  INTERNAL: internal server error
    user        id=grace
    tags        rpc.param.table=names, tenant=navy
    params      api_key=[Filtered], table=names
    breadcrumbs info: looking up a name, name=Ada
                info: looking up a name, name=panic

error  INVALID_ARGUMENT: whom to greet? (handled)
    in          /helloworld.Greeter/SayHello of front
    trace       <id>
    caller got  INVALID_ARGUMENT: whom to greet?
    user        id=grace
    tags        tenant=navy
    details     bad_request.field_violations: name must not be empty
                error_info.domain: greeter.example.com
                error_info.reason: NAME_MISSING

error  LookupError: cannot look up a name (logged)
    caused by   StoreError: connection to the name store lost
    message     lookup failed
    at          examples/support/greeter.rs:<line>
    in          /helloworld.Greeter/Chat of front
    trace       <id>
    caller got  INTERNAL: lookup failed
    tags        rpc.param.table=names
    params      api_key=[Filtered], table=names
    breadcrumbs info: looking up a name, name=Ada
                info: looking up a name, name=internal

error  DATA_LOSS: the name store is damaged (handled, 3 events)
    in          /helloworld.Greeter/SayHello of back
    trace       <id>, which is not sampled
    tags        rpc.param.table=names
    params      api_key=[Filtered], table=names
    breadcrumbs info: looking up a name, name=dataloss

That was a storm: 40 calls failed, 3 events. `max_events_per_minute` held back the rest.
";

#[test]
fn it_prints_errors() {
    let output = quickstart(&[], None);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (traces, rest) = text.split_once("\nerror  ").unwrap();
    let (errors, _) = rest.split_once("\nenvelope items: ").unwrap();
    let lines = errors.lines().map(|line| {
        let Some((label, value)) = line.split_at_checked(16) else {
            return line.to_owned();
        };
        match label.trim() {
            "trace" => {
                let (id, rest) = value.split_at(32);
                // An error is of a trace above, unless that was not sampled.
                let is_shown = traces.contains(&format!("trace {id}, begun by"));
                assert_eq!(is_shown, rest.is_empty(), "{text}");
                format!("{label}<id>{rest}")
            }
            "at" => {
                let (file, place) = value.split_once(".rs:").unwrap();
                let place = place.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{label}{file}.rs:<line>{place}")
            }
            _ => line.to_owned(),
        }
    });
    let lines: Vec<String> = lines.collect();
    assert_eq!(format!("error  {}\n", lines.join("\n")), ERRORS);
}

/// What Rust itself says of it, and nothing else.
#[test]
fn it_panics_once() {
    let output = example("quickstart")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("thread 'front' "), "{said}");
    assert_eq!(lines[1], "nobody expected this name");
    assert_eq!(lines.len(), 3, "{said}");
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
    assert_eq!(
        kinds,
        BTreeMap::from([("client_report", 1), ("event", 8), ("transaction", 26)])
    );

    // Each span has its parent, each error its transaction.
    let of_kind = |kind: &'static str| items.iter().filter(move |item| item["type"] == kind);
    let transactions: Vec<&Value> = of_kind("transaction").collect();
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
    for item in of_kind("event") {
        let trace = &item["payload"]["contexts"]["trace"];
        let mine = transactions.iter().find(|transaction| {
            transaction["payload"]["contexts"]["trace"]["trace_id"] == trace["trace_id"]
        });
        // With the sampling context of its trace, as its transactions.
        let context = &item["envelope_header"]["trace"];
        assert_eq!(context["trace_id"], trace["trace_id"]);
        match mine {
            Some(mine) => {
                assert_eq!(context, &mine["envelope_header"]["trace"]);
                assert_eq!(context["public_key"], "client");
            }
            None => {
                assert_eq!(context["sampled"], "false");
                assert_eq!(context["public_key"], "storm");
            }
        }
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
