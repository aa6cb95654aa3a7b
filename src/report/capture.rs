//! Which failed RPCs become error events.

use std::fmt;
use std::sync::Arc;

use tonic::Code;

use crate::report::outcome::RpcOutcome;
use crate::rpc;

type CaptureFn = dyn Fn(&RpcOutcome<'_>) -> bool + Send + Sync;

/// Chooses failed calls by their outcome.
#[derive(Clone)]
pub(crate) enum Capture {
    Codes(CodeSet),
    If(Arc<CaptureFn>),
}

/// One bit for each of the 17 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeSet(u32);

impl CodeSet {
    const fn of(code: Code) -> Self {
        Self(1 << code as u32)
    }

    fn contains(self, code: Code) -> bool {
        self.0 & Self::of(code).0 != 0
    }
}

impl FromIterator<Code> for CodeSet {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        let bits = codes.into_iter().map(|code| Self::of(code).0);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl Capture {
    /// The codes of failures that are the fault of the service itself.
    pub(crate) fn server_default() -> Self {
        Self::Codes(
            [Code::Unknown, Code::Internal, Code::DataLoss]
                .into_iter()
                .collect(),
        )
    }

    /// No code: only the caller knows what a failed call means.
    pub(crate) fn client_default() -> Self {
        Self::Codes(CodeSet(0))
    }

    /// Success is never captured. A closure that panics captures nothing.
    pub(crate) fn wants(&self, outcome: &RpcOutcome<'_>) -> bool {
        outcome.code() != Code::Ok
            && match self {
                Self::Codes(codes) => codes.contains(outcome.code()),
                Self::If(wants) => rpc::contained(|| wants(outcome)).unwrap_or(false),
            }
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codes(codes) => codes.fmt(f),
            Self::If(_) => f.write_str("If(..)"),
        }
    }
}
