//! How the bytes of a connection go out and come in: as they are, or through TLS.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::tls::refusal::Reason;
use super::tls::{State, Tls};
use crate::ring::{Buf, Expect, Outgoing, Posted, Size, Stream, Timer};

/// A connected stream, with its TLS if it has any.
pub struct Transport {
    pub stream: Stream,
    tls: Option<Box<Encryption>>,
}

struct Encryption {
    tls: RefCell<Tls>,
    lifetime: Option<Lifetime>,
}

/// How long a connection to an upstream is as good as a new one.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Of the [`UpstreamContext`](super::tls::contexts::UpstreamContext) that it was opened with.
    pub generation: u32,
    /// When the first of the certificates ends that its two sides have shown.
    pub end: Option<Instant>,
}

/// Bytes that have come in.
pub enum Piece {
    /// As they were received.
    Received(Buf),
    /// As they were opened.
    Opened(Vec<u8>),
}

impl Piece {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Received(buf) => buf,
            Self::Opened(bytes) => bytes,
        }
    }
}

/// What was received comes to.
pub enum Incoming {
    Piece(Piece),
    /// Records that hold no content, or not all of one.
    Nothing,
    /// The peer has said that it sends no more.
    End,
}

/// What goes out in the stead of what was given to be sent.
pub struct Departing {
    pub bytes: Outgoing,
    /// What they stand for, if that is not themselves. Boxed, since most of what is sent is not sealed and is moved about.
    pub content: Option<Box<Outgoing>>,
}

impl Departing {
    /// What was given, advanced by what has gone out. Sealed, that is all or nothing.
    pub fn into_given(self) -> Outgoing {
        match self.content {
            None => self.bytes,
            Some(mut content) => {
                if self.bytes.remaining() == 0 {
                    content.advance(content.remaining());
                }
                *content
            }
        }
    }
}

impl Transport {
    pub fn plain(stream: Stream) -> Self {
        Self { stream, tls: None }
    }

    /// From here on everything goes through `tls`, whose handshake is over. Connections to upstreams have a `lifetime`.
    pub fn encrypt(&mut self, tls: Tls, lifetime: Option<Lifetime>) {
        self.tls = Some(Box::new(Encryption { tls: RefCell::new(tls), lifetime }));
    }

    /// Of an encrypted connection to an upstream.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.tls.as_ref()?.lifetime
    }

    /// Whether nobody on the way can read it.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Makes `outgoing` ready to be sent.
    ///
    /// # Errors
    /// TLS has failed: nothing more can be sent.
    pub fn seal(&self, outgoing: Outgoing) -> io::Result<Departing> {
        let Some(encryption) = &self.tls else { return Ok(Departing { bytes: outgoing, content: None }) };
        let mut sealed = Vec::new();
        let mut tls = encryption.tls.borrow_mut();
        for part in outgoing.parts() {
            tls.seal(part, &mut sealed).map_err(io::Error::other)?;
        }
        Ok(Departing { bytes: Outgoing::new(sealed, None, b""), content: Some(Box::new(outgoing)) })
    }

    /// See [`Stream::post`].
    pub fn post(&self, outgoing: Outgoing) -> Sending {
        self.begin(outgoing, false)
    }

    /// See [`Stream::post_for_good`].
    pub fn post_for_good(&self, outgoing: Outgoing) -> Sending {
        self.begin(outgoing, true)
    }

    fn begin(&self, outgoing: Outgoing, for_good: bool) -> Sending {
        match self.seal(outgoing) {
            Ok(Departing { bytes, content }) if for_good => {
                drop(content);
                Sending::Posted(self.stream.post_for_good(bytes), None)
            }
            Ok(Departing { bytes, content }) => Sending::Posted(self.stream.post(bytes), content),
            Err(error) => Sending::Failed(Some(error)),
        }
    }

    /// What `received` comes to.
    ///
    /// # Errors
    /// The peer violates TLS. It is told so.
    pub fn open(&self, received: Buf) -> io::Result<Incoming> {
        let Some(encryption) = &self.tls else { return Ok(Incoming::Piece(Piece::Received(received))) };
        let mut content = Vec::new();
        let mut tls = encryption.tls.borrow_mut();
        match tls.open(&received, &mut content) {
            Ok(_) if !content.is_empty() => Ok(Incoming::Piece(Piece::Opened(content))),
            Ok(State::PeerClosed) => Ok(Incoming::End),
            Ok(State::Established | State::Handshaking) => Ok(Incoming::Nothing),
            Err(error) => {
                // The alert; whether it arrives changes nothing.
                drop(self.stream.post_for_good(Outgoing::new(tls.take_own(), None, b"")));
                Err(io::Error::other(error))
            }
        }
    }

    /// What the end of the stream means: through TLS it may be somebody else's doing (RFC 8446 section 6.1).
    ///
    /// # Errors
    /// The peer has not said that this is the end.
    pub fn end(&self) -> io::Result<()> {
        match self.tls {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Tells the peer that what it got is all, if its protocol has words for that. Whether it arrives is not waited for.
    pub fn say_end(&self) {
        drop(self.post_end());
    }

    fn post_end(&self) -> Option<Posted> {
        let mut end = Vec::new();
        self.tls.as_ref()?.tls.borrow_mut().close(&mut end).ok()?;
        Some(self.stream.post_for_good(Outgoing::new(end, None, b"")))
    }

    /// See [`Stream::shutdown_write`]. Waits for the peer to take what goes before.
    ///
    /// # Errors
    /// The stream is not connected any more.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        if let Some(mut posted) = self.post_end() {
            poll_fn(|cx| posted.poll_sent(cx)).await.0?;
        }
        self.stream.shutdown_write().await
    }
}

/// Why a handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("{}", Reason(.0))]
    Tls(#[from] rustls::Error),
    #[error("the peer does not speak the version of HTTP that it is to speak")]
    Protocol,
    #[error("the peer closed the connection")]
    Closed,
    #[error("{0}")]
    Stream(#[source] io::Error),
    #[error("it took too long")]
    Timeout,
}

/// Brings `tls` to where content can go both ways; the peer's first bytes may have come already. Returns what content came with the end of the handshake.
///
/// # Errors
/// See [`HandshakeError`]. The peer is told of faults that TLS has words for.
pub async fn handshake(
    stream: &Stream,
    tls: &mut Tls,
    first: &[u8],
    timer: &mut Timer,
    end: Instant,
) -> Result<Vec<u8>, HandshakeError> {
    let mut content = Vec::new();
    let mut opened = tls.open(first, &mut content);
    loop {
        let own = tls.take_own();
        if !own.is_empty() {
            let mut posted = stream.post(Outgoing::new(own, None, b""));
            let sent = timer.within(end, poll_fn(|cx| posted.poll_sent(cx))).await;
            sent.map_err(|_| HandshakeError::Timeout)?.0.map_err(HandshakeError::Stream)?;
        }
        match opened? {
            State::Handshaking => {}
            State::Established | State::PeerClosed => break,
        }
        let received = timer.within(end, stream.receive(Size::Small, Expect::Later)).await;
        let received = received.map_err(|_| HandshakeError::Timeout)?.map_err(HandshakeError::Stream)?;
        opened = tls.open(&received.ok_or(HandshakeError::Closed)?, &mut content);
    }
    Ok(content)
}

/// Something on its way to the peer.
pub enum Sending {
    Posted(Posted, Option<Box<Outgoing>>),
    Failed(Option<io::Error>),
}

impl Sending {
    /// See [`Posted::poll_sent`].
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<()>, Outgoing)> {
        match self {
            Self::Posted(posted, content) => {
                let (sent, bytes) = ready!(posted.poll_sent(cx));
                Poll::Ready((sent, Departing { bytes, content: content.take() }.into_given()))
            }
            Self::Failed(error) => {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                Poll::Ready((Err(error), Outgoing::default()))
            }
        }
    }

    /// See [`Posted::try_sent`].
    pub fn try_sent(&mut self) -> Poll<(io::Result<()>, Outgoing)> {
        self.poll_sent(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
