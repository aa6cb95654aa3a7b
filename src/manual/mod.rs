//! The manual.

pub mod migrating;
