//! Compares the lines of two programs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use serde_json::Value;

use crate::trees::Family;

/// How many trees that differ are shown, and how many differences of each.
const MAX_TREES: usize = 4;
const MAX_DIFFERENCES: usize = 8;

/// As much of a value as is shown.
const MAX_LEN: usize = 160;

/// What is found in files that do not agree.
const DIFFERENT: u8 = 1;
const UNCERTAIN: u8 = 4;

/// Prints differences to standard error, and to standard output the seeds of trees that are to be
/// compared again.
///
/// A thread may be suspended between two looks at a clock, which moves a time from one step to
/// another. Where transactions are cut into parts meanwhile, more depends on when threads run. So
/// a difference of that kind counts only if it is there again.
pub(crate) fn files(family: Family, left: &str, right: &str) -> ExitCode {
    let (Ok(left), Ok(right)) = (File::open(left), File::open(right)) else {
        eprintln!("cannot open {left} and {right}");
        return ExitCode::from(2);
    };
    let [mut left, mut right] = [left, right].map(|file| BufReader::new(file).lines());
    let (mut trees, mut different) = (0, 0);
    let mut uncertain = vec![];
    loop {
        let (left, right) = (next(&mut left), next(&mut right));
        if left.is_none() && right.is_none() {
            break;
        }
        trees += 1;
        if left == right {
            continue;
        }
        let [before, after] = [&left, &right].map(|line| parsed(line.as_deref()));
        let tree = [&before, &after].map(|value| value["tree"].as_str());
        let tree = tree.into_iter().flatten().next().unwrap_or("?");
        let mut found = vec![];
        differences(Some(&before), Some(&after), "", &mut found);
        let is_over = left.is_none() || right.is_none();
        let is_in_times = found.iter().all(|one| one.is_in_times);
        let is_uncertain = !is_over && (is_in_times || family == Family::Parts);
        let shown = match is_uncertain {
            true => {
                uncertain.extend(tree.split([' ', ',']).nth(1).map(str::to_owned));
                uncertain.len()
            }
            false => {
                different += 1;
                different
            }
        };
        if shown <= MAX_TREES {
            show(tree, &found);
        }
        if is_over {
            eprintln!("one of the two ended here");
            break;
        }
    }
    let again = uncertain.len();
    eprintln!("{trees} trees: {different} differ, {again} are to be compared again");
    uncertain.dedup();
    for seed in &uncertain {
        println!("{seed}");
    }
    ExitCode::from(match (different, again) {
        (0, 0) => 0,
        (0, _) => UNCERTAIN,
        _ => DIFFERENT,
    })
}

fn show(tree: &str, found: &[Difference]) {
    eprintln!("{tree}:");
    for difference in found.iter().take(MAX_DIFFERENCES) {
        eprintln!("  {}", difference.text);
    }
    if let Some(more) = found.len().checked_sub(MAX_DIFFERENCES + 1) {
        eprintln!("  and {} more", more + 1);
    }
}

struct Difference {
    text: String,
    is_in_times: bool,
}

impl Difference {
    fn new(path: &str, left: Option<&Value>, right: Option<&Value>) -> Self {
        let is_time = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str);
            text.is_some_and(|text| text.starts_with('@'))
        };
        Self {
            text: format!("{path}: {}, then {}", short(left), short(right)),
            is_in_times: is_time(left) && is_time(right),
        }
    }
}

fn next(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<String> {
    lines.next()?.ok()
}

fn parsed(line: Option<&str>) -> Value {
    line.map_or(Value::Null, |line| {
        serde_json::from_str(line).unwrap_or_else(|_| line.into())
    })
}

/// Adds where two values differ, and how.
fn differences(
    left: Option<&Value>,
    right: Option<&Value>,
    path: &str,
    found: &mut Vec<Difference>,
) {
    match (left, right) {
        (Some(Value::Object(lefts)), Some(Value::Object(rights))) => {
            let more = rights.keys().filter(|name| !lefts.contains_key(*name));
            for name in lefts.keys().chain(more) {
                let path = format!("{path}.{name}");
                differences(lefts.get(name), rights.get(name), &path, found);
            }
        }
        (Some(Value::Array(lefts)), Some(Value::Array(rights))) => {
            elements(lefts, rights, path, found);
        }
        _ if left != right => found.push(Difference::new(path, left, right)),
        _ => {}
    }
}

/// Adds where the elements of two lists differ. Those that have names are compared with those
/// that have the same, so that one that is missing makes one difference.
fn elements(lefts: &[Value], rights: &[Value], path: &str, found: &mut Vec<Difference>) {
    let [mut before, mut after] = [lefts, rights].map(labelled);
    let moved = before
        .iter()
        .zip(&after)
        .position(|(left, right)| left.0 != right.0);
    if let Some(at) = moved.or((before.len() != after.len()).then(|| before.len().min(after.len())))
    {
        let [left, right] = [&before, &after].map(|all| all.get(at).map(|(label, _)| label));
        found.push(Difference {
            text: format!("{path}: element {at} is {left:?}, then {right:?}"),
            is_in_times: false,
        });
    }
    for (label, left) in before.drain(..) {
        let path = format!("{path}[{label}]");
        let same = after.iter().position(|(other, _)| *other == label);
        let right = same.map(|at| after.remove(at).1);
        differences(Some(left), right, &path, found);
    }
    for (label, right) in after {
        differences(None, Some(right), &format!("{path}[{label}]"), found);
    }
}

/// Elements with their names, which are numbered where there are several of one name.
fn labelled(values: &[Value]) -> Vec<(String, &Value)> {
    let mut uses: HashMap<String, usize> = HashMap::new();
    let label = |value| {
        let name = label(value);
        let uses = uses.entry(name.clone()).or_default();
        *uses += 1;
        let label = match (name.as_str(), *uses) {
            ("", number) => (number - 1).to_string(),
            (_, 1) => name,
            (_, number) => format!("{name} {number}"),
        };
        (label, value)
    };
    values.iter().map(label).collect()
}

/// The name of a span, or of what is in an envelope.
fn label(value: &Value) -> String {
    let item = &value["items"][0];
    let payload = item.get("payload").unwrap_or(value);
    let exception = &payload["exception"]["values"][0];
    let names = [
        &payload["description"],
        &payload["message"],
        &exception["value"],
        &payload["transaction"],
    ];
    let name = names
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default();
    match item["header"]["type"].as_str() {
        Some(kind) => format!("{kind} {name}"),
        None => name.to_owned(),
    }
}

fn short(value: Option<&Value>) -> String {
    let mut text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    if let Some((end, _)) = text.char_indices().nth(MAX_LEN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}
