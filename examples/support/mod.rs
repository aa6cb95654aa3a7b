//! What the examples share: a Greeter, a Sentry on this machine, and a way to
//! print what it received.

pub(crate) mod greeter;
#[expect(unreachable_pub, unused_qualifications, reason = "generated")]
#[rustfmt::skip]
pub(crate) mod helloworld;
pub(crate) mod ingest;
pub(crate) mod waterfall;
