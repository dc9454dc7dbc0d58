//! Postern as its users meet it: the real binary, real sockets, real peers. One file per promise; see `tests/README.md`.

#![expect(clippy::disallowed_methods, reason = "tests read clocks and sleep: they stand outside the gateway")]
#![expect(clippy::disallowed_types, reason = "the harness is made of threads, which lock")]

mod harness;

mod accounts;
mod admin;
mod bodies;
mod certificate_rotation;
mod client_certificates;
mod concurrency;
mod drain;
mod endpoints;
mod expect;
mod forwarding;
mod h1_smuggling;
mod h2;
mod h2_attacks;
mod h2_clients;
mod h2_floods;
mod h2_upstream;
mod harness_itself;
mod keep_alive;
mod pool;
mod proxy_headers_sent;
mod proxy_protocol;
mod real_peers;
mod routes;
mod startup;
mod targets;
mod timeouts;
mod tls;
mod untidy_clients;
mod upgrade;
mod upstream_faults;
mod websocket;
