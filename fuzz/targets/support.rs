//! What modules of the suite share, as far as these targets need it.

#[path = "../../tests/it/support/received.rs"]
pub(crate) mod received;
#[path = "../../tests/it/support/wire.rs"]
pub(crate) mod wire;
#[path = "../../tests/it/support/world.rs"]
pub(crate) mod world;
