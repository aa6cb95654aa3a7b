//! A contestant has a process of its own: its subscriber and its Sentry client are global.

use std::process::Command;

use crate::Error;

/// What this program prints if it is started with `arguments`.
pub fn output_of_self<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<String, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    output(command.args(arguments))
}

pub fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed: {errors}").into());
    }
    // Valgrind tells its counts as errors.
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}

/// How many instructions a program takes where callgrind counts.
pub fn instructions(command: &Command) -> Result<f64, Error> {
    let told = output(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg("--toggle-collect=*in_measured_region*")
            .arg(command.get_program())
            .args(command.get_args()),
    )?;
    let counted = told
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .ok_or_else(|| format!("callgrind says nothing of instructions: {told}"))?;
    Ok(counted.1.trim().parse()?)
}

/// Numbers in the words of a line.
pub fn numbers<T: std::str::FromStr>(line: &str) -> Result<Vec<T>, Error> {
    let parse = |word: &str| {
        word.parse()
            .map_err(|_| format!("not a number: {word}").into())
    };
    line.split_whitespace().map(parse).collect()
}
