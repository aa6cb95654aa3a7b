//! The thread that cuts long transactions into parts: an idle stream runs no code of its own
//! that could.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sentry_core::Hub;
use tracing::debug;

use crate::bridge::trails;
use crate::fields;
use crate::span_ext::guarded;

/// Names of threads are cut after 15 bytes.
const THREAD: &str = "sentry-parts";

/// How often the thread wakes, at most, within the shortest duration of a part.
const LOOKS: u32 = 16;

/// The shortest duration of a part that any root has, in milliseconds.
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);

/// The thread; `None` where it could not be started: then nothing is cut.
static CLOCK: OnceLock<Option<Thread>> = OnceLock::new();

/// Starts the thread, unless it runs, and has it look often enough for parts of this duration.
pub(crate) fn start(after: Duration) {
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    if SHORTEST.load(Ordering::Relaxed) <= millis {
        return;
    }
    SHORTEST.fetch_min(millis, Ordering::Relaxed);
    let clock = CLOCK.get_or_init(|| {
        // The first thread to ask for the main hub becomes its owner: not this one.
        let _ = Hub::main();
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        if thread.is_err() {
            debug!(target: fields::TARGET, "without a thread, no transaction is sent in parts");
        }
        thread.ok().map(|thread| thread.thread().clone())
    });
    if let Some(clock) = clock {
        clock.unpark();
    }
}

fn run() {
    // The hub of this thread would keep its client for ever.
    guarded(|| Hub::current().bind_client(None));
    loop {
        let now = Instant::now();
        let mut next = None::<Instant>;
        trails::for_each(|trail| {
            // If the root ends here, whatever its scope holds is dropped here, and may panic.
            let due = guarded(move || trail.root()?.cut_if_due(now)).flatten();
            next = next.into_iter().chain(due).min();
        });
        // Roots that begin while the thread sleeps are seen in time for their first cut.
        let shortest = Duration::from_millis(SHORTEST.load(Ordering::Relaxed));
        let unseen = now.checked_add(shortest);
        // With many roots, it does not wake for each of them.
        let soonest = now.checked_add(shortest / LOOKS);
        match next.into_iter().chain(unseen).min().max(soonest) {
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}
