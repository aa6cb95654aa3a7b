//! The line of a tree: what was seen, sent and reported lost, without what differs from run to
//! run.

use serde_json::{Value, json};

use crate::envelopes::Received;
use crate::ids;
use crate::parts;
use crate::times::Times;
use crate::world::{Seen, lock};

pub(crate) fn of(
    name: &str,
    sent: &[Vec<u8>],
    seen: &Seen,
    times: &Times,
    has_parts: bool,
) -> Value {
    let mut received = Received::default();
    for envelope in sent {
        received.read(envelope, times);
    }
    let mut seen: Vec<Value> = std::mem::take(&mut *lock(seen));
    for one in &mut seen {
        received.hide_random(one);
    }
    if has_parts {
        parts::join(&mut received, &mut seen);
    }
    let mut line = json!({
        "seen": seen,
        "sent": received.sent,
        "sessions": received.sessions,
        "lost": received.lost,
        "wrong": received.wrong,
    });
    ids::show(&mut line);
    line["tree"] = name.into();
    line
}
