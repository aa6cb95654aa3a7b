//! What the guides say of these tests.

use std::fs;
use std::path::Path;

use crate::migrating::calls::CALLS;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn versions_are_those_that_are_compared() {
    let face = read("src/manual/migrating/mod.rs");
    let face = face.replace("\n//! ", " ");
    let lock = read("Cargo.lock");
    for (name, said) in [
        ("sentry-tower", "sentry-tower and sentry-tracing"),
        ("sentry-tracing", "sentry-tower and sentry-tracing"),
        ("tower-http", "tower-http"),
        ("tonic-tracing-opentelemetry", "tonic-tracing-opentelemetry"),
    ] {
        let package = format!("name = \"{name}\"\nversion = \"");
        let versions = lock.split(&package).skip(1);
        let mut versions = versions.filter_map(|after| after.split('"').next());
        // There may be another one that others depend on.
        let is_said = |version: &str| face.contains(&format!("{said} {version}"));
        assert!(versions.any(is_said), "{name}");
    }
    assert_eq!(CALLS.len(), 14);
    assert!(face.contains("fourteen calls"));
}
