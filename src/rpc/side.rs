//! The two ends of an RPC.

/// Where an RPC is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It was received.
    Server,
    /// It was made.
    Client,
}
