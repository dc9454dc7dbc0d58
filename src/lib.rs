//! Postern: an ingress for Linux that does what most gateways leave to you after the request leaves them.
//!
//! This page is the map. Five rooms, and what each may know of the others, which `tests/tidy.rs` enforces:
//!
//! ```text
//!              config/            what the operator wrote -> a frozen Plan
//!                 |
//!  logic/ <-------+------- shard/ ------> mesh/
//!  pure: no I/O, no clock, one core owns  the only place
//!  no async, no global rng it all: Rc     two threads meet
//!                             |
//!                           ring/   the shard's hands: sockets, buffers, timers over one io_uring
//! ```
//!
//! | Room | Owns | Never |
//! |---|---|---|
//! | [`config`] | the JSON's shapes, the [`Plan`](config::plan::Plan), every bound with its unit and default | runtime types |
//! | [`logic`] | the HTTP/1.1 codec, routing, the exchange, pools: decisions as values that are poked | sockets, `async`, a clock |
//! | [`ring`] | submissions, completions, buffers, timers, doorbells; the only room with `unsafe` | HTTP, policy |
//! | [`shard`] | what one core has: sockets in use, tasks | locks, policy decisions |
//! | [`mesh`] | bounded inboxes between shards, and the list of everything that may cross | HTTP, policy |
//!
//! # The life of a request
//!
//! 1. `shard::listen` accepts, `shard::serve_h1` waits. An idle connection holds a task of a few hundred bytes and no buffer. Where HTTP/2 is agreed
//!    on, `shard::serve_h2` takes over: each request has a task, and its head is written as one of HTTP/1.1 to be understood like any other.
//! 2. Bytes come: a future of the shard's spare ones is borrowed, and `shard::prepare` turns the head into a decision in one synchronous step. Head,
//!    framing and fields are understood once, by [`logic::http`]; [`logic::route`] finds the route; the deadline is fixed; the head for the
//!    upstream is written.
//! 3. `shard::run_exchange` carries out the steps of [`logic::exchange`]: a connection from the pool or a dial (`shard::dial`), an attempt
//!    (`shard::attempt`), a reply of our own where there is none.
//! 4. `shard::relay` moves content both ways at once, out of the buffers that it came into.
//! 5. `shard::record` counts and logs. The future goes back to the others.
//!
//! Meanwhile the core sleeps in one place only, `shard::driver`: everything that tasks queued travels with one system call. Names and files that may
//! change are looked at by threads beside the shards (`shard::lookup`, `shard::renewal`), which tell every shard by [`mesh`].

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests read the clock and meet threads")
)]

pub mod config;
pub mod deadline;
pub mod demo;
pub mod ids;
pub mod logic;
pub mod mesh;
pub mod ring;
pub mod shard;
