//! Body bytes from one connection to another, with back-pressure and without policy.
//!
//! Content goes out of the buffer that it came into. While one buffer is being sent the next receive is under way: two buffers are held at most, and none
//! while the source is silent.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::logic::http::encode;
use crate::logic::http::{BodyFault, BodyFraming, BodyReader, Decoded};
use crate::ring::{Expect, Outgoing, Ring, SMALL_BYTES, Size, Timer};

use super::connection::Inbound;
use super::transport::{Departing, Sending, Transport};

/// How the content is framed on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// As it is: its length is known, or the end of the connection ends it.
    Plain,
    Chunked {
        /// Trailers go on.
        trailers: bool,
    },
}

impl Frame {
    pub fn of(framing: BodyFraming, trailers: bool) -> Self {
        match framing {
            BodyFraming::Chunked => Frame::Chunked { trailers },
            BodyFraming::None | BodyFraming::Length(_) | BodyFraming::UntilClose => Frame::Plain,
        }
    }

    fn is_chunked(self) -> bool {
        matches!(self, Frame::Chunked { .. })
    }
}

/// Content shorter than this is copied behind what is sent with it, which is cheaper than a vectored send.
const COPY_BELOW: usize = 4096;

/// Where content comes from.
pub struct Source<'a> {
    pub transport: &'a Transport,
    pub inbound: &'a mut Inbound,
    pub reader: &'a mut BodyReader,
    /// The longest wait for more content.
    pub patience: Duration,
    /// Bytes of content that may still come.
    pub allowance: u64,
}

/// Where content goes.
pub struct Sink<'a> {
    pub transport: &'a Transport,
    pub frame: Frame,
    /// The longest wait for the receiver to take some.
    pub patience: Duration,
    /// Counts what is sent, framing included.
    pub sent: &'a Cell<u64>,
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
        let arrived_bytes = arrived.len();
        let Decoded { consumed, content, complete } =
            self.reader.decode(arrived).map_err(RelayFault::SourceMalformed)?;
        self.allowance = self.allowance.checked_sub(content.len() as u64).ok_or(RelayFault::TooLong)?;

        let is_chunk = frame.is_chunked() && !content.is_empty();
        if is_chunk {
            head.extend_from_slice(encode::chunk_prefix(content.len()).as_ref());
        }
        let trailers = match frame {
            Frame::Chunked { trailers: true } => self.reader.trailers(),
            Frame::Chunked { trailers: false } | Frame::Plain => b"",
        };
        let in_place = content.len() >= COPY_BELOW && consumed == arrived_bytes && (trailers.is_empty() || !complete);
        if in_place && let Some(mut buf) = self.inbound.take_buf() {
            buf.keep(content);
            let tail = match (frame, complete) {
                (Frame::Plain, _) => b"".as_slice(),
                (Frame::Chunked { .. }, false) => encode::CHUNK_SUFFIX,
                (Frame::Chunked { .. }, true) => encode::CHUNK_SUFFIX_AND_LAST_CHUNK,
            };
            return Ok((Outgoing::new(head, Some(buf), tail), complete));
        }
        head.extend_from_slice(&self.inbound.bytes()[content]);
        self.inbound.consume(consumed);
        if is_chunk {
            head.extend_from_slice(encode::CHUNK_SUFFIX);
        }
        if complete && frame.is_chunked() {
            encode::last_chunk(&mut head, trailers);
        }
        Ok((Outgoing::new(head, None, b""), complete))
    }

    /// Begins to receive what comes next: more of the body, in buffers that suit it, or whatever follows it.
    pub fn arm(&mut self, complete: bool) {
        match complete {
            true => self.inbound.arm(self.transport, Size::Small, Expect::Later),
            false => self.inbound.arm(self.transport, self.size(), Expect::Now),
        }
    }

    /// Waits for more bytes. `false` when the source has closed and the body is complete with that.
    async fn wait(&mut self, timer: &mut Timer, deadline: Deadline, ring: &Ring) -> Result<bool, RelayFault> {
        let bound = deadline.bound(ring.now(), self.patience);
        let size = self.size();
        let filling = poll_fn(|cx| self.inbound.poll_fill(self.transport, size, cx));
        match timer.within(bound.at, filling).await {
            Ok(Ok(true)) => Ok(true),
            Ok(Ok(false)) => self.reader.end_of_stream().map(|()| false).map_err(|_| RelayFault::SourceClosed),
            Ok(Err(_)) => Err(RelayFault::SourceClosed),
            Err(_) if bound.is_final => Err(RelayFault::Deadline),
            Err(_) => Err(RelayFault::SourceStalled),
        }
    }

    fn size(&self) -> Size {
        match self.reader.remaining_hint() {
            Some(remaining) if remaining <= SMALL_BYTES as u64 => Size::Small,
            _ => Size::Large,
        }
    }
}

/// Sends what is left of `outgoing`. After an error it may be gone.
///
/// # Errors
/// The receiver is gone, takes nothing for longer than `patience`, or the deadline has passed.
pub async fn send_whole(
    transport: &Transport,
    outgoing: &mut Outgoing,
    timer: &mut Timer,
    patience: Duration,
    deadline: Deadline,
    ring: &Ring,
) -> Result<(), RelayFault> {
    let Departing { mut bytes, content } =
        transport.seal(std::mem::take(outgoing)).map_err(|_| RelayFault::SinkClosed)?;
    let sent = loop {
        if bytes.remaining() == 0 {
            break Ok(());
        }
        let bound = deadline.bound(ring.now(), patience);
        let sending = transport.stream.send(std::mem::take(&mut bytes));
        let Ok((sent, rest)) = timer.within(bound.at, sending).await else {
            return Err(if bound.is_final { RelayFault::Deadline } else { RelayFault::SinkStalled });
        };
        bytes = rest;
        if sent.is_err() {
            break Err(RelayFault::SinkClosed);
        }
    };
    *outgoing = Departing { bytes, content }.into_given();
    sent
}

/// Waits until what was posted has gone out.
///
/// # Errors
/// The receiver is gone, has not taken everything within `patience`, or the deadline has passed.
pub async fn settle(
    mut posted: Sending,
    timer: &mut Timer,
    patience: Duration,
    deadline: Deadline,
    ring: &Ring,
) -> Result<(), RelayFault> {
    let bound = deadline.bound(ring.now(), patience);
    match timer.within(bound.at, poll_fn(|cx| posted.poll_sent(cx))).await {
        Ok((sent, _)) => sent.map_err(|_| RelayFault::SinkClosed),
        Err(_) if bound.is_final => Err(RelayFault::Deadline),
        Err(_) => Err(RelayFault::SinkStalled),
    }
}

/// Sends `head` and the body behind it. The last of it is on its way, not yet sent, when this returns.
///
/// # Errors
/// See [`RelayFault`]. What was sent until then may end anywhere.
pub async fn relay(
    source: &mut Source<'_>,
    sink: Sink<'_>,
    mut head: Vec<u8>,
    timer: &mut Timer,
    deadline: Deadline,
    ring: &Ring,
) -> Result<Sending, RelayFault> {
    loop {
        let (mut outgoing, complete) = source.piece(sink.frame, head)?;
        source.arm(complete);
        let bytes = outgoing.remaining() as u64;
        if complete {
            sink.sent.set(sink.sent.get() + bytes);
            return Ok(sink.transport.post_for_good(outgoing));
        }
        send_whole(sink.transport, &mut outgoing, timer, sink.patience, deadline, ring).await?;
        sink.sent.set(sink.sent.get() + bytes);
        head = outgoing.head;
        head.clear();
        if !source.wait(timer, deadline, ring).await? {
            break;
        }
    }
    // The end of the source's connection was the end of the body.
    if sink.frame.is_chunked() {
        encode::last_chunk(&mut head, b"");
        sink.sent.set(sink.sent.get() + head.len() as u64);
    }
    Ok(sink.transport.post_for_good(Outgoing::new(head, None, b"")))
}
