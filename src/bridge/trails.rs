//! All trails of the process, by the ids of their roots.
//!
//! A hub that the application forked takes the Sentry span on its scope to tasks and threads
//! where no tracing span leads to its root. There the id of the span does.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::{SpanId, TraceContext};

use crate::bridge::parts;
use crate::bridge::trail::Trail;
use crate::span_ext::guarded;

/// Enough that threads seldom wait for each other.
const SHARDS: usize = 16;

type Shard = HashMap<SpanId, Weak<Trail>, BuildHasherDefault<IdHasher>>;

/// The trails of all roots, by the ids of their spans.
static TRAILS: LazyLock<Trails> = LazyLock::new(Trails::default);

#[derive(Default)]
struct Trails {
    shards: [Mutex<Shard>; SHARDS],
}

/// Hashes ids by their own bytes: they are random, and no caller chooses them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Ok(bytes) = bytes.try_into() {
            self.0 ^= u64::from_ne_bytes(bytes);
        }
    }

    /// Ignores the length that arrays hash first.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // Some generators make ids with few random bits. A product spreads them upwards alone,
        // so its upper half is folded onto the lower one.
        let product = u128::from(self.0) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    }
}

impl Trails {
    fn shard(&self, id: SpanId) -> Option<MutexGuard<'_, Shard>> {
        let hash = BuildHasherDefault::<IdHasher>::default().hash_one(id);
        // Not the bits that the maps use.
        let index = (hash >> 32) % SHARDS as u64;
        let shard = self.shards.get(usize::try_from(index).ok()?)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn add(id: SpanId, trail: &Arc<Trail>) {
    if let Some(mut shard) = TRAILS.shard(id) {
        shard.insert(id, Arc::downgrade(trail));
    }
}

pub(crate) fn remove(id: SpanId) {
    if let Some(mut shard) = TRAILS.shard(id) {
        shard.remove(&id);
    }
}

/// Calls `tell` with each trail, with no lock held.
pub(crate) fn for_each(mut tell: impl FnMut(Arc<Trail>)) {
    for shard in &TRAILS.shards {
        let trails: Vec<_> = {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().filter_map(Weak::upgrade).collect()
        };
        trails.into_iter().for_each(&mut tell);
    }
}

/// The trail of the root whose span has this id.
pub(crate) fn find(id: SpanId) -> Option<Arc<Trail>> {
    TRAILS.shard(id)?.get(&id)?.upgrade()
}

thread_local! {
    /// The trail and the id of the transaction that is being finished on this thread. The id in
    /// its trace context may be another one, set on the scope by the application.
    static SENDING: Cell<Option<(Arc<Trail>, SpanId)>> = const { Cell::new(None) };
}

/// Finishes the transaction of this id.
pub(crate) fn while_sending(trail: &Arc<Trail>, id: SpanId, finish: impl FnOnce()) {
    let _ = SENDING.try_with(|sending| sending.set(Some((Arc::clone(trail), id))));
    finish();
    // It is still there if the transaction was not sent.
    drop(take_sending());
}

pub(crate) fn take_sending() -> Option<(Arc<Trail>, SpanId)> {
    SENDING.try_with(Cell::take).ok().flatten()
}

/// The trail of the root that a transaction is, or is a later part of.
pub(crate) fn find_by(context: &TraceContext) -> Option<Arc<Trail>> {
    find(context.span_id).or_else(|| find(parts::root_of_part(context)?))
}

/// The trail of the root that a Sentry span is in; `None` where that is not one
/// of ours.
pub(crate) fn find_of(span: &TransactionOrSpan) -> Option<Arc<Trail>> {
    // For a child span, too, sentry-core returns the context of its transaction. Its lock may
    // be poisoned.
    let context = guarded(|| span.get_trace_context())?;
    find_by(&context)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_that_count_are_spread() {
        for byte in 0..7 {
            let ids = (1..=4096_u16).map(|number| {
                let mut id = [0; 8];
                id[byte..byte + 2].copy_from_slice(&number.to_be_bytes());
                SpanId::from(id)
            });
            let hasher = BuildHasherDefault::<IdHasher>::default();
            let hashes: Vec<_> = ids.map(|id| hasher.hash_one(id)).collect();
            // The bits that shards and maps use.
            for (shift, bits) in [(32, 4), (0, 8), (57, 7)] {
                let part = |hash: &u64| (hash >> shift) & ((1 << bits) - 1);
                let parts: HashSet<_> = hashes.iter().map(part).collect();
                assert!(
                    parts.len() > 1 << (bits - 1),
                    "{byte} {shift}: {}",
                    parts.len()
                );
            }
        }
    }
}
