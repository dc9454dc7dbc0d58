//! HTTP/1.1 messages as bytes (RFC 9110, RFC 9112): heads are parsed and encoded here, bodies are told from framing here, and nothing
//! here waits, allocates or knows the time.
//!
//! The rule behind every refusal: a message that two parties could read in two ways is not forwarded. So one byte sequence has one
//! meaning, that meaning is written anew for the other side (framing is never copied through), and what is not certain is an error.
//!
//! | File | Question it answers |
//! |---|---|
//! | [`request`], [`response`] | what does this head say, and may it be believed? |
//! | [`head`] | how much of a head may there be, and is it all here? |
//! | [`fields`] | what is this field to a proxy? |
//! | [`framing`], [`chunked`] | which bytes are content, and where does the message end? |
//! | [`encode`] | which bytes does the other side get? |
//! | [`h2`] | what would this HTTP/2 message be in HTTP/1.1, and the other way round? |
//! | [`forwarded`] | what is the upstream told about the client? |
//! | [`target`] | which path is meant? |
//! | [`problem`], [`reply`] | what do we say when we answer ourselves? |
//! | [`grpc`] | and what to a client that speaks gRPC? |
//! | [`request_id`] | what is this request called in the logs? |
//!
//! The verdict on a head depends on its bytes only, never on how they were cut into reads: the parser is sequential and the first bad
//! byte decides.

pub mod chunked;
pub mod encode;
pub mod fields;
pub mod forwarded;
pub mod framing;
pub mod fuzzing;
pub mod grpc;
pub mod h2;
pub mod head;
pub mod problem;
pub mod reply;
pub mod request;
pub mod request_id;
pub mod response;
pub mod target;

mod authority;
mod facts;
mod method;
mod octets;

pub use chunked::BodyFault;
pub use fields::{FieldFault, FieldSlots, Fields, MAX_FIELDS};
pub use forwarded::{ClientText, Forwarding};
pub use framing::{BodyFraming, BodyReader, Decoded};
pub use head::{HeadLimits, HeadScan, Parsed, Version};
pub use method::Method;
pub use problem::{Problem, ProblemKind};
pub use request::{RequestFault, RequestHead, parse_request};
pub use response::{ResponseContext, ResponseFault, ResponseHead, parse_response};
