//! The example `otel` as a newcomer runs it.

use crate::support::example::example;

fn run_example(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = example("otel").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_example_says_that_both_agree() {
    let (code, said, errors) = run_example(&[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    let last = said.lines().last().unwrap();
    assert_eq!(
        last,
        "All agree: 31 spans of 3 traces have the same ids, parents and statuses."
    );
    let rows: Vec<&str> = said.lines().filter(|line| line.contains(" | ")).collect();
    assert_eq!(rows.len(), 3 + 31, "{said}");
}

#[test]
fn the_example_fails_where_they_differ() {
    let (code, said, errors) = run_example(&["--apart"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        errors,
        "otel: OpenTelemetry and Sentry differ in 62 places\n"
    );
    assert_eq!(said.matches("\nSentry has no ").count(), 31, "{said}");
    assert_eq!(said.matches("\nOpenTelemetry has no ").count(), 31);
    let (code, said, errors) = run_example(&["--wrong"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(
        errors,
        "otel: unknown argument \"--wrong\", usage: otel [--apart]\n"
    );
}
