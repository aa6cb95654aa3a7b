//! One observed RPC, for the middleware of both sides.

mod address;
mod ending;
mod error_details;
mod observed;
mod options;
mod rpc_call;
mod setters;
mod span;

pub(crate) use self::address::remote_addr;
pub use self::observed::{RequestBody, ResponseBody, ResponseFuture};
pub(crate) use self::observed::{make, observe};
pub(crate) use self::options::CallOptions;
pub(crate) use self::rpc_call::RpcCall;
pub(crate) use self::setters::call_setters;
