//! How a request sets out on its way to an upstream: its head, and as much of its content as is here already.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::attempt::content_fault;
use super::client_h2::{self, Exchange, Handle};
use super::h2_stream::{self, Chunk, Pace};
use super::prepare;
use super::relay::{Frame, RelayFault, Sink, Source, piece_of_chunks};
use super::transport::{Sending, Transport};
use crate::config::limits;
use crate::deadline::Deadline;
use crate::logic::exchange::AttemptFaultKind;
use crate::logic::http::ProblemKind;
use crate::logic::http::h2::read_request;
use crate::ring::{Outgoing, Ring, Timer};

/// What goes out, and may have to go out again.
#[derive(Default)]
pub struct Message {
    /// The head as it goes out.
    pub head: Vec<u8>,
    /// Head and content of an attempt over HTTP/1.1.
    pub first: Option<(Outgoing, bool)>,
    /// The whole content, of an attempt over HTTP/2.
    pub replay: Option<Vec<Chunk>>,
}

/// See the module.
pub struct Outset<'a, 's> {
    pub source: &'a mut Source<'s>,
    pub message: &'a mut Message,
    pub frame: Frame,
    pub expects_continue: bool,
    /// Goes out instead of the host in the head.
    pub host: Option<&'a str>,
}

/// Content that goes out before the rest.
#[derive(Default)]
pub struct First {
    chunks: Vec<Chunk>,
    /// There is no more, and no trailers either.
    is_all: bool,
}

impl Outset<'_, '_> {
    /// Posts head and content. Returns also what has to follow, if anything does.
    ///
    /// # Errors
    /// The content is at fault. Nothing was sent.
    pub fn begin_on_connection(
        &mut self,
        transport: &Transport,
        uploaded: &Cell<u64>,
    ) -> Result<(Option<Sending>, Option<First>), AttemptFaultKind> {
        let Message { head, first, replay } = &mut *self.message;
        let head_bytes = head.len();
        let (mut outgoing, complete) = match (first.take(), replay.take()) {
            (Some(first), _) => first,
            (None, Some(chunks)) => (piece_of_chunks(&chunks, self.frame, std::mem::take(head)), true),
            (None, None) if self.expects_continue => (Outgoing::new(std::mem::take(head), None, b""), false),
            (None, None) => {
                let piece = self.source.piece(self.frame, std::mem::take(head));
                let (outgoing, complete) = piece.map_err(|fault| content_fault(&fault))?;
                uploaded.set(uploaded.get() + (outgoing.remaining() - head_bytes) as u64);
                (outgoing, complete)
            }
        };
        if let Some(host) = self.host {
            prepare::set_host(&mut outgoing.head, host);
        }
        Ok((Some(transport.post(outgoing)), (!complete).then(First::default)))
    }

    /// Begins a stream. Returns also what has to follow, if anything does.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn begin_on_stream(
        &mut self,
        handle: &Rc<Handle>,
        now: Instant,
    ) -> Result<(Exchange, Option<First>), AttemptFaultKind> {
        let Message { head, first, replay } = &mut *self.message;
        if first.is_some() {
            // It is framed for HTTP/1.1, which the upstream spoke a moment ago.
            return Err(AttemptFaultKind::Closed);
        }
        if let Some(host) = self.host {
            prepare::set_host(head, host);
        }
        let content = match replay.take() {
            Some(chunks) => First { chunks, is_all: true },
            None if self.expects_continue => First::default(),
            None => first_chunks(self.source, self.frame).map_err(|fault| content_fault(&fault))?,
        };
        let request = read_request(&Bytes::copy_from_slice(head), handle.is_encrypted())
            .map_err(|fault| AttemptFaultKind::Content(ProblemKind::Request(fault)))?;
        *replay = content.is_all.then(|| content.chunks.clone());
        let ended = content.is_all && content.chunks.is_empty();
        let exchange = handle.send(request, ended, now).map_err(|error| client_h2::fault(&error))?;
        Ok((exchange, (!ended).then_some(content)))
    }
}

/// Takes what is here already, up to what may be kept for another attempt.
fn first_chunks(source: &mut Source<'_>, frame: Frame) -> Result<First, RelayFault> {
    let (mut first, mut bytes) = (First::default(), 0);
    loop {
        let (chunk, complete) = source.chunk()?;
        let is_last = complete || chunk.is_none();
        bytes += chunk.as_ref().map_or(0, Chunk::len);
        first.chunks.extend(chunk);
        if is_last || bytes >= limits::H2_REPLAY {
            let has_trailers = frame.has_trailers() && !source.trailers().is_empty();
            first.is_all = complete && !has_trailers;
            return Ok(first);
        }
    }
}

impl First {
    /// Sends it. Returns whether the request has ended with it.
    ///
    /// # Errors
    /// See [`h2_stream::Outgoing::send`].
    pub async fn send(
        self,
        outgoing: &h2_stream::Outgoing,
        sink: &Sink<'_>,
        timer: &mut Timer,
        deadline: Deadline,
        ring: &Ring,
    ) -> Result<bool, RelayFault> {
        let count = self.chunks.len();
        for (chunk, number) in self.chunks.into_iter().zip(1..) {
            let bytes = chunk.len() as u64;
            let mut pace = Pace { timer, patience: sink.patience, deadline, ring };
            outgoing.send(chunk, self.is_all && number == count, &mut pace).await?;
            sink.sent.set(sink.sent.get() + bytes);
        }
        Ok(self.is_all && count > 0)
    }
}
