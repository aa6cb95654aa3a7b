//! What the examples share: a Greeter, a Sentry on this machine, and a way to
//! print what it received.

pub(crate) mod greeter;
#[expect(
    clippy::allow_attributes,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
pub(crate) mod helloworld;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
pub(crate) mod ingest;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
pub(crate) mod waterfall;
