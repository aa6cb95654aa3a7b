//! One observed RPC, for the middleware of both sides.

mod about;
mod address;
mod ending;
mod error_details;
mod head;
mod observed;
mod options;
#[cfg(feature = "tower-http")]
mod parked;
mod rpc_call;
mod setters;
mod span;

pub use self::observed::{RequestBody, ResponseBody, ResponseFuture};
pub(crate) use self::observed::{is_layered, is_layered_twice, make, observe};
#[cfg(feature = "tower-http")]
pub(crate) use self::observed::{is_observed, saw_layer};
pub(crate) use self::options::CallOptions;
#[cfg(feature = "tower-http")]
pub(crate) use self::parked::ParkedCall;
pub(crate) use self::rpc_call::RpcCall;
pub(crate) use self::setters::call_setters;
