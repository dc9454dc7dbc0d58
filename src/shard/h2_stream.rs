//! One stream of an HTTP/2 connection, in the terms of the rest of the shard: content that comes, and content that goes.
//!
//! Back-pressure goes through both. The peer gets room for more content when what it sent has been taken by the other side, and content goes to the
//! codec when the peer has room for it and the connection's queue is short. All of this is one task's: each stream is polled by one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use super::relay::RelayFault;
use crate::config::limits;
use crate::deadline::Deadline;
use crate::logic::http::h2::{read_response, read_trailers, write_trailers};
use crate::ring::{Buf, Ring, Timer};

/// Content in the memory that it came into.
#[derive(Clone)]
pub struct Chunk {
    memory: Memory,
    range: Range<usize>,
}

#[derive(Clone)]
enum Memory {
    Received(Rc<Buf>),
    Shared(Bytes),
}

impl From<Buf> for Chunk {
    fn from(buf: Buf) -> Self {
        let range = 0..buf.len();
        Self { memory: Memory::Received(Rc::new(buf)), range }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        let range = 0..bytes.len();
        Self { memory: Memory::Shared(bytes), range }
    }
}

impl Chunk {
    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Received(buf) => &buf[self.range.clone()],
            Memory::Shared(bytes) => &bytes[self.range.clone()],
        }
    }

    /// Gives back the receive buffer that the bytes are in, if they are in one: others need it.
    fn leave_buffer(&mut self) {
        if let Memory::Received(_) = self.memory {
            *self = Bytes::copy_from_slice(self.bytes()).into();
        }
    }

    /// Takes the first `count` bytes.
    fn split_to(&mut self, count: usize) -> Self {
        let middle = self.range.start + count;
        let first = Self { memory: self.memory.clone(), range: self.range.start..middle };
        self.range.start = middle;
        first
    }
}

/// What waits for one connection to take it, over all its streams.
#[derive(Default)]
pub struct Outbox {
    queued: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Outbox {
    fn has_room(&self) -> bool {
        self.queued.get() < limits::H2_OUTPUT_QUEUE
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Content in the hands of the codec, until it is written.
pub struct Queued {
    chunk: Chunk,
    counted: usize,
    outbox: Rc<Outbox>,
}

impl Queued {
    fn new(chunk: Chunk, outbox: &Rc<Outbox>) -> Self {
        let counted = chunk.len();
        outbox.queued.set(outbox.queued.get() + counted);
        Self { chunk, counted, outbox: outbox.clone() }
    }
}

impl bytes::Buf for Queued {
    fn remaining(&self) -> usize {
        self.chunk.len()
    }

    fn chunk(&self) -> &[u8] {
        self.chunk.bytes()
    }

    fn advance(&mut self, count: usize) {
        drop(self.chunk.split_to(count));
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let queued = self.outbox.queued.get() - self.counted;
        self.outbox.queued.set(queued);
        if queued < limits::H2_OUTPUT_QUEUE {
            self.outbox.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// The content that a peer sends.
pub struct Incoming {
    stream: RecvStream,
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    /// Taken out of `arrived`, and not yet taken by the other side.
    passing: usize,
    ended: bool,
    trailers: Vec<u8>,
    /// Of a response: bytes that must come, if its head says how many.
    missing: Option<u64>,
    is_response: bool,
}

impl Incoming {
    pub fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self {
            stream,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            passing: 0,
            ended,
            trailers: Vec::new(),
            missing: None,
            is_response: false,
        }
    }

    /// The content of an upstream's response.
    pub fn of_response(stream: RecvStream, fields: &HeaderMap, to_head: bool) -> Self {
        let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { missing: length.filter(|_| !to_head), is_response: true, ..Self::new(stream) }
    }

    /// Whether all has come and was taken.
    pub fn is_complete(&self) -> bool {
        self.ended && self.arrived.is_empty()
    }

    /// The trailer fields that came and may go on; see [`BodyReader::trailers`](crate::logic::http::BodyReader::trailers).
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Takes in what has come. Ready when there is some of it, or nothing more to come. What was taken before has gone on by now, so the peer may
    /// send as much again.
    ///
    /// # Errors
    /// The stream was reset, or its trailers are malformed.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayFault>> {
        if self.passing > 0 {
            // Fails only for more than was taken.
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.passing));
        }
        while !self.ended && self.arrived_bytes < limits::H2_STREAM_WINDOW as usize {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => {
                    self.arrived_bytes += bytes.len();
                    self.missing = self.missing.map(|missing| missing.saturating_sub(bytes.len() as u64));
                    self.arrived.push_back(bytes);
                }
                Poll::Ready(Some(Err(error))) if self.is_end(&error) => self.ended = true,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(RelayFault::SourceClosed)),
                Poll::Ready(None) => match self.stream.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => {
                        self.ended = true;
                        if let Some(trailers) = trailers {
                            write_trailers(&mut self.trailers, &trailers).map_err(RelayFault::SourceMalformed)?;
                        }
                    }
                    Poll::Ready(Err(error)) if self.is_end(&error) => self.ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(RelayFault::SourceClosed)),
                    Poll::Pending => break,
                },
                Poll::Pending => break,
            }
            self.ended |= self.stream.is_end_stream();
        }
        if self.arrived.is_empty() && !self.ended { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Whether the response was whole: a server that has answered may stop the rest of the request so (RFC 9113 section 8.1).
    fn is_end(&self, error: &h2::Error) -> bool {
        let is_stop = error.is_remote() && error.is_reset() && error.reason() == Some(Reason::NO_ERROR);
        self.is_response && is_stop && self.missing.is_none_or(|missing| missing == 0)
    }

    /// The next bytes that have arrived.
    pub fn take(&mut self) -> Option<Bytes> {
        let bytes = self.arrived.pop_front()?;
        self.arrived_bytes -= bytes.len();
        self.passing += bytes.len();
        Some(bytes)
    }

    /// Takes all that has arrived, for the end of `out`.
    pub fn take_all(&mut self, out: &mut Vec<u8>) {
        for bytes in self.arrived.drain(..) {
            out.extend_from_slice(&bytes);
        }
        self.passing += std::mem::take(&mut self.arrived_bytes);
    }

    /// Bytes that have arrived.
    pub fn arrived_bytes(&self) -> usize {
        self.arrived_bytes
    }
}

/// The way back to the peer.
pub struct Outgoing {
    sender: RefCell<Sender>,
    outbox: Rc<Outbox>,
}

enum Sender {
    /// No final head has gone out.
    Response(SendResponse<Queued>),
    Content(SendStream<Queued>),
}

impl Outgoing {
    pub fn response(respond: SendResponse<Queued>, outbox: &Rc<Outbox>) -> Self {
        Self { sender: RefCell::new(Sender::Response(respond)), outbox: outbox.clone() }
    }

    /// Of a request whose head has gone out.
    pub fn content(stream: SendStream<Queued>, outbox: &Rc<Outbox>) -> Self {
        Self { sender: RefCell::new(Sender::Content(stream)), outbox: outbox.clone() }
    }

    /// Sends the head of an interim response, as it was encoded for HTTP/1.1.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn interim(&self, head: Vec<u8>) -> Result<(), RelayFault> {
        let Sender::Response(respond) = &mut *self.sender.borrow_mut() else { return Err(RelayFault::SinkClosed) };
        let (response, _) = read_response(head.into());
        respond.send_informational(response).map_err(|_| RelayFault::SinkClosed)
    }

    /// Sends the head of the response, as it was encoded for HTTP/1.1. Returns what stands behind it.
    ///
    /// # Errors
    /// The stream is closed.
    pub fn begin(&self, head: Vec<u8>, ended: bool) -> Result<Bytes, RelayFault> {
        let mut sender = self.sender.borrow_mut();
        let Sender::Response(respond) = &mut *sender else { return Err(RelayFault::SinkClosed) };
        let (response, rest) = read_response(head.into());
        let stream = respond.send_response(response, ended && rest.is_empty()).map_err(|_| RelayFault::SinkClosed)?;
        *sender = Sender::Content(stream);
        Ok(rest)
    }

    /// Sends content, as fast as the peer takes it. The last of it may wait in the connection's queue when this returns.
    ///
    /// # Errors
    /// The stream is closed, the peer has room for less than [`limits::H2_PROGRESS`] within `patience`, or the deadline has passed.
    pub async fn send(&self, mut chunk: Chunk, ended: bool, pace: &mut Pace<'_>) -> Result<(), RelayFault> {
        while chunk.len() > 0 {
            let rest = chunk.len().saturating_sub(limits::H2_PROGRESS);
            let bound = pace.deadline.bound(pace.ring.now(), pace.patience);
            while chunk.len() > rest {
                let wanted = chunk.len() - rest;
                let room = std::future::poll_fn(|cx| {
                    let room = self.poll_room(wanted, cx);
                    if room.is_pending() {
                        chunk.leave_buffer();
                    }
                    room
                });
                let room = match pace.timer.within(bound.at, room).await {
                    Ok(room) => room?,
                    Err(_) if bound.is_final => return Err(RelayFault::Deadline),
                    Err(_) => return Err(RelayFault::SinkStalled),
                };
                let part = chunk.split_to(room.min(wanted));
                self.queue(part, ended && chunk.len() == 0)?;
            }
        }
        Ok(())
    }

    /// Ends the stream; `trailers` in the form of [`Incoming::trailers`].
    ///
    /// # Errors
    /// The stream is closed.
    pub fn end(&self, trailers: &[u8]) -> Result<(), RelayFault> {
        if trailers.is_empty() {
            return self.queue(Bytes::new().into(), true);
        }
        let Sender::Content(stream) = &mut *self.sender.borrow_mut() else { return Err(RelayFault::SinkClosed) };
        let fields = read_trailers(Bytes::copy_from_slice(trailers));
        stream.send_trailers(fields).map_err(|_| RelayFault::SinkClosed)
    }

    /// Tells the peer that what it got is not all.
    pub fn reset(&self, reason: Reason) {
        match &mut *self.sender.borrow_mut() {
            Sender::Response(respond) => respond.send_reset(reason),
            Sender::Content(stream) => stream.send_reset(reason),
        }
    }

    /// Ready when the peer has reset the stream, or its connection has ended.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.sender.borrow_mut() {
            Sender::Response(respond) => respond.poll_reset(cx),
            Sender::Content(stream) => stream.poll_reset(cx),
        }
        .map(drop)
    }

    fn queue(&self, chunk: Chunk, ended: bool) -> Result<(), RelayFault> {
        let Sender::Content(stream) = &mut *self.sender.borrow_mut() else { return Err(RelayFault::SinkClosed) };
        stream.send_data(Queued::new(chunk, &self.outbox), ended).map_err(|_| RelayFault::SinkClosed)
    }

    /// Whether the peer has room for content now.
    pub fn has_room(&self) -> bool {
        let Sender::Content(stream) = &mut *self.sender.borrow_mut() else { return false };
        stream.reserve_capacity(1);
        self.outbox.has_room() && stream.capacity() > 0
    }

    /// Ready when the peer has room for some bytes, `wanted` at most.
    fn poll_room(&self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, RelayFault>> {
        ready!(self.outbox.poll_room(cx));
        let Sender::Content(stream) = &mut *self.sender.borrow_mut() else {
            return Poll::Ready(Err(RelayFault::SinkClosed));
        };
        stream.reserve_capacity(wanted);
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(stream.capacity()));
            }
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(RelayFault::SinkClosed)),
            }
        }
    }
}

/// How long a sender waits for its receiver.
pub struct Pace<'a> {
    pub timer: &'a mut Timer,
    pub patience: Duration,
    pub deadline: Deadline,
    pub ring: &'a Ring,
}
