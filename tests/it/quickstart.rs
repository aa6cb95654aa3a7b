//! The example as a newcomer runs it.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

fn quickstart(arguments: &[&str], dsn: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--example", "quickstart", "--"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("SENTRY_DSN");
    if let Some(dsn) = dsn {
        command.env("SENTRY_DSN", dsn);
    }
    command.output().unwrap()
}

#[test]
fn it_prints_a_waterfall() {
    let output = quickstart(&[], None);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "trace 09e04486820349518ac7b5d2adbf6ba5\n",
        "error \"lookup failed\" in /helloworld.Greeter/SayHello",
        "    StoreError: connection to the name store lost",
        "looking up a name {\"name\":\"internal\"}",
        "received: 2 event, 10 transaction\n",
        "statuses of transactions: \
         1 cancelled, 1 deadline_exceeded, 2 internal_error, 1 not_found, 5 ok\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn it_prints_json() {
    let output = quickstart(&["--json"], None);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let items: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &items {
        let keys: Vec<_> = item
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["envelope_header", "item_header", "payload", "type"]);
        *kinds.entry(item["type"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("event", 2), ("transaction", 10)]));
}

#[test]
fn it_says_what_is_wrong_in_one_line() {
    for (arguments, dsn, line) in [
        (
            &[][..],
            Some("not a dsn"),
            "quickstart: SENTRY_DSN is not a DSN: ",
        ),
        (
            &["--jsno"],
            None,
            "quickstart: unknown argument \"--jsno\", try --json",
        ),
    ] {
        let output = quickstart(arguments, dsn);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.starts_with(line) && text.lines().count() == 1,
            "{text:?}"
        );
    }
}
