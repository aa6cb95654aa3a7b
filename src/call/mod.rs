//! One observed RPC, for the middleware of both sides.

mod address;
mod options;
mod rpc_call;

pub(crate) use self::options::CallOptions;
pub use self::rpc_call::{RequestBody, ResponseBody, ResponseFuture};
pub(crate) use self::rpc_call::{RpcCall, make, observe};
