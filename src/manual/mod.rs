//! The manual: how to set the crate up, what it does with calls, and what to do where it does
//! not do what it should. The crate's docs have [a table](crate#the-manual) of it.
//!
//! These modules are text alone: rustdoc sees them, and no application does.

#[doc = include_str!("calls.md")]
pub mod calls {}
#[doc = include_str!("fields.md")]
pub mod fields {}
#[doc = include_str!("hubs.md")]
pub mod hubs {}
#[doc = include_str!("limits.md")]
pub mod limits {}
pub mod migrating;
#[doc = include_str!("opentelemetry.md")]
pub mod opentelemetry {}
#[doc = include_str!("options.md")]
pub mod options {}
#[doc = include_str!("people.md")]
pub mod people {}
#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("production.md")]
pub mod production {}
#[doc = include_str!("setup.md")]
pub mod setup {}
#[doc = include_str!("traces.md")]
pub mod traces {}
#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}
