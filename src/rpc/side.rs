//! The two ends of an RPC.

/// Where an RPC is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "an RPC has two ends")]
pub enum RpcSide {
    /// The RPC was received.
    Server,
    /// The RPC was made.
    Client,
}
