//! Whether an RPC that was dropped had run out of time.

use std::time::{Duration, Instant};

use crate::rpc::RpcSide;

/// A caller starts its clock before the server does, and hangs up when it has run down: its
/// cancellation comes ahead of the server's deadline by the time that the request travelled. So
/// what is dropped in the last tenth of a timeout, at most this long, was out of time.
const MAX_SERVER_SLACK: Duration = Duration::from_millis(100);

/// A caller's own timer runs down at the deadline, give or take its resolution.
const CLIENT_SLACK: Duration = Duration::from_millis(1);

/// The times after which a dropped RPC is DEADLINE_EXCEEDED.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadline {
    /// Of the whole call.
    call: Option<Instant>,
    /// Of the time until the response head.
    head: Option<Instant>,
}

impl Deadline {
    /// `call`: the caller's `grpc-timeout`. `head`: a timeout of the service,
    /// which in tonic covers the time until the response head alone.
    pub(crate) fn new(side: RpcSide, call: Option<Duration>, head: Option<Duration>) -> Self {
        if call.is_none() && head.is_none() {
            return Self::default();
        }
        let now = Instant::now();
        let slack = |timeout: Duration| match side {
            RpcSide::Server => MAX_SERVER_SLACK.min(timeout / 10),
            RpcSide::Client => CLIENT_SLACK.min(timeout),
        };
        let after = |timeout| now.checked_add(timeout - slack(timeout));
        Self {
            call: call.and_then(after),
            head: head.and_then(after),
        }
    }

    pub(crate) fn passed_before_head(&self) -> bool {
        self.call.into_iter().chain(self.head).any(has_passed)
    }

    pub(crate) fn passed_in_body(&self) -> bool {
        self.call.is_some_and(has_passed)
    }
}

fn has_passed(at: Instant) -> bool {
    Instant::now() >= at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timeout_covers_its_part_of_the_call() {
        let now = Some(Duration::ZERO);
        let later = Some(Duration::from_secs(3600));
        let endless = Some(Duration::MAX);
        for (call, head, before_head, in_body) in [
            (None, None, false, false),
            (now, None, true, true),
            (later, None, false, false),
            (endless, endless, false, false),
            (None, now, true, false),
            (later, now, true, false),
            (now, later, true, true),
        ] {
            for side in [RpcSide::Server, RpcSide::Client] {
                let deadline = Deadline::new(side, call, head);
                assert_eq!(deadline.passed_before_head(), before_head);
                assert_eq!(deadline.passed_in_body(), in_body);
            }
        }
    }
}
