//! What is wrong with how a process is set up, for who sets it up.

mod check;
mod hint;
mod problem;
mod report;

pub use self::check::check_setup;
pub use self::problem::SetupProblem;
pub use self::report::SetupReport;
