//! What the examples share: a Greeter, a Sentry on this machine, and ways to
//! look at what it received.

pub(crate) mod arguments;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
pub(crate) mod errors;
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
pub(crate) mod printed;
pub(crate) mod spotlight;
pub(crate) mod uri;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
pub(crate) mod waterfall;
