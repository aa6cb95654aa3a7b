//! A call that callbacks observe, which receive nothing but its span.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Buf;
use tracing::Span;

use crate::call::rpc_call::RpcCall;
use crate::lifecycle::{CallGuard, Deadline, Watch};
use crate::span_ext::{self, Parked};

/// The guard of a call, which stays with the span of the call.
#[derive(Debug)]
pub(crate) struct ParkedCall(Mutex<Option<CallGuard<RpcCall>>>);

impl ParkedCall {
    /// Leaves the call with its span, and returns that.
    pub(crate) fn park(mut rpc: RpcCall, deadline: Deadline) -> Span {
        let span = rpc.take_span();
        span_ext::park(&span, || {
            // Nothing watches the body of its request.
            rpc.progress().set_messages(None);
            let guard = CallGuard::new(rpc, deadline);
            Arc::new(Self(Mutex::new(Some(guard))))
        });
        span
    }

    /// Has `see` tell the call that was parked with `span` what has become known, unless it is
    /// over.
    pub(crate) fn with(span: &Span, see: impl FnOnce(&mut CallGuard<RpcCall>)) {
        let Some(parked) = span_ext::parked::<Self>(span) else {
            return;
        };
        let Some(mut guard) = parked.take() else {
            return;
        };
        if let Some(rpc) = guard.observer_mut() {
            rpc.set_span(span.clone());
        }
        see(&mut guard);
        match guard.observer_mut() {
            Some(rpc) => {
                rpc.take_span();
                parked.put_back(guard);
            }
            None => span_ext::unpark(span),
        }
    }

    /// Counts the messages in a part of the response.
    pub(crate) fn see_data(span: &Span, data: &impl Buf) {
        let Some(parked) = span_ext::parked::<Self>(span) else {
            return;
        };
        if let Some(mut guard) = parked.take() {
            guard.response_mut().see(data);
            parked.put_back(guard);
        }
    }

    // Taken out, so that no lock is held while the end is reported.
    fn take(&self) -> Option<CallGuard<RpcCall>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_back(&self, guard: CallGuard<RpcCall>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }
}

impl Parked for ParkedCall {
    fn close(&self, has_panicked: bool) {
        if let Some(mut guard) = self.take() {
            guard.end_dropped(has_panicked);
        }
    }
}
