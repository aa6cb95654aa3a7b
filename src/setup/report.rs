//! What a check has found.

use std::fmt;

use crate::setup::problem::SetupProblem;

const TROUBLESHOOTING: &str =
    "https://docs.rs/sentry-tonic/latest/sentry_tonic/manual/troubleshooting/";

/// What [`check_setup`](crate::check_setup) has found, and, displayed, what it cannot find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupReport {
    problems: Vec<SetupProblem>,
    hints: Vec<&'static str>,
}

impl SetupReport {
    pub(crate) fn new(problems: Vec<SetupProblem>, hints: Vec<&'static str>) -> Self {
        Self { problems, hints }
    }

    /// Whether nothing is wrong, as far as it can be seen.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// What is wrong, in the order in which it is to be mended.
    #[must_use]
    pub fn problems(&self) -> &[SetupProblem] {
        &self.problems
    }

    /// What to look at that cannot be seen by a check, a sentence or two each.
    #[must_use]
    pub fn hints(&self) -> &[&'static str] {
        &self.hints
    }
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sentry-tonic: ")?;
        match self.problems.len() {
            0 => f.write_str("nothing is wrong with the set-up, as far as it can be seen.")?,
            1 => f.write_str("one thing is wrong with the set-up.")?,
            many => write!(f, "{many} things are wrong with the set-up.")?,
        }
        for problem in &self.problems {
            let text = problem.to_string();
            for (line, mark) in text.lines().zip([" * ", "   "]) {
                write!(f, "\n{mark}{line}")?;
            }
        }
        f.write_str("\nWhat cannot be seen from here:")?;
        for hint in &self.hints {
            write!(f, "\n - {hint}")?;
        }
        write!(f, "\nMore: {TROUBLESHOOTING}")
    }
}
