//! All that can be seen of a call, from inside and from outside, in its order.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, StatusCode, Uri, Version};
use http_body::Body;

use crate::transparent::failure::Said;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// By the inner service.
    Request {
        method: Method,
        uri: Uri,
        version: Version,
        headers: HeaderMap,
        extension: Option<&'static str>,
    },
    /// By the inner service.
    RequestFrame(Polled),
    Called,
    Head {
        status: StatusCode,
        version: Version,
        headers: HeaderMap,
        extension: Option<&'static str>,
        has_status: bool,
    },
    /// The future, without a response.
    Future(Polled),
    Frame(Polled),
    /// `None` where asking panics.
    Hints(Option<(bool, u64, Option<u64>)>),
    /// How often each of the wakers was woken so far.
    Woken([usize; 2]),
    Dropped(Part),
    Panicked(Part, String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Polled {
    Pending,
    /// Piece by piece.
    Data(Vec<Vec<u8>>),
    Trailers(HeaderMap),
    Failed(Said),
    End,
}

/// Where a panic came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Call,
    Future,
    Body,
    /// A future that had been ready.
    OldFuture,
    DropOfFuture,
    DropOfOldFuture,
    DropOfBody,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(crate) fn hints<B: Body>(body: &B) -> Seen {
    let ask = || {
        let size = body.size_hint();
        (body.is_end_stream(), size.lower(), size.upper())
    };
    Seen::Hints(caught(ask).ok())
}

/// What `f` returns, or what it panics with.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default()
    })
}
