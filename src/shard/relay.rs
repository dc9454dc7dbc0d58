//! Body bytes from one connection to another, with back-pressure and without policy.
//!
//! Content goes out of the buffer that it came into. While one buffer is being sent the next receive is under way: two buffers are held at most, and none
//! while the source is silent.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::deadline::Deadline;
use crate::logic::http::encode;
use crate::logic::http::{BodyFault, BodyFraming, BodyReader, Decoded};
use crate::ring::{Expect, Outgoing, Ring, SMALL_BYTES, Size, Timer};

use super::connection::Inbound;
use super::h2_stream::{self, Chunk, Incoming, Pace};
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

    pub fn has_trailers(self) -> bool {
        matches!(self, Frame::Chunked { trailers: true })
    }
}

/// Content shorter than this is copied behind what is sent with it, which is cheaper than a vectored send.
const COPY_BELOW: usize = 4096;

/// What content comes through.
pub enum Input<'a> {
    H1 { transport: &'a Transport, inbound: &'a mut Inbound, reader: &'a mut BodyReader },
    H2 { incoming: &'a mut Incoming, outgoing: &'a h2_stream::Outgoing },
}

/// What content goes through.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    H1(&'a Transport),
    H2(&'a h2_stream::Outgoing),
}

/// Where content comes from.
pub struct Source<'a> {
    pub input: Input<'a>,
    /// The longest wait for more content.
    pub patience: Duration,
    /// Bytes of content that may still come.
    pub allowance: u64,
}

/// Where content goes.
pub struct Sink<'a> {
    pub output: Output<'a>,
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
        let (inbound, reader) = match &mut self.input {
            Input::H1 { inbound, reader, .. } => (inbound, reader),
            Input::H2 { incoming, .. } => {
                look(incoming)?;
                spend(&mut self.allowance, incoming.arrived_bytes())?;
                return Ok(piece_of_stream(incoming, frame, head));
            }
        };
        let arrived = inbound.bytes();
        let arrived_bytes = arrived.len();
        let Decoded { consumed, content, complete } = reader.decode(arrived).map_err(RelayFault::SourceMalformed)?;
        spend(&mut self.allowance, content.len())?;

        let is_chunk = frame.is_chunked() && !content.is_empty();
        if is_chunk {
            head.extend_from_slice(encode::chunk_prefix(content.len()).as_ref());
        }
        let trailers = if frame.has_trailers() { reader.trailers() } else { b"" };
        let in_place = content.len() >= COPY_BELOW && consumed == arrived_bytes && (trailers.is_empty() || !complete);
        if in_place && let Some(mut buf) = inbound.take_buf() {
            buf.keep(content);
            let tail = match (frame, complete) {
                (Frame::Plain, _) => b"".as_slice(),
                (Frame::Chunked { .. }, false) => encode::CHUNK_SUFFIX,
                (Frame::Chunked { .. }, true) => encode::CHUNK_SUFFIX_AND_LAST_CHUNK,
            };
            return Ok((Outgoing::new(head, Some(buf), tail), complete));
        }
        head.extend_from_slice(&inbound.bytes()[content]);
        inbound.consume(consumed);
        if is_chunk {
            head.extend_from_slice(encode::CHUNK_SUFFIX);
        }
        if complete && frame.is_chunked() {
            encode::last_chunk(&mut head, trailers);
        }
        Ok((Outgoing::new(head, None, b""), complete))
    }

    /// Takes the next of what has arrived, for a stream. Returns it and whether the body is complete with it.
    ///
    /// # Errors
    /// As for [`piece`](Self::piece).
    pub fn chunk(&mut self) -> Result<(Option<Chunk>, bool), RelayFault> {
        let (inbound, reader) = match &mut self.input {
            Input::H1 { inbound, reader, .. } => (inbound, reader),
            Input::H2 { incoming, .. } => {
                look(incoming)?;
                let bytes = incoming.take();
                spend(&mut self.allowance, bytes.as_ref().map_or(0, Bytes::len))?;
                return Ok((bytes.map(Chunk::from), incoming.is_complete()));
            }
        };
        let arrived = inbound.bytes();
        let arrived_bytes = arrived.len();
        let Decoded { consumed, content, complete } = reader.decode(arrived).map_err(RelayFault::SourceMalformed)?;
        spend(&mut self.allowance, content.len())?;
        let in_place = content.len() >= COPY_BELOW && consumed == arrived_bytes;
        let chunk = match if in_place { inbound.take_buf() } else { None } {
            Some(mut buf) => {
                buf.keep(content);
                Some(buf.into())
            }
            None => {
                let bytes = Bytes::copy_from_slice(&inbound.bytes()[content]);
                inbound.consume(consumed);
                (!bytes.is_empty()).then(|| bytes.into())
            }
        };
        Ok((chunk, complete))
    }

    /// The trailer fields that came, each line with its CRLF. Whole once the body is complete.
    pub fn trailers(&self) -> &[u8] {
        match &self.input {
            Input::H1 { reader, .. } => reader.trailers(),
            Input::H2 { incoming, .. } => incoming.trailers(),
        }
    }

    /// Begins to receive what comes next: more of the body, in buffers that suit it, or whatever follows it.
    pub fn arm(&mut self, complete: bool) {
        if let Input::H1 { transport, inbound, reader } = &mut self.input {
            match complete {
                true => inbound.arm(transport, Size::Small, Expect::Later),
                false => inbound.arm(transport, size_of_rest(reader), Expect::Now),
            }
        }
    }

    /// The same, for a receiver that has no room now: it must not hold much. The end may come all the same.
    fn arm_sparingly(&mut self) {
        if let Input::H1 { transport, inbound, .. } = &mut self.input {
            inbound.arm(transport, Size::Small, Expect::Now);
        }
    }

    /// Ready when the other end has gone away.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.input {
            Input::H1 { transport, inbound, .. } => inbound.poll_gone(transport, cx),
            Input::H2 { outgoing, .. } => outgoing.poll_gone(cx),
        }
    }

    /// Waits for more bytes. `false` when the source has closed and the body is complete with that.
    async fn wait(&mut self, timer: &mut Timer, deadline: Deadline, ring: &Ring) -> Result<bool, RelayFault> {
        let bound = deadline.bound(ring.now(), self.patience);
        let input = &mut self.input;
        match timer.within(bound.at, poll_fn(|cx| input.poll_fill(cx))).await {
            Ok(filled) => filled,
            Err(_) if bound.is_final => Err(RelayFault::Deadline),
            Err(_) => Err(RelayFault::SourceStalled),
        }
    }
}

impl Input<'_> {
    /// Ready when more has come. `false` when the source has closed and the body is complete with that.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RelayFault>> {
        match self {
            Self::H1 { transport, inbound, reader } => {
                inbound.poll_fill(transport, size_of_rest(reader), cx).map(|filled| match filled {
                    Ok(true) => Ok(true),
                    Ok(false) => reader.end_of_stream().map(|()| false).map_err(|_| RelayFault::SourceClosed),
                    Err(_) => Err(RelayFault::SourceClosed),
                })
            }
            Self::H2 { incoming, .. } => incoming.poll_fill(cx).map_ok(|()| true),
        }
    }
}

fn size_of_rest(reader: &BodyReader) -> Size {
    match reader.remaining_hint() {
        Some(remaining) if remaining <= SMALL_BYTES as u64 => Size::Small,
        _ => Size::Large,
    }
}

/// Takes in what has come without waiting for more.
fn look(incoming: &mut Incoming) -> Result<(), RelayFault> {
    match incoming.poll_fill(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(filled) => filled,
        Poll::Pending => Ok(()),
    }
}

fn spend(allowance: &mut u64, bytes: usize) -> Result<(), RelayFault> {
    *allowance = allowance.checked_sub(bytes as u64).ok_or(RelayFault::TooLong)?;
    Ok(())
}

/// Puts what has arrived behind `head`, framed. It is copied: what the codec received into is not ours to send from.
fn piece_of_stream(incoming: &mut Incoming, frame: Frame, mut head: Vec<u8>) -> (Outgoing, bool) {
    let is_chunk = frame.is_chunked() && incoming.arrived_bytes() > 0;
    if is_chunk {
        head.extend_from_slice(encode::chunk_prefix(incoming.arrived_bytes()).as_ref());
    }
    incoming.take_all(&mut head);
    if is_chunk {
        head.extend_from_slice(encode::CHUNK_SUFFIX);
    }
    let complete = incoming.is_complete();
    if complete && frame.is_chunked() {
        encode::last_chunk(&mut head, if frame.has_trailers() { incoming.trailers() } else { b"" });
    }
    (Outgoing::new(head, None, b""), complete)
}

/// Puts a whole body behind `head`, framed.
pub fn piece_of_chunks(chunks: &[Chunk], frame: Frame, mut head: Vec<u8>) -> Outgoing {
    for chunk in chunks {
        if frame.is_chunked() {
            head.extend_from_slice(encode::chunk_prefix(chunk.len()).as_ref());
        }
        head.extend_from_slice(chunk.bytes());
        if frame.is_chunked() {
            head.extend_from_slice(encode::CHUNK_SUFFIX);
        }
    }
    if frame.is_chunked() {
        encode::last_chunk(&mut head, b"");
    }
    Outgoing::new(head, None, b"")
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

/// Sends `head` and the body behind it. The last of it is on its way, not yet sent, when this returns: what is returned knows when it has gone out,
/// if it is not the codec's.
///
/// # Errors
/// See [`RelayFault`]. What was sent until then may end anywhere.
pub async fn relay(
    source: &mut Source<'_>,
    sink: Sink<'_>,
    head: Vec<u8>,
    timer: &mut Timer,
    deadline: Deadline,
    ring: &Ring,
) -> Result<Option<Sending>, RelayFault> {
    match sink.output {
        Output::H1(transport) => {
            relay_to_connection(source, (transport, &sink), head, timer, deadline, ring).await.map(Some)
        }
        Output::H2(outgoing) => {
            relay_to_stream(source, (outgoing, &sink), head, timer, deadline, ring).await.map(|()| None)
        }
    }
}

async fn relay_to_connection(
    source: &mut Source<'_>,
    (transport, sink): (&Transport, &Sink<'_>),
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
            return Ok(transport.post_for_good(outgoing));
        }
        send_whole(transport, &mut outgoing, timer, sink.patience, deadline, ring).await?;
        sink.sent.set(sink.sent.get() + bytes);
        head = outgoing.head;
        head.clear();
        if let Input::H2 { .. } = source.input {
            // Content was copied into it, and there are many streams that may be silent now.
            head.shrink_to(COPY_BELOW);
        }
        if !source.wait(timer, deadline, ring).await? {
            break;
        }
    }
    // The end of the source's connection was the end of the body.
    if sink.frame.is_chunked() {
        encode::last_chunk(&mut head, b"");
        sink.sent.set(sink.sent.get() + head.len() as u64);
    }
    Ok(transport.post_for_good(Outgoing::new(head, None, b"")))
}

/// The `head`, if there is one, is the response's; that of a request has gone before.
async fn relay_to_stream(
    source: &mut Source<'_>,
    (outgoing, sink): (&h2_stream::Outgoing, &Sink<'_>),
    mut head: Vec<u8>,
    timer: &mut Timer,
    deadline: Deadline,
    ring: &Ring,
) -> Result<(), RelayFault> {
    loop {
        let (chunk, complete) = source.chunk()?;
        let has_trailers = complete && sink.frame.has_trailers() && !source.trailers().is_empty();
        let ends = complete && !has_trailers;
        if !head.is_empty() {
            sink.sent.set(sink.sent.get() + head.len() as u64);
            let is_all = ends && chunk.is_none();
            outgoing.begin(std::mem::take(&mut head), is_all)?;
            if is_all {
                source.arm(complete);
                return Ok(());
            }
        }
        if complete || outgoing.has_room() {
            source.arm(complete);
        } else if chunk.is_none() {
            source.arm_sparingly();
        }
        match chunk {
            Some(chunk) => {
                let bytes = chunk.len() as u64;
                let mut pace = Pace { timer, patience: sink.patience, deadline, ring };
                outgoing.send(chunk, ends, &mut pace).await?;
                sink.sent.set(sink.sent.get() + bytes);
            }
            None if ends => return outgoing.end(b""),
            None if complete => {}
            None if source.wait(timer, deadline, ring).await? => {}
            // The end of the source's connection was the end of the body.
            None => return outgoing.end(b""),
        }
        if complete {
            return if has_trailers { outgoing.end(source.trailers()) } else { Ok(()) };
        }
    }
}
