//! Sees to it that an RPC ends exactly once.

use std::any::Any;
use std::error::Error;
use std::thread;
use std::time::Instant;

use http::{HeaderMap, Response};
use tonic::Status;

use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::observer::{Finished, Observer};
use crate::lifecycle::panic::{CaughtPanic, PanicPolicy};
use crate::rpc::{self, MessageCounter, Outcome, RpcSide};

/// Holds the observer of a running RPC, and ends the RPC when it is dropped.
#[derive(Debug)]
pub(crate) struct CallGuard<O: Observer> {
    /// `Some` until the end.
    observer: Option<O>,
    side: RpcSide,
    started_at: Instant,
    deadline: Deadline,
    response: MessageCounter,
    /// `Some` once there is a response head.
    head: Option<SeenHead>,
    /// Set while the watched part is polled. If it is still set as the guard is dropped, the poll
    /// has panicked, even if somebody has caught that panic by now.
    polling: bool,
    /// The watched part was dropped after it had announced its end: a caller need not poll such
    /// a body again.
    is_at_end: bool,
}

impl<O: Observer> CallGuard<O> {
    pub(crate) fn new(observer: O, deadline: Deadline) -> Self {
        Self {
            side: observer.side(),
            observer: Some(observer),
            started_at: Instant::now(),
            deadline,
            response: MessageCounter::new(),
            head: None,
            polling: false,
            is_at_end: false,
        }
    }

    /// Runs one poll of the watched part. After the end it runs unobserved.
    pub(crate) fn poll<T>(&mut self, poll: impl FnOnce() -> T) -> Result<T, CaughtPanic> {
        let Some(observer) = &self.observer else {
            return Ok(poll());
        };
        self.polling = true;
        // Inside, so that a panic unwinds through it: that is how the layer learns of it.
        let poll = || {
            let _entered = observer.enter();
            poll()
        };
        let result = match observer.panic_policy() {
            PanicPolicy::ReturnInternal | PanicPolicy::ResumeUnwind => CaughtPanic::catch(poll),
            PanicPolicy::Ignore => Ok(poll()),
        };
        self.polling = false;
        result
    }

    /// Ends the RPC by a panic in its watched part, which `drop` drops. Returns if the caller is
    /// to be answered; else the panic goes on.
    pub(crate) fn end_panicked(&mut self, panic: CaughtPanic, drop: impl FnOnce()) {
        let dropped = {
            let _entered = self.observer.as_ref().map(|observer| observer.enter());
            CaughtPanic::catch(drop)
        };
        if let Err(another) = dropped {
            another.discard();
        }
        let Some(observer) = self.observer.take() else {
            return panic.discard();
        };
        let panic_policy = observer.panic_policy();
        let message = panic.message().unwrap_or(Outcome::PANICKED);
        self.finish(observer, Outcome::panicked(), None, Some(message));
        match panic_policy {
            PanicPolicy::ResumeUnwind => panic.resume(),
            PanicPolicy::ReturnInternal | PanicPolicy::Ignore => panic.discard(),
        }
    }

    pub(crate) fn see_head<B>(&mut self, response: &Response<B>) {
        self.see_response(response.headers());
        match Outcome::from_headers(response.headers()) {
            Some(outcome) => {
                // tonic leaves the whole status there, with its source.
                let status = response.extensions().get::<Status>();
                let source = status.and_then(Error::source);
                self.end_with_status(outcome, response.headers(), source);
            }
            None => {
                let http = Outcome::from_http(response.status());
                self.head = Some(http.map_or(SeenHead::Grpc, SeenHead::Failed));
            }
        }
    }

    pub(crate) fn see_trailers(&mut self, trailers: &HeaderMap) {
        self.see_response(trailers);
        match Outcome::from_headers(trailers) {
            Some(outcome) => self.end_with_status(outcome, trailers, None),
            None => self.end_without_status(),
        }
    }

    /// Ends the RPC by the status in `headers`, whose source is given or named there.
    fn end_with_status(
        &mut self,
        outcome: Outcome,
        headers: &HeaderMap,
        source: Option<&(dyn Error + 'static)>,
    ) {
        let named = match (self.side, source) {
            (RpcSide::Server, None) => rpc::find_source(headers),
            _ => None,
        };
        let found = named
            .as_deref()
            .map(|named| named as &(dyn Error + 'static));
        self.end_with(outcome, source.or(found));
        // A foreign error may do anything as it is dropped.
        rpc::contained(|| drop(named));
    }

    /// Removes the name of a source from a response head or from trailers: on a server always, on
    /// a client if it is of another process, which has not removed it.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if headers.contains_key(rpc::STATUS_SOURCE)
            && (self.side == RpcSide::Server || rpc::find_source(headers).is_none())
        {
            headers.remove(rpc::STATUS_SOURCE);
        }
    }

    /// As [`strip`](Self::strip), from the error that the service failed with.
    pub(crate) fn strip_error(&self, error: &mut dyn Any) {
        if self.side == RpcSide::Server {
            rpc::detach_source(error);
        }
    }

    fn see_response(&mut self, headers: &HeaderMap) {
        if let Some(observer) = &mut self.observer {
            observer.see_response(headers);
        }
    }

    /// Drops the watched part in the span, so that its destructors are still observed. `drop` is
    /// given whether the part has panicked, and returns whether it was at its end.
    pub(crate) fn drop_watched(&mut self, drop: impl FnOnce(bool) -> bool) {
        let has_panicked = self.has_panicked();
        self.is_at_end = {
            let _entered = self.observer.as_ref().map(|observer| observer.enter());
            drop(has_panicked)
        };
    }

    fn has_panicked(&self) -> bool {
        self.polling || thread::panicking()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.observer.is_none()
    }

    pub(crate) fn response_mut(&mut self) -> &mut MessageCounter {
        &mut self.response
    }

    /// Ends the RPC, unless it has ended.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.end_with(outcome, None);
    }

    /// Ends the RPC, unless it has ended; `cause` is what it failed with.
    pub(crate) fn end_with(&mut self, outcome: Outcome, cause: Option<&(dyn Error + 'static)>) {
        let Some(observer) = self.observer.take() else {
            return;
        };
        self.finish(observer, outcome, cause, None);
    }

    fn finish(
        &self,
        observer: O,
        outcome: Outcome,
        cause: Option<&(dyn Error + 'static)>,
        panic: Option<&str>,
    ) {
        observer.end(Finished {
            outcome,
            cause,
            panic,
            duration: self.started_at.elapsed(),
            response_messages: self.response.messages(),
        });
    }

    /// Ends the RPC, whose response is over without a status.
    pub(crate) fn end_without_status(&mut self) {
        let outcome = self.outcome_without_status();
        self.end(outcome);
    }

    fn outcome_without_status(&mut self) -> Outcome {
        match self.head.take() {
            Some(SeenHead::Failed(outcome)) => outcome,
            Some(SeenHead::Grpc) | None => Outcome::no_status(),
        }
    }

    fn outcome_of_drop(&mut self) -> Outcome {
        if self.has_panicked() {
            return Outcome::panicked();
        }
        let is_late = match self.head {
            Some(SeenHead::Failed(_)) => return self.outcome_without_status(),
            Some(SeenHead::Grpc) => self.deadline.passed_in_body(),
            None => self.deadline.passed_before_head(),
        };
        if is_late {
            Outcome::deadline()
        } else if self.is_at_end {
            self.outcome_without_status()
        } else {
            Outcome::dropped()
        }
    }
}

/// For callbacks, which see an RPC piece by piece, and poll nothing.
#[cfg(feature = "tower-http")]
impl<O: Observer> CallGuard<O> {
    pub(crate) fn observer_mut(&mut self) -> Option<&mut O> {
        self.observer.as_mut()
    }

    /// Says whether the head of the response announced that no body follows: then nobody need
    /// poll it.
    pub(crate) fn set_at_end(&mut self, is_at_end: bool) {
        self.is_at_end = is_at_end;
    }

    /// Sets how the RPC ends if nothing more is heard of it.
    pub(crate) fn foresee(&mut self, outcome: Outcome) {
        self.head = Some(SeenHead::Failed(outcome));
    }

    /// Ends the RPC as one that was dropped, unless it has ended.
    pub(crate) fn end_dropped(&mut self, has_panicked: bool) {
        self.polling |= has_panicked;
        let outcome = self.outcome_of_drop();
        self.end(outcome);
    }
}

/// A response head that did not end the RPC.
#[derive(Debug)]
enum SeenHead {
    Grpc,
    /// The outcome that its HTTP status means, or a foreseen one. A `grpc-status` in trailers
    /// outranks it, as it does for the caller.
    Failed(Outcome),
}

impl<O: Observer> Drop for CallGuard<O> {
    fn drop(&mut self) {
        if !self.is_over() {
            let outcome = self.outcome_of_drop();
            self.end(outcome);
        }
    }
}
