//! The thread that cuts transactions which have gone on for long: of a stream that idles,
//! nothing else would come by.

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

/// How often it looks in that time at the most.
const LOOKS: u32 = 16;

/// The shortest time after which any root is cut, in milliseconds.
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);

/// `None` where it cannot be started: then nothing is cut.
static CLOCK: OnceLock<Option<Thread>> = OnceLock::new();

/// Has roots cut that begin from now on, and are to be cut after this time.
pub(crate) fn start(after: Duration) {
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    if SHORTEST.load(Ordering::Relaxed) <= millis {
        return;
    }
    SHORTEST.fetch_min(millis, Ordering::Relaxed);
    let clock = CLOCK.get_or_init(|| {
        // The thread must not be the first to look at it: it would be that of the main hub.
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
    // A hub holds its client, which would not go.
    guarded(|| Hub::current().bind_client(None));
    loop {
        let now = Instant::now();
        let mut next = None::<Instant>;
        trails::for_each(|trail| {
            // With the last of a root may go whatever its scope holds.
            let due = guarded(move || trail.root()?.cut_if_due(now)).flatten();
            next = next.into_iter().chain(due).min();
        });
        // Roots that were not seen have begun since.
        let shortest = Duration::from_millis(SHORTEST.load(Ordering::Relaxed));
        let unseen = now.checked_add(shortest);
        // Not for each of many roots: it looks at all of them.
        let soonest = now.checked_add(shortest / LOOKS);
        match next.into_iter().chain(unseen).min().max(soonest) {
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}
