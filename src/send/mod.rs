//! Sends transactions: their two forms, and a transport with a queue.
//!
//! A [`SegmentTransaction`] joins what this crate keeps of a segment to what sentry-core has of it. A
//! client with a [`TraceTransport`] gets it as [JSON](json), [handed over](handover) on its way; any
//! other client gets a type of sentry-types.

mod attributes;
mod client_info;
mod client_report;
mod depth;
mod envelope_writer;
mod handover;
mod http_layer;
mod json;
mod queue;
mod span_record;
mod transaction;
mod transport;

pub(crate) use self::attributes::{ORIGIN_RPC, op as span_op, source as span_source};
pub(crate) use self::client_info::ClientInfo;
pub(crate) use self::handover::{offer, recorder_of, takes_offers};
pub(crate) use self::http_layer::is_found as is_http_layer_found;
pub(crate) use self::span_record::{NO_OP, Records, SpanRecord};
pub(crate) use self::transaction::{SegmentFacts, SegmentTransaction};
pub use self::transport::TraceTransport;
pub(crate) use self::transport::{expect_event, is_installed as is_trace_transport_installed};
