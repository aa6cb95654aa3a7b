//! Calls that coverage-guided fuzzing made up: together they reach what it has reached,
//! and with them are all that ever came out wrong. See `fuzz/README.md`.

use std::fs;
use std::path::Path;

use crate::hostile_headers;
use crate::transparent::{self, Side, Worlds};

/// Runs what there is for a target of `fuzz/`.
fn replay(target: &str, check: impl Fn(&Worlds, &[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        // A published package is without it.
        return;
    }
    let worlds = Worlds::new();
    let mut many = 0;
    for folder in ["corpus", "finds"] {
        let Ok(files) = fs::read_dir(fuzz.join(folder).join(target)) else {
            // Nothing was found.
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let _named = Named(&path);
            check(&worlds, &bytes);
            many += 1;
        }
    }
    assert!(many > 20, "{many}");
}

/// Says which file it was that failed.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.display());
        }
    }
}

#[test]
fn servers() {
    replay("server", |worlds, bytes| {
        transparent::check(worlds, Side::Server, bytes);
    });
}

#[test]
fn clients() {
    replay("client", |worlds, bytes| {
        transparent::check(worlds, Side::Client, bytes);
    });
}

#[test]
fn headers() {
    replay("headers", hostile_headers::check);
}
