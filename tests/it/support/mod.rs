//! What the tests share.

#[path = "../../../examples/support/collector.rs"]
pub(crate) mod collector;

#[expect(
    clippy::allow_attributes,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "../../../examples/support/helloworld.rs"]
pub(crate) mod helloworld;

#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
#[path = "../../../examples/support/ingest.rs"]
pub(crate) mod ingest;

#[path = "../../../examples/support/spotlight.rs"]
pub(crate) mod spotlight;

#[path = "../../../examples/support/uri.rs"]
pub(crate) mod uri;

pub(crate) mod alone;
pub(crate) mod body;
pub(crate) mod every_call;
pub(crate) mod example;
pub(crate) mod faulty;
pub(crate) mod gated;
pub(crate) mod give_up;
pub(crate) mod greeter;
pub(crate) mod observed;
pub(crate) mod otel;
pub(crate) mod otlp;
pub(crate) mod proxy;
pub(crate) mod received;
pub(crate) mod recorder;
pub(crate) mod story;
pub(crate) mod tally;
pub(crate) mod used;
pub(crate) mod wait;
pub(crate) mod wire;
pub(crate) mod world;
