//! Which file may import which, and what a file may be.

mod circles;
mod graph;
mod parser;
mod plan;
mod source;
