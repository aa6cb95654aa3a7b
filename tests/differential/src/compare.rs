//! Compares the lines of two programs.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use serde_json::Value;

/// How many trees that differ are shown, and how many differences of each.
const MAX_TREES: usize = 4;
const MAX_DIFFERENCES: usize = 8;

/// As much of a value as is shown.
const MAX_LEN: usize = 160;

/// What is found in files that do not agree.
const DIFFERENT: u8 = 1;
const DIFFERENT_IN_TIMES: u8 = 4;

/// Prints differences to standard error, and to standard output the seeds of trees that differ in
/// nothing but times.
///
/// A thread may be suspended between two looks at a clock, which moves a time from one step to
/// another. So such trees are to be compared again.
pub(crate) fn files(left: &str, right: &str) -> ExitCode {
    let (Ok(left), Ok(right)) = (File::open(left), File::open(right)) else {
        eprintln!("cannot open {left} and {right}");
        return ExitCode::from(2);
    };
    let [mut left, mut right] = [left, right].map(|file| BufReader::new(file).lines());
    let (mut trees, mut different) = (0, 0);
    let mut in_times = vec![];
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
        differences(&before, &after, "", &mut found);
        let is_in_times = !found.is_empty() && found.iter().all(|one| one.is_in_times);
        match is_in_times {
            true => in_times.extend(tree.split([' ', ',']).nth(1).map(str::to_owned)),
            false => different += 1,
        }
        if is_in_times && in_times.len() <= MAX_TREES || !is_in_times && different <= MAX_TREES {
            show(tree, &found);
        }
        if left.is_none() || right.is_none() {
            eprintln!("one of the two ended here");
            break;
        }
    }
    eprintln!(
        "{trees} trees: {different} differ, {} more in times",
        in_times.len()
    );
    in_times.dedup();
    for seed in &in_times {
        println!("{seed}");
    }
    ExitCode::from(match (different, in_times.len()) {
        (0, 0) => 0,
        (0, _) => DIFFERENT_IN_TIMES,
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
    fn new(path: &str, left: &Value, right: &Value) -> Self {
        let is_time = |value: &Value| value.as_str().is_some_and(|text| text.starts_with('@'));
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
fn differences(left: &Value, right: &Value, path: &str, found: &mut Vec<Difference>) {
    match (left, right) {
        (Value::Object(lefts), Value::Object(rights)) => {
            let names = lefts
                .keys()
                .chain(rights.keys().filter(|name| !lefts.contains_key(*name)));
            for name in names {
                let path = format!("{path}.{name}");
                differences(&left[name], &right[name], &path, found);
            }
        }
        (Value::Array(lefts), Value::Array(rights)) => {
            if lefts.len() != rights.len() {
                found.push(Difference {
                    text: format!("{path}: {} elements, then {}", lefts.len(), rights.len()),
                    is_in_times: false,
                });
            }
            for index in 0..lefts.len().max(rights.len()) {
                let [left, right] =
                    [lefts, rights].map(|all| all.get(index).unwrap_or(&Value::Null));
                let path = format!("{path}[{index}{}]", label(left));
                differences(left, right, &path, found);
            }
        }
        _ if left != right => found.push(Difference::new(path, left, right)),
        _ => {}
    }
}

/// The name of a span, a transaction or an event.
fn label(value: &Value) -> String {
    let payload = value.pointer("/items/0/payload").unwrap_or(value);
    let names = ["description", "transaction", "message"].map(|name| payload[name].as_str());
    let name = names.into_iter().flatten().next();
    name.map_or_else(String::new, |name| format!(" {name}"))
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_LEN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}
