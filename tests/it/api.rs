//! What the crate offers, as it is written down, and what it says of that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The crates whose items are in the public API, without Rust's own.
fn foreign() -> BTreeSet<String> {
    let api = read("tests/public-api.txt");
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let paths = api.split(|c| !is_of_path(c));
    let crates = paths.filter_map(|path| Some(path.split_once("::")?.0));
    let is_crate = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
    let known = ["alloc", "core", "sentry_tonic", "std"];
    let foreign = crates
        .filter(is_crate)
        .filter(|name| !known.contains(name))
        // As they are named on crates.io, all but one.
        .map(|name| match name {
            "serde_json" => name.to_owned(),
            _ => name.replace('_', "-"),
        });
    foreign.collect()
}

/// Crates and their versions, as the crate's docs name them.
fn told() -> Vec<(String, String)> {
    let docs = read("src/lib.rs");
    let (_, section) = docs.split_once("# Types of other crates").unwrap();
    let (table, _) = section.split_once("//! Another version").unwrap();
    let quoted: Vec<&str> = table.split('`').collect();
    let told = quoted.windows(2).skip(1).step_by(2).filter_map(|pair| {
        let [name, after] = pair else { return None };
        let version = after.strip_prefix(' ')?.split([' ', ',', '\n']).next()?;
        let is_version = version.starts_with(|c: char| c.is_ascii_digit());
        is_version.then(|| ((*name).to_owned(), version.to_owned()))
    });
    told.collect()
}

#[test]
fn types_of_other_crates_are_named() {
    let told: BTreeSet<String> = told().into_iter().map(|(name, _)| name).collect();
    assert_eq!(foreign(), told);
}

#[test]
fn their_versions_are_those_of_the_manifest() {
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    // Those of sentry-core and tracing are not ours to name.
    let handed_on = ["sentry-types", "serde_json", "tracing-core"];
    for (name, version) in told() {
        if handed_on.contains(&name.as_str()) {
            continue;
        }
        let line = dependencies
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.unwrap_or_else(|| panic!("{name} is no dependency"));
        assert!(line.contains(&format!("\"{version}.")), "{line}: {version}");
    }
}

#[test]
fn the_oldest_rust_is_named() {
    let manifest = read("Cargo.toml");
    let (_, rust) = manifest.split_once("\nrust-version = \"").unwrap();
    let (rust, _) = rust.split_once('"').unwrap();
    assert!(read("README.md").contains(&format!("Needs Rust {rust}, ")));
    assert!(read("src/lib.rs").contains(&format!("a Rust newer than {rust}.")));
}

/// In all that is built here, and whatever lints whoever builds the library allows.
#[test]
fn unsafe_code_is_forbidden() {
    assert!(read("src/lib.rs").contains("\n#![forbid(unsafe_code)]\n"));
    assert!(read("Cargo.toml").contains("\n[lints.rust]\nunsafe_code = \"forbid\"\n"));
}
