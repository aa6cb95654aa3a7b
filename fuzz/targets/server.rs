//! Calls of a server, with the middleware and without.
#![no_main]
#![expect(clippy::disallowed_methods, reason = "a panic ends the run")]
#![allow(
    dead_code,
    unused_imports,
    reason = "other targets have more use for it"
)]

mod support;
#[path = "../../tests/it/transparent/mod.rs"]
mod transparent;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use crate::transparent::{Side, Worlds, check};

static WORLDS: LazyLock<Worlds> = LazyLock::new(Worlds::new);

fuzz_target!(|bytes: &[u8]| check(&WORLDS, Side::Server, bytes));
