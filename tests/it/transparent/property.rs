//! With made-up bytes; `PROPTEST_CASES` says how many.

use proptest::collection::vec;
use proptest::num::u8::ANY;
use proptest::test_runner::{Config, TestRunner};

use crate::transparent::{Side, Worlds, check};

const MANY: u32 = 2_000;

fn check_many(side: Side) {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = MANY;
    }
    config.source_file = Some(file!());
    let worlds = Worlds::new();
    let run = TestRunner::new(config).run(&vec(ANY, 0..160), |bytes| {
        check(&worlds, side, &bytes);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

#[test]
fn a_server_cannot_be_told_from_one_that_is_not_watched() {
    check_many(Side::Server);
}

#[test]
fn a_client_cannot_be_told_from_one_that_is_not_watched() {
    check_many(Side::Client);
}
