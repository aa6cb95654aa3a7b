//! Facts of gRPC, read leniently from what arrives: nothing here can fail a
//! call, knows Sentry or does any I/O.

mod code;
mod contained;
mod content_type;
#[cfg(feature = "error-details")]
mod details;
mod io_error;
mod messages;
mod method;
mod method_filter;
mod method_patterns;
mod outcome;
#[cfg(test)]
mod properties;
mod side;
mod sources;
mod status;
mod status_source;
mod text;
mod timeout;
#[cfg(feature = "transport")]
mod transport;

pub(crate) use self::code::name as code_name;
pub(crate) use self::contained::{Payload, caught, contained, discard};
pub(crate) use self::content_type::{ContentType, content_type};
#[cfg(feature = "error-details")]
pub(crate) use self::details::{ErrorDetails, from_headers as error_details};
pub(crate) use self::messages::MessageCounter;
pub(crate) use self::method::MethodPath;
pub(crate) use self::method_filter::MethodFilter;
pub(crate) use self::method_patterns::MethodPatterns;
pub(crate) use self::outcome::{Outcome, cause_of};
pub use self::side::RpcSide;
pub(crate) use self::sources::chain as error_chain;
pub(crate) use self::status::internal as internal_status;
pub(crate) use self::status_source::{
    KEY as STATUS_SOURCE, attach as attach_source, detach as detach_source, find as find_source,
};
pub(crate) use self::text::{bounded, clip};
pub(crate) use self::timeout::grpc_timeout;
