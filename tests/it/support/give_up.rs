//! Callers that lose patience.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::task::yield_now;

/// Polls `future` at most so often, and drops it.
pub(crate) async fn give_up<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        yield_now().await;
    }
    None
}
