//! What the tests share.

#[expect(
    clippy::allow_attributes,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "../../../examples/support/helloworld.rs"]
pub(crate) mod helloworld;

pub(crate) mod body;
pub(crate) mod greeter;
pub(crate) mod received;
pub(crate) mod recorder;
pub(crate) mod world;
