//! With made-up lines; `PROPTEST_CASES` says how many cases.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use crate::hostile_headers::check;
use crate::transparent::Worlds;

const MANY: u32 = 60;

fn line() -> impl Strategy<Value = Vec<u8>> {
    let ids = "[sS]09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a(-[01])?";
    let of_w3c = "[pP](00|cc|ff)-0[9aA]e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-0[0-3](-x)?";
    let texts = prop_oneof![
        ids,
        of_w3c,
        "[bB](\\*[0-9])?(sentry-)?[a-z_]{1,12}=[ -~]{0,20},?",
        "bsentry-(org_id|sampled|sample_ra(te|nd)|trace_id|public_key)=[0-9.e+tru%]{0,9}",
        "[tX](\\*[0-9])?[a-z]{0,3}=[a-z]{0,9},?",
        "T[0-9]{0,9}[HMSmunx]?",
        "[cmdD](\\*[0-9])?[ -~]{0,20}",
        "c[0-9]{1,2}",
        "m(\\*[0-9])?(%[0-9a-fA-F]{1,2}|[a-z]){0,9}",
        "[wiauhxy](\\*[0-9])?[ -~]{0,20}",
    ];
    prop_oneof![3 => texts.prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..40)]
}

#[test]
fn what_goes_out_is_valid_and_means_the_same_whatever_comes_in() {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = MANY;
    }
    config.source_file = Some(file!());
    let worlds = Worlds::new();
    let run = TestRunner::new(config).run(&vec(line(), 0..9), |lines| {
        check(&worlds, &lines.join(&b'\n'));
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}
