//! Tests in a process of their own: what they do concerns a whole process.

use std::process::Command;

const ALONE: &str = "SENTRY_TONIC_TEST_ALONE";

/// Runs `test` in a process that runs nothing else; `name` is that of the test which
/// calls this.
#[track_caller]
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    alone_with(name, &[], test);
}

/// With these variables in its environment, too.
#[track_caller]
pub(crate) fn alone_with(name: &str, variables: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .env_remove("SENTRY_DSN")
        .env_remove("SENTRY_RELEASE")
        .env_remove("SENTRY_ENVIRONMENT")
        .envs(variables.iter().copied())
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let complained = String::from_utf8_lossy(&run.stderr);
    print!("{said}");
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{}\n{said}\n{complained}",
        run.status
    );
}
