//! The result of a check.

use std::fmt;

use crate::setup::problem::SetupProblem;

const TROUBLESHOOTING: &str =
    "https://docs.rs/sentry-tonic/latest/sentry_tonic/manual/troubleshooting/";

/// The result of [`check_setup`](crate::check_setup): problems, and notes on what the check cannot
/// decide.
///
/// `Display` writes both, in plain text of several lines, and a link to the manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupReport {
    problems: Vec<SetupProblem>,
    notes: Vec<&'static str>,
}

impl SetupReport {
    pub(crate) fn new(problems: Vec<SetupProblem>, notes: Vec<&'static str>) -> Self {
        Self { problems, notes }
    }

    /// Whether the check found no problem. A report without problems can have notes.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// The problems, in the order in which to fix them.
    #[must_use]
    pub fn problems(&self) -> &[SetupProblem] {
        &self.problems
    }

    /// Advice on what the check cannot decide, and on choices that may be intended, such as to
    /// send errors only. Each note has one or more lines.
    #[must_use]
    pub fn notes(&self) -> &[&'static str] {
        &self.notes
    }
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sentry-tonic setup: ")?;
        match self.problems.len() {
            0 => f.write_str("no problems\n")?,
            1 => f.write_str("1 problem found\n")?,
            count => writeln!(f, "{count} problems found")?,
        }
        for (number, problem) in (1..).zip(&self.problems) {
            write_item(f, &format!("{number}."), &problem.to_string())?;
        }
        if !self.notes.is_empty() {
            f.write_str("\nNotes:\n")?;
        }
        for note in &self.notes {
            write_item(f, " -", note)?;
        }
        write!(f, "\nMore: {TROUBLESHOOTING}")
    }
}

/// Writes `text` after `mark`, with its further lines indented.
fn write_item(f: &mut fmt::Formatter<'_>, mark: &str, text: &str) -> fmt::Result {
    for (index, line) in text.lines().enumerate() {
        let start = if index == 0 { mark } else { "" };
        writeln!(f, "{start:width$} {line}", width = mark.len())?;
    }
    Ok(())
}
