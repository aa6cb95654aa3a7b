//! Checks the setup of a process, for developers.

mod check;
mod note;
mod problem;
mod report;

pub use self::check::check_setup;
pub use self::problem::SetupProblem;
pub use self::report::SetupReport;
