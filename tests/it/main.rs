//! The integration tests: one binary, a module for each theme.

mod calls;
mod codegen;
mod endings;
mod events;
mod hosts;
mod house;
mod hubs;
mod isolation;
mod quickstart;
mod spans;
mod support;
