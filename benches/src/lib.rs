//! What the benches share: the stacks that are compared, a service to call, and ways to
//! count and to print.

pub mod allocator;
pub mod cases;
pub mod child;
pub mod contestant;
pub mod crowd;
pub mod greeter;
#[path = "../../examples/support/helloworld.rs"]
#[rustfmt::skip]
pub mod helloworld;
pub mod hostile;
pub mod in_process;
pub mod ingest;
pub mod messages;
pub mod obedient;
pub mod over_loopback;
pub mod plain_span;
pub mod setup;
pub mod table;
pub mod upstream;
pub mod work;

pub type Error = Box<dyn std::error::Error + Send + Sync>;
