//! The examples that were built with these tests.

use std::process::Command;

/// A command that runs an example, without the Sentry of whoever runs the tests.
pub(crate) fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    let example = profile.join("examples").join(name);
    assert!(
        example.exists(),
        "`cargo test` builds the examples; where it is told to build one test \
         alone, `cargo build --examples` comes first"
    );
    let mut command = Command::new(example);
    for variable in [
        "DSN",
        "TRACES_SAMPLE_RATE",
        "ENVIRONMENT",
        "RELEASE",
        "SPOTLIGHT",
    ] {
        command.env_remove(format!("SENTRY_{variable}"));
    }
    command
}
