//! Which Sentry spans are ours.
//!
//! A hub that the application forked takes the span of its scope to tasks and
//! threads where nothing else leads to the root of that span.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::{SpanId, TraceContext};

use crate::bridge::parts;
use crate::bridge::trail::Trail;
use crate::span_ext::guarded;

/// Enough that threads seldom meet.
const SHARDS: usize = 16;

type Shard = HashMap<SpanId, Weak<Trail>, BuildHasherDefault<IdHasher>>;

/// The trails of all roots, by the ids of their spans.
static TRAILS: LazyLock<Trails> = LazyLock::new(Trails::default);

#[derive(Default)]
struct Trails {
    shards: [Mutex<Shard>; SHARDS],
}

/// Ids are random, and not chosen by others: their bytes are hash enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Ok(bytes) = bytes.try_into() {
            self.0 ^= u64::from_ne_bytes(bytes);
        }
    }

    /// Lengths are hashed by it.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // Spreads what generators with few random bits make over all of them: carries of
        // the product go up alone, so that its upper half has to come down.
        let product = u128::from(self.0) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    }
}

impl Trails {
    fn shard(&self, id: SpanId) -> Option<MutexGuard<'_, Shard>> {
        let hash = BuildHasherDefault::<IdHasher>::default().hash_one(id);
        // Other bits than those that the maps go by.
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

/// Tells of all that there are. No lock is held meanwhile.
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
    /// Of the transaction that is being finished on this thread, and its id: its own trace
    /// context may be that of the application.
    static SENT: Cell<Option<(Arc<Trail>, SpanId)>> = const { Cell::new(None) };
}

/// Finishes the transaction of this id.
pub(crate) fn while_sending(trail: &Arc<Trail>, id: SpanId, finish: impl FnOnce()) {
    let _ = SENT.try_with(|sent| sent.set(Some((Arc::clone(trail), id))));
    finish();
    // Where it was not sent.
    drop(take_sent());
}

pub(crate) fn take_sent() -> Option<(Arc<Trail>, SpanId)> {
    SENT.try_with(Cell::take).ok().flatten()
}

/// The trail of the root that a transaction is, or is a later part of.
pub(crate) fn find_by(context: &TraceContext) -> Option<Arc<Trail>> {
    find(context.span_id).or_else(|| find(parts::root_of_part(context)?))
}

/// The trail of the root that a Sentry span is in; `None` where that is not one
/// of ours.
pub(crate) fn find_of(span: &TransactionOrSpan) -> Option<Arc<Trail>> {
    // Of a span, too, this is the context of its transaction. Its lock may be
    // poisoned.
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
            // What shards and maps go by.
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
