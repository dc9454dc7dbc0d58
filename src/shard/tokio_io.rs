//! A connection as the crate `h2` wants one: `AsyncRead` and `AsyncWrite` of tokio, of which nothing else is used.
//!
//! What is written is collected and posted at the flush, so that the frames of many streams travel together; and while one lot is on its way the next
//! is collected. A flush does not wait for what it has posted: whoever writes more than one lot ahead does. So a write costs the ring one submission
//! and no wake-up, and a peer that takes nothing is known by how long the post has been there.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::transport::Sending;
use crate::config::limits;
use crate::logic::http::h2::frames::{Flood, FrameWatch};
use crate::ring::{Outgoing, Ring, SMALL_BYTES, Size};

/// A connection that the codec reads and writes and that its owner keeps an eye on.
pub struct Wire {
    ring: Rc<Ring>,
    connection: RefCell<Connection>,
    output: RefCell<Output>,
    watch: RefCell<FrameWatch>,
    flood: Cell<Option<Flood>>,
    /// When bytes came last.
    received_at: Cell<Instant>,
    /// Since when a head is coming.
    head_since: Cell<Option<Instant>>,
}

#[derive(Default)]
struct Output {
    collected: Vec<u8>,
    posted: Option<(Sending, Instant)>,
    /// The codec waits for what was posted, and is woken.
    awaited: bool,
}

/// The codec's end of a [`Wire`].
pub struct Io(Rc<Wire>);

impl Wire {
    /// `watch` sees what the peer sends.
    pub fn new(ring: &Rc<Ring>, connection: Connection, watch: FrameWatch) -> Rc<Self> {
        Rc::new(Self {
            ring: ring.clone(),
            connection: RefCell::new(connection),
            output: RefCell::default(),
            watch: RefCell::new(watch),
            received_at: Cell::new(ring.now()),
            flood: Cell::new(None),
            head_since: Cell::new(None),
        })
    }

    pub fn io(self: &Rc<Self>) -> Io {
        Io(self.clone())
    }

    /// What the peer has sent too much of. From then on nothing of it is read.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// When bytes of the peer came last.
    pub fn received_at(&self) -> Instant {
        self.received_at.get()
    }

    /// Since when a head is coming that has not ended.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// Since when the peer has not taken all of what was posted.
    pub fn stalled_since(&self) -> Option<Instant> {
        let mut output = self.output.borrow_mut();
        if !output.awaited {
            // A failure is found by the next read as well.
            let _ = output.poll_settled(&mut Context::from_waker(std::task::Waker::noop()));
            output.awaited = false;
        }
        output.posted.as_ref().map(|(_, since)| *since)
    }

    /// The connection, once the codec has given its end back.
    pub fn into_connection(self: Rc<Self>) -> Option<Connection> {
        Rc::into_inner(self).map(|wire| wire.connection.into_inner())
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flood.get().is_some() {
            return Poll::Pending;
        }
        let mut connection = self.connection.borrow_mut();
        let Connection { transport, inbound } = &mut *connection;
        let mut watch = self.watch.borrow_mut();
        if inbound.is_empty() {
            let size = if watch.payload_left() > SMALL_BYTES { Size::Large } else { Size::Small };
            if !ready!(inbound.poll_fill(transport, size, cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let arrived = inbound.bytes();
        let count = arrived.len().min(room.remaining());
        let now = self.ring.now();
        self.received_at.set(now);
        if let Err(flood) = watch.received(&arrived[..count], now) {
            self.flood.set(Some(flood));
            return Poll::Pending;
        }
        self.head_since.set(watch.in_head().then(|| self.head_since.get().unwrap_or(now)));
        room.put_slice(&arrived[..count]);
        inbound.consume(count);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut output = self.output.borrow_mut();
        let mut room = limits::H2_WRITE - output.collected.len();
        if room == 0 {
            ready!(self.poll_post(&mut output, cx))?;
            room = limits::H2_WRITE;
        }
        if output.collected.capacity() == 0 {
            output.collected = self.ring.spare();
        }
        let mut watch = self.watch.borrow_mut();
        let mut written = 0;
        for part in parts {
            let taken = part.len().min(room - written);
            output.collected.extend_from_slice(&part[..taken]);
            watch.sent(&part[..taken]);
            written += taken;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_post(&mut self.output.borrow_mut(), cx)
    }

    /// Posts what is collected, as soon as nothing else is on its way.
    fn poll_post(&self, output: &mut Output, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if output.collected.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(output.poll_settled(cx))?;
        let bytes = std::mem::take(&mut output.collected);
        let sending = self.connection.borrow().transport.post_for_good(Outgoing::new(bytes, None, b""));
        output.posted = Some((sending, self.ring.now()));
        Poll::Ready(Ok(()))
    }

    /// Sends what there is, and the word that this is all.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut output = self.output.borrow_mut();
        ready!(self.poll_post(&mut output, cx))?;
        ready!(output.poll_settled(cx))?;
        self.connection.borrow().transport.say_end();
        Poll::Ready(Ok(()))
    }
}

impl Output {
    /// Ready when nothing is on its way.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((posted, _)) = &mut self.posted else { return Poll::Ready(Ok(())) };
        self.awaited = true;
        let (sent, _) = ready!(posted.poll_sent(cx));
        (self.posted, self.awaited) = (None, false);
        Poll::Ready(sent)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, room)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}
