//! The plan of the house: which module may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What server and client stand on; they do not know each other.
const MIDDLEWARE: [&str; 7] = [
    "call",
    "lifecycle",
    "report",
    "propagation",
    "rpc",
    "span_ext",
    "fields",
];

/// A module and what it may import of ours, beside itself.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("fields", &[]),
    ("manual", &[]),
    ("sync", &[]),
    ("rpc", &[]),
    ("propagation", &[]),
    ("lifecycle", &["rpc", "sync"]),
    ("report", &["rpc", "fields", "sync"]),
    ("span_ext", &["report", "propagation", "rpc"]),
    (
        "send",
        &["span_ext", "report", "propagation", "fields", "sync"],
    ),
    (
        "bridge",
        &[
            "send",
            "span_ext",
            "report",
            "propagation",
            "fields",
            "sync",
        ],
    ),
    (
        "call",
        &["lifecycle", "report", "rpc", "fields", "span_ext"],
    ),
    ("server", &MIDDLEWARE),
    ("client", &MIDDLEWARE),
    ("init", &["send"]),
    ("interceptor", &["span_ext"]),
    (
        "setup",
        &["bridge", "send", "call", "rpc", "span_ext", "fields"],
    ),
    (
        "lib",
        &[
            "bridge",
            "send",
            "server",
            "client",
            "init",
            "interceptor",
            "setup",
            "call",
            "span_ext",
            "propagation",
            "report",
            "rpc",
            "lifecycle",
        ],
    ),
];

const MAX_LINES: usize = 350;

/// With these begins what a file has beside its code.
const TESTS: &str = "#[cfg(test)]\nmod ";
const MODELS: &str = "#[cfg(all(test, sentry_tonic_loom))]\nmod loom_models {";

#[test]
fn imports_go_downwards_and_files_stay_small() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    collect(&src, &mut files);
    assert!(files.len() > 30);
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str();
        let module = Path::new(first).file_stem().unwrap().to_str().unwrap();
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no place in the plan"));
        // The rest is text.
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = [TESTS, MODELS]
            .iter()
            .fold(&*text, |code, tests| code.split(tests).next().unwrap());
        let lines = code.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines", inside.display());
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(!line.contains("super::"), "{}: {line}", inside.display());
            for import in line.split("crate::").skip(1) {
                let end = import.find(|c: char| !c.is_alphanumeric() && c != '_');
                let target = &import[..end.unwrap_or(import.len())];
                assert!(
                    target == module || allowed.contains(&target),
                    "{}: {module} may not import {target}",
                    inside.display()
                );
            }
        }
    }
}

/// The rows of the plan that people read: rooms, and what they import.
fn written_plan() -> Vec<(Vec<&'static str>, BTreeSet<&'static str>)> {
    let text = include_str!("../../CONTRIBUTING.md");
    let section = text
        .split("\n## ")
        .find(|text| text.starts_with("The house"));
    let rows = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"));
    let quoted = |cell: &'static str| cell.split('`').skip(1).step_by(2);
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').collect();
        let rooms = quoted(cells[1]).map(|room| room.trim_end_matches('/').trim_end_matches(".rs"));
        (rooms.collect(), quoted(cells[3]).collect())
    };
    rows.map(row).collect()
}

#[test]
fn the_plan_is_written_down_as_it_is() {
    let mut written = BTreeMap::new();
    for (rooms, imports) in written_plan() {
        for room in rooms {
            written.insert(room, imports.clone());
        }
    }
    // Which rooms are public is the manual's matter.
    written.remove("lib");
    let plan = ALLOWED.iter().filter(|(room, _)| *room != "lib");
    let plan = plan.map(|(room, imports)| (*room, imports.iter().copied().collect()));
    assert_eq!(written, plan.collect());
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
