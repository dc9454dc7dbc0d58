//! A client that sends exactly the bytes it is told to, and believes nothing of what comes back that it has not checked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::message::{Kind, Message, Trouble, latin1};
use super::socket::Socket;

/// Between two pieces of a request, so that they arrive as two.
const PAUSE: Duration = Duration::from_millis(5);

/// How long nothing must come before it is believed that nothing will.
const SILENCE: Duration = Duration::from_millis(100);

const BROKEN_OFF: &str = "the connection was ended before the response";

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// What came and is not yet taken.
    buffer: Vec<u8>,
    end: End,
}

/// Whether and how the other side has ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    Closed,
    Reset,
}

/// What there is instead of a response.
#[derive(Debug)]
pub struct NoResponse {
    pub received: String,
    pub why: String,
}

impl Client {
    /// Connects to `ip:port` or `unix:/path`.
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub fn try_connect(address: &str) -> io::Result<Self> {
        let socket = Socket::connect(address)?;
        socket.set_write_timeout(PATIENCE);
        Ok(Self { socket, buffer: Vec::new(), end: End::NotYet })
    }

    /// This end's `ip:port`.
    pub fn address(&self) -> String {
        self.socket.local_address()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.try_send(bytes).unwrap_or_else(|error| panic!("send {:?}: {error}", latin1(bytes)));
        self
    }

    /// Sends what the other side may refuse to take, having closed or reset the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends in pieces, cut at these places. The server may close the connection after any of them.
    pub fn send_split(&mut self, bytes: &[u8], cuts: &[usize]) -> &mut Self {
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            if cut > from && self.try_send(&bytes[from..cut]).is_err() {
                break;
            }
            from = cut;
            thread::sleep(PAUSE);
        }
        self
    }

    /// Sends a `GET` without a body.
    pub fn get(&mut self, path: &str) -> &mut Self {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    }

    /// Sends a `POST` of known length.
    pub fn post(&mut self, path: &str, body: &[u8]) -> &mut Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: example.com\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat())
    }

    /// No more will be sent.
    pub fn finish(&mut self) -> &mut Self {
        self.socket.shutdown(Shutdown::Write);
        self
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        self.socket.reset_on_close();
    }

    /// The next final response to a `GET`, or to anything whose response has the same form.
    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// The next final response; interim ones before it are not expected.
    pub fn response_to(&mut self, method: &str) -> Message {
        self.try_response(method)
            .unwrap_or_else(|fault| panic!("no response: {} after {:?}", fault.why, fault.received))
    }

    pub fn try_response(&mut self, method: &str) -> Result<Message, NoResponse> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            // A response that lasts until the close is complete with a close and not with a reset.
            let why = match Message::parse(Kind::ResponseTo(method), &self.buffer, self.end == End::Closed) {
                Ok(message) => {
                    self.buffer.drain(..message.raw.len());
                    return Ok(message);
                }
                Err(Trouble::Malformed(why)) => why,
                Err(Trouble::Unfinished) if self.end != End::NotYet => BROKEN_OFF.to_owned(),
                Err(Trouble::Unfinished) => match self.receive(give_up) {
                    Ok(()) => continue,
                    Err(error) => format!("{error} before the end"),
                },
            };
            return Err(NoResponse { received: latin1(&self.buffer), why });
        }
    }

    /// What came of the next response, which ends with its connection before it is complete.
    pub fn broken_off_response(&mut self, method: &str) -> String {
        match self.try_response(method) {
            Ok(response) => panic!("taken for complete: {response}"),
            Err(fault) => {
                assert_eq!(fault.why, BROKEN_OFF, "after {:?}", fault.received);
                fault.received
            }
        }
    }

    /// The next `count` bytes, whatever they mean.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let give_up = Instant::now() + PATIENCE;
        while self.buffer.len() < count {
            assert!(self.end == End::NotYet, "closed after {:?}", latin1(&self.buffer));
            self.receive(give_up).unwrap_or_else(|error| panic!("{error} after {:?}", latin1(&self.buffer)));
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything up to the end of the connection, which must come.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let give_up = Instant::now() + PATIENCE;
        while self.end == End::NotYet {
            if let Err(error) = self.receive(give_up) {
                panic!("not closed: {error} after {:?}", latin1(&self.buffer));
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// The server closes the connection and sends nothing more on it.
    pub fn assert_closed(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "closed only after {:?}", latin1(&rest));
    }

    /// The server neither sends anything nor closes the connection, for now.
    pub fn assert_silent(&mut self) {
        assert!(self.buffer.is_empty(), "surplus {:?}", latin1(&self.buffer));
        match self.receive(Instant::now() + SILENCE) {
            Err(error) if is_timeout(&error) => {}
            Err(error) => panic!("not silent: {error}"),
            Ok(()) if self.end != End::NotYet => panic!("closed"),
            Ok(()) => panic!("not silent: {:?}", latin1(&self.buffer)),
        }
    }

    /// Whether something has come that is not yet taken, or the connection has ended.
    pub fn has_bytes(&mut self) -> bool {
        let _ = self.receive(Instant::now());
        !self.buffer.is_empty() || self.end != End::NotYet
    }

    /// Waits for one read; a reset ends the connection as well as a close does.
    fn receive(&mut self, give_up: Instant) -> io::Result<()> {
        let left = give_up.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(left.max(Duration::from_millis(1)));
        let mut piece = [0; 64 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => self.end = End::Closed,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.end = End::Reset,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
