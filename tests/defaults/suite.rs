//! Tests of the integration suite that must hold with the default features too.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the rest of the support is for other tests"
)]

#[path = "../it/support/mod.rs"]
mod support;

#[path = "../it/channel.rs"]
mod channel;
#[path = "../it/init.rs"]
mod init;
#[path = "../it/sources.rs"]
mod sources;
