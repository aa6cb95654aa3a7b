//! New ids: of each call several are made, and a generator for each thread is much cheaper than
//! the operating system's.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use sentry_core::protocol::{SpanId, TraceId};

thread_local! {
    /// The state of xoshiro256++ by Blackman and Vigna, <https://prng.di.unimi.it>; zeros until it
    /// is seeded.
    static STATE: Cell<[u64; 4]> = const { Cell::new([0; 4]) };
}

pub(crate) fn new_trace_id() -> TraceId {
    let mut id = [0; 16];
    for half in id.as_chunks_mut::<8>().0 {
        *half = random().to_ne_bytes();
    }
    TraceId::from(id)
}

pub(crate) fn new_span_id() -> SpanId {
    SpanId::from(random().to_ne_bytes())
}

/// Never 0, for an id of zeros is none.
fn random() -> u64 {
    let next = STATE.try_with(|cell| {
        let state = match cell.get() {
            [0, 0, 0, 0] => seed(),
            state => state,
        };
        let (number, state) = next(state);
        cell.set(state);
        number
    });
    // The thread ends.
    next.unwrap_or_else(|_| seed()[0]).max(1)
}

/// std seeds each `RandomState` by the operating system, with keys that differ from those of all
/// others.
fn seed() -> [u64; 4] {
    [(); 4].map(|()| RandomState::new().hash_one(0))
}

fn next(mut state: [u64; 4]) -> (u64, [u64; 4]) {
    let number = state[0]
        .wrapping_add(state[3])
        .rotate_left(23)
        .wrapping_add(state[0]);
    let shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = state[3].rotate_left(45);
    (number, state)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        // Of xoshiro256plusplus.c, seeded with 1, 2, 3, 4.
        let mut state = [1, 2, 3, 4];
        let numbers = [(); 4].map(|()| {
            let (number, after) = next(state);
            state = after;
            number
        });
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
        ];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn no_two_ids_are_the_same_on_whatever_thread() {
        let ids = || (0..10_000).map(|_| new_span_id()).collect::<Vec<_>>();
        let threads = [(); 4].map(|()| thread::spawn(ids));
        let ids: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        let traces: HashSet<_> = (0..10_000).map(|_| new_trace_id()).collect();
        assert_eq!(traces.len(), 10_000);
    }
}
