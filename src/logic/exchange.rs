//! One request's way through an upstream, as a state machine: facts go in by [`Exchange::handle`], and what to do next comes out.
//!
//! It sees milestones and never bytes. The shell carries each [`Step`] out and reports what became of it; the simulator does the same without sockets.
//!
//! ```text
//!            Connected            Relayed
//!   Open ---------------> Attempt ---------> Finish
//!    ^  \ NotConnected     |    \ Broken
//!    |   `-------------.   |     `---------> Abort
//!    |                 |   | Failed            ^
//!    |                 v   v                   | the client is gone
//!    `-- once, when safe --+-------------------'
//!                          `---------------> Reply
//! ```
//!
//! The one repetition here is no retry policy but the repair of a race: a kept connection may have been closed by the backend while the request was
//! on its way (RFC 9112 section 9.3.1). The request goes out again, once, on a new connection, if the backend cannot have acted on it or may act on
//! it twice. A peer of HTTP/2 may also say that it has done nothing about a request (RFC 9113 section 8.7): then it goes out again, once, wherever there
//! is a place.

use super::http::problem::ProblemKind;

/// What the exchange must know of its request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    /// By its method (RFC 9110 section 9.2.2).
    pub idempotent: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Get a connection; a `fresh` one was not used before.
    Open { fresh: bool },
    /// Send the request and pass the response on.
    Attempt,
    /// Answer in the upstream's stead.
    Reply(ProblemKind),
    /// The response went out whole.
    Finish,
    /// The client is gone, or has part of a response that cannot be completed: close its connection.
    Abort,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Connected {
        reused: bool,
    },
    NotConnected(DialFault),
    /// Nothing of a final response was passed on.
    Failed(AttemptFault),
    /// The response was passed on whole.
    Relayed,
    /// It broke off half-way.
    Broken,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFault {
    NoTarget,
    QueueFull,
    QueueTimeout,
    Failed,
    Timeout,
    Deadline,
    ClientGone,
}

/// Why an attempt ended before anything of a final response was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptFault {
    pub kind: AttemptFaultKind,
    /// Nothing was sent, or all that was sent is still at hand: the request can go out again.
    pub replayable: bool,
    /// The upstream may have got some of the request.
    pub sent: bool,
    /// Some bytes of a response came.
    pub answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptFaultKind {
    /// The upstream closed or reset the connection.
    Closed,
    /// It has said that it did nothing about the request.
    Refused,
    /// What it sent is no response.
    Malformed,
    FirstByteTimeout,
    Deadline,
    ClientGone,
    /// The client's content is malformed, too long, or too slow in coming.
    Content(ProblemKind),
}

/// See the module.
#[derive(Debug)]
pub struct Exchange {
    facts: RequestFacts,
    reused: bool,
    repeated: bool,
}

impl Exchange {
    pub fn new(facts: RequestFacts) -> (Self, Step) {
        (Self { facts, reused: false, repeated: false }, Step::Open { fresh: false })
    }

    /// What to do after `event`.
    pub fn handle(&mut self, event: Event) -> Step {
        match event {
            Event::Connected { reused } => {
                self.reused = reused;
                Step::Attempt
            }
            Event::NotConnected(fault) => match fault {
                DialFault::NoTarget => Step::Reply(ProblemKind::NoEndpoint),
                DialFault::QueueFull => Step::Reply(ProblemKind::UpstreamFull),
                DialFault::QueueTimeout => Step::Reply(ProblemKind::PendingTimeout),
                DialFault::Failed => Step::Reply(ProblemKind::ConnectFailed),
                DialFault::Timeout => Step::Reply(ProblemKind::ConnectTimeout),
                DialFault::Deadline => Step::Reply(ProblemKind::DeadlineExceeded),
                DialFault::ClientGone => Step::Abort,
            },
            Event::Failed(fault) => self.failed(fault),
            Event::Relayed => Step::Finish,
            Event::Broken => Step::Abort,
        }
    }

    /// Whether the request went out a second time.
    pub fn repeated(&self) -> bool {
        self.repeated
    }

    fn failed(&mut self, fault: AttemptFault) -> Step {
        match fault.kind {
            AttemptFaultKind::Closed if self.may_repeat(fault) => {
                self.repeated = true;
                Step::Open { fresh: true }
            }
            AttemptFaultKind::Refused if !self.repeated && fault.replayable => {
                self.repeated = true;
                Step::Open { fresh: false }
            }
            AttemptFaultKind::Closed | AttemptFaultKind::Refused => Step::Reply(ProblemKind::UpstreamReset),
            AttemptFaultKind::Malformed => Step::Reply(ProblemKind::BadUpstreamResponse),
            AttemptFaultKind::FirstByteTimeout => Step::Reply(ProblemKind::UpstreamTimeout),
            AttemptFaultKind::Deadline => Step::Reply(ProblemKind::DeadlineExceeded),
            AttemptFaultKind::Content(problem) => Step::Reply(problem),
            AttemptFaultKind::ClientGone => Step::Abort,
        }
    }

    fn may_repeat(&self, fault: AttemptFault) -> bool {
        let safe = !fault.sent || self.facts.idempotent;
        self.reused && !self.repeated && !fault.answered && fault.replayable && safe
    }
}

#[cfg(test)]
mod tests;
