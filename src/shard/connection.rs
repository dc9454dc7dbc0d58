//! One connection as HTTP/1.1 reads it: what has arrived and is not consumed, and the one receive that is under way.
//!
//! The receive stays armed while other things happen. It costs nothing until bytes come, it takes one buffer at most, and it tells when the peer goes
//! away: that is how an idle upstream connection is known to be dead and a waiting client to be gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::transport::{Incoming, Piece, Transport};
use crate::ring::{Buf, Expect, Outgoing, Receive, Size};

/// A transport and its incoming side.
pub struct Connection {
    pub transport: Transport,
    pub inbound: Inbound,
}

/// The incoming side of a stream.
#[derive(Default)]
pub struct Inbound {
    input: Input,
    armed: Option<Receive>,
    /// Arrived while nobody read.
    ahead: Option<Piece>,
    /// The peer has closed its side, or the connection is broken: nothing more will come.
    ended: bool,
}

/// Bytes that have arrived, in one piece.
#[derive(Default)]
enum Input {
    #[default]
    Empty,
    Received(Buf),
    /// A head that came in several receives, with what came after it.
    Joined {
        bytes: Vec<u8>,
        start: usize,
    },
}

impl Connection {
    pub fn new(transport: Transport) -> Self {
        Self { transport, inbound: Inbound::default() }
    }

    /// Begins to wait for bytes, if that has not begun.
    pub fn arm(&mut self, size: Size, expect: Expect) {
        self.inbound.arm(&self.transport, size, expect);
    }

    /// Whether anything at all has come: bytes, or the end.
    pub fn is_disturbed(&mut self) -> bool {
        let Self { transport, inbound } = self;
        let gone = inbound.poll_gone(transport, &mut Context::from_waker(Waker::noop())).is_ready();
        gone || inbound.ahead.is_some()
    }

    /// See [`Inbound::poll_gone`].
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inbound.poll_gone(&self.transport, cx)
    }
}

impl Inbound {
    pub fn arm(&mut self, transport: &Transport, size: Size, expect: Expect) {
        if self.armed.is_none() && self.ahead.is_none() && !self.ended {
            self.armed = Some(transport.stream.receive(size, expect));
        }
    }

    /// What has arrived and is not consumed.
    pub fn bytes(&mut self) -> &mut [u8] {
        match &mut self.input {
            Input::Empty => &mut [],
            Input::Received(buf) => buf,
            Input::Joined { bytes, start } => &mut bytes[*start..],
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.input {
            Input::Empty => true,
            Input::Received(buf) => buf.is_empty(),
            Input::Joined { bytes, start } => bytes.len() == *start,
        }
    }

    /// Takes everything that has arrived out, for what speaks before HTTP does.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        let bytes = self.bytes().to_vec();
        self.input = Input::Empty;
        bytes
    }

    /// Puts `bytes` where [`take_bytes`](Self::take_bytes) took others from.
    pub fn put_bytes(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.input = Input::Joined { bytes, start: 0 };
        }
    }

    /// Whether anything is known to have arrived that is not consumed.
    pub fn has_bytes(&self) -> bool {
        !self.is_empty() || self.ahead.is_some()
    }

    pub fn consume(&mut self, count: usize) {
        match &mut self.input {
            Input::Empty => assert_eq!(count, 0),
            Input::Received(buf) => buf.advance(count),
            Input::Joined { bytes, start } => {
                assert!(count <= bytes.len() - *start);
                *start += count;
            }
        }
        // An empty buffer goes back at once.
        if self.is_empty() {
            self.input = Input::Empty;
        }
    }

    /// The whole input as a buffer to be sent from, when it is one.
    pub fn take_buf(&mut self) -> Option<Buf> {
        match std::mem::take(&mut self.input) {
            Input::Received(buf) => Some(buf),
            other => {
                self.input = other;
                None
            }
        }
    }

    /// Takes everything out that has arrived. The first `count` bytes are to be sent on from where they are; the others are dropped.
    pub fn take(&mut self, count: usize) -> Outgoing {
        match std::mem::take(&mut self.input) {
            Input::Empty => Outgoing::default(),
            Input::Received(mut buf) => {
                buf.keep(0..count);
                Outgoing::new(Vec::new(), Some(buf), b"")
            }
            Input::Joined { mut bytes, start } => {
                bytes.truncate(start + count);
                let mut outgoing = Outgoing::new(bytes, None, b"");
                outgoing.advance(start);
                outgoing
            }
        }
    }

    /// Gives the ring its buffer back and keeps the bytes elsewhere: for what may wait long for the rest, as a message that has come in part does. Others
    /// need the buffers, which are fewer than connections may be.
    pub fn release_buf(&mut self) {
        if let Input::Received(buf) = &self.input {
            self.input = Input::Joined { bytes: buf.to_vec(), start: 0 };
        }
    }

    /// Waits for more bytes and joins them to what is there. `false` when the peer has closed.
    pub async fn fill(&mut self, transport: &Transport, size: Size) -> io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_fill(transport, size, cx)).await
    }

    /// See [`fill`](Self::fill).
    pub fn poll_fill(&mut self, transport: &Transport, size: Size, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let piece = match self.ahead.take() {
            Some(piece) => piece,
            None => match ready!(self.poll_piece(transport, size, Expect::Now, cx)) {
                Ok(Some(piece)) => piece,
                Ok(None) => return Poll::Ready(Ok(false)),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        self.join(piece);
        Poll::Ready(Ok(true))
    }

    /// Ready when the peer has closed or reset the connection. Bytes that come meanwhile are kept, as many as one buffer holds.
    pub fn poll_gone(&mut self, transport: &Transport, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_some() || self.armed.is_none() && !self.ended {
            // What comes behind those bytes is not looked at before they are read.
            return Poll::Pending;
        }
        match ready!(self.poll_piece(transport, Size::Small, Expect::Later, cx)) {
            Ok(Some(piece)) => {
                self.ahead = Some(piece);
                Poll::Pending
            }
            Ok(None) | Err(_) => Poll::Ready(()),
        }
    }

    /// The next bytes. Arms a receive if none is, and again behind what brings none.
    fn poll_piece(
        &mut self,
        transport: &Transport,
        size: Size,
        expect: Expect,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Piece>>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            self.arm(transport, size, expect);
            let armed = self.armed.as_mut().expect("armed above");
            let received = ready!(Pin::new(armed).poll(cx));
            self.armed = None;
            let incoming = match received {
                Ok(Some(buf)) => transport.open(buf),
                Ok(None) => transport.end().map(|()| Incoming::End),
                Err(error) => Err(error),
            };
            match incoming {
                Ok(Incoming::Piece(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(Incoming::Nothing) => {}
                Ok(Incoming::End) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn join(&mut self, piece: Piece) {
        match (&mut self.input, piece) {
            (Input::Empty, Piece::Received(buf)) => self.input = Input::Received(buf),
            (Input::Empty, Piece::Opened(bytes)) => self.input = Input::Joined { bytes, start: 0 },
            (Input::Received(first), piece) => {
                let bytes = [&first[..], piece.bytes()].concat();
                self.input = Input::Joined { bytes, start: 0 };
            }
            (Input::Joined { bytes, start }, piece) => {
                bytes.drain(..*start);
                *start = 0;
                bytes.extend_from_slice(piece.bytes());
            }
        }
    }
}
