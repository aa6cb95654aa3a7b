//! Ends the process, and names the tree, where nothing goes on for long.

use std::io::{Write, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::world::lock;

const PATIENCE: Duration = Duration::from_secs(30);

static TREE: Mutex<String> = Mutex::new(String::new());

/// Grows with each step of any tree.
static BEATS: AtomicUsize = AtomicUsize::new(0);

static STEP: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn begin(tree: &str) {
    tree.clone_into(&mut lock(&TREE));
    step(0);
}

pub(crate) fn step(index: usize) {
    STEP.store(index, Ordering::Relaxed);
    BEATS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn start() {
    thread::spawn(|| {
        let mut before = usize::MAX;
        loop {
            let now = BEATS.load(Ordering::Relaxed);
            if now == before {
                let step = STEP.load(Ordering::Relaxed) + 2;
                let line = json!({"tree": &*lock(&TREE), "hangs": format!("step {step}")});
                let _ = writeln!(stdout(), "{line}");
                std::process::exit(3);
            }
            before = now;
            thread::sleep(PATIENCE);
        }
    });
}
