//! Headers of any bytes, on their way through a server and a client.
#![no_main]
#![expect(clippy::disallowed_methods, reason = "a panic ends the run")]
#![allow(
    dead_code,
    unused_imports,
    reason = "other targets have more use for it"
)]

#[path = "../../tests/it/hostile_headers/mod.rs"]
mod hostile_headers;
mod support;
#[path = "../../tests/it/transparent/mod.rs"]
mod transparent;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use crate::hostile_headers::check;
use crate::transparent::Worlds;

static WORLDS: LazyLock<Worlds> = LazyLock::new(Worlds::new);

fuzz_target!(|bytes: &[u8]| check(&WORLDS, bytes));
