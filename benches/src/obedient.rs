//! A program of this package in a process of its own, which does something each time that
//! it is told to: so several take turns.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Error, child};

pub struct Obedient {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Obedient {
    /// This program itself.
    pub fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, to, from })
    }

    /// The numbers that it answers with.
    pub fn tell<const N: usize>(&mut self, order: &str) -> Result<[f64; N], Error> {
        writeln!(self.to, "{order}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let numbers: Vec<f64> = child::numbers(&line)?;
        numbers
            .try_into()
            .map_err(|_| format!("not what was asked for: {line}").into())
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What all threads of this process have used, which depends less on other processes than
/// the time on the clock.
pub fn cpu_seconds() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may have spaces.
    let (_, after) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
