//! Headers of any bytes, through a server, a client and the server behind it: what goes
//! out is valid and bounded, and means there what it means here.
//!
//! Cases are made of text, a header a line, for whoever makes up bytes.

mod check;
mod input;
mod journey;
mod oracle;
#[cfg(test)]
mod property;
mod told;

pub(crate) use self::check::check;
