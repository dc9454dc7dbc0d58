//! Body bytes from one connection to another, with back-pressure and without policy.
//!
//! Content goes out of the buffer that it came into. While one buffer is being sent the next receive is under way: two buffers are held at most, and none
//! while the source is silent.

use std::future::poll_fn;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::logic::http::encode;
use crate::logic::http::framing::{BodyFault, BodyReader};
use crate::ring::{Expect, Outgoing, SMALL_BYTES, Size, Stream, Timer};

use super::connection::Inbound;

/// How the content is framed on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// As it is: its length is known, or the end of the connection ends it.
    Plain,
    Chunked,
}

/// Content shorter than this is copied behind what is sent with it, which is cheaper than a vectored send.
const COPY_BELOW: usize = 4096;

/// Where content comes from.
pub struct Source<'a> {
    pub stream: &'a Stream,
    pub inbound: &'a mut Inbound,
    pub reader: &'a mut BodyReader,
    /// The longest wait for more content.
    pub patience: Duration,
    /// Bytes of content that may still come.
    pub allowance: u64,
}

/// Where content goes.
pub struct Sink<'a> {
    pub stream: &'a Stream,
    pub frame: Frame,
    /// The longest wait for the receiver to take some.
    pub patience: Duration,
}

/// Why a body did not cross.
#[derive(Debug)]
pub enum RelayFault {
    /// The source closed or reset the connection before the end.
    SourceClosed,
    SourceMalformed(BodyFault),
    SourceStalled,
    /// More content than is allowed.
    TooLong,
    SinkClosed,
    SinkStalled,
    /// The whole request has taken too long.
    Deadline,
}

impl Source<'_> {
    /// Puts what has arrived behind `head`, framed. Returns what to send, and whether the body is complete with it.
    ///
    /// # Errors
    /// The content is malformed, or more than allowed.
    pub fn piece(&mut self, frame: Frame, mut head: Vec<u8>) -> Result<(Outgoing, bool), RelayFault> {
        let arrived = self.inbound.bytes();
        let decoded = self.reader.decode(arrived).map_err(RelayFault::SourceMalformed)?;
        let (content, complete) = (decoded.content, decoded.complete);
        self.allowance = self.allowance.checked_sub(content.len() as u64).ok_or(RelayFault::TooLong)?;

        let trailers = if complete && frame == Frame::Chunked { self.reader.take_trailers() } else { None };
        let is_chunk = frame == Frame::Chunked && !content.is_empty();
        if is_chunk {
            encode::chunk_prefix(&mut head, content.len());
        }
        let in_place = content.len() >= COPY_BELOW && decoded.consumed == arrived.len() && trailers.is_none();
        if in_place && let Some(mut buf) = self.inbound.take_buf() {
            buf.keep(content);
            let tail = match (frame, complete) {
                (Frame::Plain, _) => b"".as_slice(),
                (Frame::Chunked, false) => encode::CHUNK_END,
                (Frame::Chunked, true) => encode::CHUNK_END_AND_LAST_CHUNK,
            };
            return Ok((Outgoing::new(head, Some(buf), tail), complete));
        }
        head.extend_from_slice(&self.inbound.bytes()[content]);
        self.inbound.consume(decoded.consumed);
        if is_chunk {
            head.extend_from_slice(encode::CHUNK_END);
        }
        if complete && frame == Frame::Chunked {
            encode::last_chunk(&mut head, trailers.as_deref());
        }
        Ok((Outgoing::new(head, None, b""), complete))
    }

    /// Begins to receive more, in buffers that suit what is still to come.
    pub fn arm(&mut self) {
        self.inbound.arm(self.stream, self.size(), Expect::Now);
    }

    fn size(&self) -> Size {
        match self.reader.remaining_hint() {
            Some(remaining) if remaining <= SMALL_BYTES as u64 => Size::Small,
            _ => Size::Large,
        }
    }
}

/// Sends `outgoing` whole, and returns its head's allocation, empty.
///
/// # Errors
/// The receiver is gone, takes nothing for longer than `patience`, or the deadline has passed.
pub async fn send_whole(
    stream: &Stream,
    mut outgoing: Outgoing,
    timer: &mut Timer,
    patience: Duration,
    deadline: Deadline,
    now: impl Fn() -> std::time::Instant,
) -> Result<Vec<u8>, RelayFault> {
    while outgoing.remaining() > 0 {
        let bound = deadline.bound(now(), patience);
        let Ok((sent, rest)) = timer.within(bound.at, stream.send(outgoing)).await else {
            return Err(if bound.is_final { RelayFault::Deadline } else { RelayFault::SinkStalled });
        };
        sent.map_err(|_| RelayFault::SinkClosed)?;
        outgoing = rest;
    }
    let mut head = outgoing.head;
    head.clear();
    Ok(head)
}

/// Sends `head` and the body behind it. Returns the allocation of `head`, empty, once the body has gone out whole.
///
/// # Errors
/// See [`RelayFault`]. What was sent until then may end anywhere.
pub async fn relay(
    mut source: Source<'_>,
    sink: Sink<'_>,
    mut head: Vec<u8>,
    timer: &mut Timer,
    deadline: Deadline,
    now: impl Fn() -> std::time::Instant,
    count: impl Fn(usize),
) -> Result<Vec<u8>, RelayFault> {
    loop {
        let (outgoing, complete) = source.piece(sink.frame, head)?;
        if !complete {
            source.arm();
        }
        count(outgoing.remaining());
        head = send_whole(sink.stream, outgoing, timer, sink.patience, deadline, &now).await?;
        if complete {
            return Ok(head);
        }
        let bound = deadline.bound(now(), source.patience);
        let size = source.size();
        let filling = poll_fn(|cx| source.inbound.poll_fill(source.stream, size, cx));
        match timer.within(bound.at, filling).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                // For some framings the end of the connection is the end of the body.
                source.reader.end_of_stream().map_err(|_| RelayFault::SourceClosed)?;
            }
            Ok(Err(_)) => return Err(RelayFault::SourceClosed),
            Err(_) if bound.is_final => return Err(RelayFault::Deadline),
            Err(_) => return Err(RelayFault::SourceStalled),
        }
    }
}
