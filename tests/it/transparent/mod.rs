//! Calls that are made twice, with the middleware and without: nobody must be able to
//! tell, neither the service nor its caller, and Sentry is told what happened.
//!
//! Cases are made of bytes, for whoever makes up bytes.

mod check;
mod choices;
mod driver;
mod failure;
mod inner;
mod oracle;
mod played;
#[cfg(test)]
mod property;
mod script;
mod seen;
mod worlds;

pub(crate) use self::check::{Side, check, of_others};
pub(crate) use self::oracle::code_in;
pub(crate) use self::worlds::{Mood, STATUSES, World, Worlds};
