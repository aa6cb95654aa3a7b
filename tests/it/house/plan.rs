//! The plan of the modules, and what must hold of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::house::circles::{chain, circles};
use crate::house::graph::Crate;

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
        &["span_ext", "report", "propagation", "rpc", "fields", "sync"],
    ),
    (
        "bridge",
        &[
            "send",
            "span_ext",
            "report",
            "propagation",
            "rpc",
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

/// The files that are in circles: no other file may be, and a file that is in none must not be
/// here.
const IN_CIRCLES: [&str; 18] = [
    "src/bridge/begun.rs",
    "src/bridge/carried_span.rs",
    "src/bridge/collector.rs",
    "src/bridge/layer.rs",
    "src/bridge/local_root.rs",
    "src/bridge/origin.rs",
    "src/bridge/part_clock.rs",
    "src/bridge/parts.rs",
    "src/bridge/recording.rs",
    "src/bridge/span_cell.rs",
    "src/bridge/span_state.rs",
    "src/bridge/thread_stack.rs",
    "src/bridge/trail.rs",
    "src/bridge/trails.rs",
    "src/span_ext/enter.rs",
    "src/span_ext/otel.rs",
    "src/span_ext/otel_parent.rs",
    "src/span_ext/sink.rs",
];

const MAX_LINES: usize = 500;

/// With these begins what a file has beside its code.
const TESTS: &str = "#[cfg(test)]\nmod ";
const MODELS: &str = "#[cfg(all(test, sentry_tonic_loom))]\nmod loom_models {";

const ROOT: &str = "src/lib.rs";
/// No file is imported by those of `benches/src/bin`, so that these are in no circle.
const BENCHES: &str = "benches/src/lib.rs";

static CRATE: LazyLock<Crate> = LazyLock::new(|| Crate::read(ROOT, &text_of));

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn text_of(file: &str) -> Option<String> {
    fs::read_to_string(path_of(file)).ok()
}

/// The module of the crate that a file of `src` belongs to.
fn module_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap();
    let end = inside.find(['/', '.']);
    &inside[..end.unwrap_or(inside.len())]
}

fn allowed(module: &str) -> &'static [&'static str] {
    let plan = ALLOWED.iter().find(|(name, _)| *name == module);
    plan.unwrap_or_else(|| panic!("{module} has no place in the plan"))
        .1
}

#[test]
fn modules_import_as_planned() {
    let mut wrong = vec![];
    for (file, imports) in CRATE.imports() {
        let module = module_of(&file);
        for (from, names) in imports {
            let target = module_of(&from);
            if target != module && !allowed(module).contains(&target) {
                wrong.push(format!(
                    "{file}: {module} may not import {target}: {names:?}"
                ));
            }
        }
    }
    for (file, path) in CRATE.paths() {
        if path.iter().any(|name| name == "super") {
            wrong.push(format!("{file}: {} is relative", path.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other() {
    let mut imports = CRATE.imports();
    // The published package has no benches.
    if path_of(BENCHES).exists() {
        imports.extend(Crate::read(BENCHES, &text_of).imports());
    }
    let circles = circles(&imports);
    let found: BTreeSet<&str> = circles.iter().flatten().copied().collect();
    let chains: Vec<String> = circles
        .iter()
        .filter(|circle| circle.iter().any(|file| !IN_CIRCLES.contains(file)))
        .map(|circle| chain(&imports, circle))
        .collect();
    assert!(chains.is_empty(), "circles:\n{}", chains.join("\n"));
    assert_eq!(found, BTreeSet::from(IN_CIRCLES));
}

#[test]
fn files_stay_small_and_facades_define_nothing() {
    let mut files = vec![];
    collect("src", &mut files);
    let (imports, facades) = (CRATE.imports(), CRATE.facades());
    for file in &files {
        allowed(module_of(file));
        // The rest is text.
        if !file.ends_with(".rs") {
            continue;
        }
        let text = text_of(file).unwrap();
        let code = [TESTS, MODELS]
            .iter()
            .fold(&*text, |code, tests| code.split(tests).next().unwrap());
        let lines = code.lines().count();
        assert!(lines <= MAX_LINES, "{file}: {lines} lines");
        assert!(
            imports.contains_key(file) || CRATE.test_files.contains(file),
            "{file} is in no module"
        );
        let is_facade = file.ends_with("/mod.rs") || file == ROOT;
        assert_eq!(
            facades.contains(&**file),
            is_facade,
            "{file}: a mod.rs, and no other file, has docs, `mod` and `pub use` only"
        );
    }
}

/// The rows of the plan that people read: rooms, and what they import.
fn written_plan() -> Vec<(Vec<&'static str>, BTreeSet<&'static str>)> {
    let text = include_str!("../../../CONTRIBUTING.md");
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

/// Adds the files in `folder`, by their paths from the root of the package.
fn collect(folder: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(path_of(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
