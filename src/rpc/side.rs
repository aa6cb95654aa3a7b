//! The two ends of an RPC.

/// Where an RPC is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcSide {
    /// It was received.
    Server,
    /// It was made.
    Client,
}
