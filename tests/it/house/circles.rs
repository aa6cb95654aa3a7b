//! Files that import each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::house::graph::Imports;

/// Of each file that is in a circle, the shortest one. A circle begins with the first of its
/// files by name; each file imports the next, and the last one the first.
pub(super) fn circles(imports: &Imports) -> BTreeSet<Vec<&str>> {
    let shortest = imports.keys().filter_map(|file| circle(imports, file));
    shortest
        .map(|mut circle| {
            let first = (0..circle.len()).min_by_key(|place| circle[*place]);
            circle.rotate_left(first.unwrap());
            circle
        })
        .collect()
}

/// The shortest way from a file to itself.
fn circle<'a>(imports: &'a Imports, start: &'a str) -> Option<Vec<&'a str>> {
    let mut importers = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(importer) = next.pop_front() {
        for file in imports[importer].keys() {
            if !importers.contains_key(&**file) {
                importers.insert(&**file, importer);
                next.push_back(file);
            }
        }
    }
    let mut circle = vec![*importers.get(start)?];
    while circle[circle.len() - 1] != start {
        circle.push(importers[circle[circle.len() - 1]]);
    }
    circle.reverse();
    Some(circle)
}

/// The files of a circle, each after the first with the names that the one before takes from it.
pub(super) fn chain(imports: &Imports, circle: &[&str]) -> String {
    let next = circle.iter().skip(1).chain(circle.first());
    let step = |(from, to): (&&str, &&str)| {
        let names: Vec<&str> = imports[*from][*to].iter().map(|name| &**name).collect();
        format!("\n  -> {to}: {}", names.join(", "))
    };
    circle[0].to_owned() + &circle.iter().zip(next).map(step).collect::<String>()
}
