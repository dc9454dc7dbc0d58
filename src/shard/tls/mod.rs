//! TLS over bytes that somebody else moves: rustls decides and encrypts, and nothing here waits.
//!
//! The connection keeps only what it must between two messages: the part of a record whose rest is still to come, and records of its own that are to
//! go out before any other. An idle connection has neither.

mod certificates;
pub mod contexts;
pub mod refusal;

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ServerConfig};

pub use certificates::Shown;

/// Content that one record takes (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// What a record adds to its content, in any version and with any cipher that rustls knows.
const RECORD_OVERHEAD: usize = 64;

/// One end of a TLS connection.
pub struct Tls {
    side: Side,
    /// Records whose rest is to come.
    incoming: Vec<u8>,
    /// Handshake messages, key updates and alerts, to go out before what is sealed next.
    own: Vec<u8>,
    /// Nothing that comes or goes can be relied on any more.
    failed: bool,
    /// The peer was told that no more will be sent.
    closed: bool,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// What a client got to see.
    shown: Option<Shown>,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What a connection can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake goes on when the peer has answered.
    Handshaking,
    /// Content can be sealed.
    Established,
    /// The peer sends no more.
    PeerClosed,
}

/// What a step is taken for.
enum Purpose<'a> {
    /// What has come in is opened into this.
    Open(&'a mut Vec<u8>),
    /// Content is sealed behind what is there; if there is none, the word that no more comes.
    Seal(Option<&'a [u8]>, &'a mut Vec<u8>),
}

/// How a step ended.
enum Step {
    Again,
    Rest(State),
    Sealed,
}

impl Tls {
    /// The end of a client's connection.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    /// The end of a connection to the upstream that calls itself `name`.
    ///
    /// # Errors
    /// The configuration cannot connect.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::new(Side::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    /// What was agreed on in ALPN (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(connection) => connection.alpn_protocol(),
            Side::Client(connection) => connection.alpn_protocol(),
        }
    }

    /// Takes what the client got to see, on a listener's end.
    pub fn take_shown(&mut self) -> Option<Shown> {
        self.shown.take()
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            incoming: Vec::new(),
            own: Vec::new(),
            failed: false,
            closed: false,
            peer_closed: false,
            shown: None,
        }
    }

    /// Takes bytes that have come in; what they open to is put behind `content`. With none it begins the handshake.
    ///
    /// # Errors
    /// The peer violates the protocol, is not trusted, or a record was forged. The alert that says so is among [what is its own](Self::take_own).
    pub fn open(&mut self, received: &[u8], content: &mut Vec<u8>) -> Result<State, Error> {
        self.check()?;
        // rustls says so once and looks at nothing behind it, which would pile up (RFC 8446 section 6.1).
        if self.peer_closed {
            return Ok(State::PeerClosed);
        }
        self.incoming.extend_from_slice(received);
        let Self { side, incoming, own, failed, shown, .. } = self;
        let mut start = 0;
        let outcome = loop {
            let (discard, step) = side.step(&mut incoming[start..], own, Purpose::Open(content));
            start += discard;
            if let Some(answered) = certificates::take_shown() {
                *shown = Some(answered);
            }
            match step {
                Ok(Step::Rest(state)) => break Ok(state),
                Ok(Step::Again | Step::Sealed) => {}
                Err(error) => {
                    *failed = true;
                    // What was to be said before, and the alert. One step more would meet the same fault again.
                    while side.has_own() {
                        let _ = side.step(&mut incoming[start..], own, Purpose::Open(content));
                    }
                    break Err(error);
                }
            }
        };
        incoming.drain(..start);
        self.peer_closed = matches!(outcome, Ok(State::PeerClosed));
        if incoming.is_empty() || self.peer_closed {
            *incoming = Vec::new();
        }
        outcome
    }

    /// Puts own records and then `content`, sealed, behind `out`.
    ///
    /// # Errors
    /// The handshake is not over, or the connection has failed before.
    pub fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.drive(Some(content), out)
    }

    /// Tells the peer that no more will be sent (RFC 8446 section 6.1). Nothing can be sealed behind that.
    ///
    /// # Errors
    /// As for [`seal`](Self::seal), and the peer was told before.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.drive(None, out)?;
        self.closed = true;
        Ok(())
    }

    fn drive(&mut self, content: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.check()?;
        if self.closed {
            return Err(Error::General("its end was said".to_owned()));
        }
        let Self { side, incoming, own, .. } = self;
        loop {
            // What has come in is only a part of something; rustls wants to see it all the same.
            match side.step(incoming, own, Purpose::Seal(content, out)).1? {
                Step::Sealed => return Ok(()),
                Step::Again => {}
                Step::Rest(_) => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.failed { Err(Error::General("it has failed before".to_owned())) } else { Ok(()) }
    }

    /// What the peer has proven to be its own, now or in the session that was resumed; in DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let certificates = match &self.side {
            Side::Server(connection) => connection.peer_certificates(),
            Side::Client(connection) => connection.peer_certificates(),
        };
        certificates?.first().map(AsRef::as_ref)
    }

    /// Takes the records that are to go out by themselves: of the handshake, and the alert after an error.
    pub fn take_own(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.own)
    }
}

impl Side {
    /// Whether the next step is to hand over a record.
    fn has_own(&self) -> bool {
        match self {
            Self::Server(connection) => connection.wants_write(),
            Self::Client(connection) => connection.wants_write(),
        }
    }

    /// One step of rustls. Returns how many of the `incoming` bytes are done with.
    fn step(&mut self, incoming: &mut [u8], own: &mut Vec<u8>, purpose: Purpose<'_>) -> (usize, Result<Step, Error>) {
        match self {
            Self::Server(connection) => step(connection.process_tls_records(incoming), own, purpose),
            Self::Client(connection) => step(connection.process_tls_records(incoming), own, purpose),
        }
    }
}

fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    own: &mut Vec<u8>,
    purpose: Purpose<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state, .. } = status;
    let step = state.and_then(|state| match (state, purpose) {
        (ConnectionState::ReadTraffic(mut traffic), Purpose::Open(content)) => {
            while let Some(record) = traffic.next_record() {
                content.extend_from_slice(record?.payload);
            }
            Ok(Step::Again)
        }
        (ConnectionState::EncodeTlsData(mut data), _) => {
            append(own, 0, |room| data.encode(room).map_err(encode_error)).map(|()| Step::Again)
        }
        (ConnectionState::TransmitTlsData(data), _) => {
            // It goes out before anything that comes later: `own` is in order.
            data.done();
            Ok(Step::Again)
        }
        // Said once, and then the other way goes on.
        (ConnectionState::PeerClosed, Purpose::Seal(..)) => Ok(Step::Again),
        (ConnectionState::PeerClosed | ConnectionState::Closed, _) => Ok(Step::Rest(State::PeerClosed)),
        (ConnectionState::BlockedHandshake, _) => Ok(Step::Rest(State::Handshaking)),
        (ConnectionState::WriteTraffic(_), Purpose::Open(_)) => Ok(Step::Rest(State::Established)),
        (ConnectionState::WriteTraffic(mut traffic), Purpose::Seal(content, out)) => {
            out.append(own);
            let bytes = content.map_or(0, <[u8]>::len);
            let likely = bytes + (bytes / RECORD_BYTES + 1) * RECORD_OVERHEAD;
            append(out, likely, |room| match content {
                Some(content) => traffic.encrypt(content, room).map_err(encrypt_error),
                None => traffic.queue_close_notify(room).map_err(encrypt_error),
            })
            .map(|()| Step::Sealed)
        }
        // Early data is never offered, and what is opened is taken in the same step.
        (_, _) => Err(Error::General("an unexpected state".to_owned())),
    });
    (discard, step)
}

/// Why a piece was not written.
enum Short {
    Needs(usize),
    Failed(Error),
}

fn encode_error(error: EncodeError) -> Short {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Short::Needs(required_size),
        EncodeError::AlreadyEncoded => Short::Failed(Error::General(error.to_string())),
    }
}

fn encrypt_error(error: EncryptError) -> Short {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Short::Needs(required_size),
        EncryptError::EncryptExhausted => Short::Failed(Error::EncryptError),
    }
}

/// Lets `write` write behind `out`, with as much room as it needs.
fn append(
    out: &mut Vec<u8>,
    likely: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> Result<(), Error> {
    let (start, mut room) = (out.len(), likely);
    let outcome = loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => break Ok(written),
            Err(Short::Needs(needed)) if needed > room => room = needed,
            Err(Short::Needs(_)) => break Err(Error::EncryptError),
            Err(Short::Failed(error)) => break Err(error),
        }
    };
    out.truncate(start + *outcome.as_ref().unwrap_or(&0));
    outcome.map(drop)
}

#[cfg(test)]
mod tests;
