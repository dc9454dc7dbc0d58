//! Decisions, as values: no I/O, no clock, no async.
//!
//! Each core is built with a seed where it needs chance; facts go in, decisions come out, and `now` is always an argument. What a network peer sends
//! never makes one panic. So everything here is tested without a socket, in virtual time.

pub mod coverage;
pub mod exchange;
pub mod http;
pub mod proxy_protocol;
pub mod route;
pub mod state;
pub mod upstream;
pub mod websocket;
