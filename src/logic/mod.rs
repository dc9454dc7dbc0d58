//! Decisions, as values: no I/O, no clock, no async.

pub mod http;
pub mod route;
