//! A backend that does what its script says and remembers every byte that it got.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::message::{Kind, Message, Trouble};
use super::socket::{Acceptor, Socket};
use super::{PATIENCE, eventually};

/// A running backend. It stops when dropped.
#[derive(Debug)]
pub struct Origin {
    /// As an endpoint is written in the configuration: `http://ip:port` or `unix:/path`.
    pub endpoint: String,
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    connections: Vec<Connection>,
    requests: Vec<Received>,
}

#[derive(Debug)]
struct Connection {
    received: Vec<u8>,
    /// `None` when the script is done with it.
    socket: Option<Socket>,
}

/// A request as the backend understood it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    pub message: Message,
}

impl std::ops::Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no thread panics while it holds the record")
    }
}

impl Origin {
    /// Runs `script` for each connection. The connection is closed when the script returns.
    pub fn scripted(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::scripted_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    pub fn scripted_at(address: SocketAddr, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        Self::run(Acceptor::Tcp(listener), format!("http://{address}"), address, script)
    }

    pub fn scripted_on_unix(path: &Path, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("bind {}: {error}", path.display()));
        let address = format!("unix:{}", path.display());
        Self::run(Acceptor::Unix(listener), address.clone(), address, script)
    }

    /// Answers every request with the same bytes.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::scripted(move |peer| {
            while peer.request().is_some() {
                peer.send(&response);
            }
        })
    }

    /// Answers every request with 200 and this text.
    pub fn saying(text: &str) -> Self {
        Self::answering(ok(text))
    }

    /// Answers with the target of the request.
    pub fn naming_targets() -> Self {
        Self::scripted(|peer| {
            while let Some(request) = peer.request() {
                peer.send(ok(request.target()));
            }
        })
    }

    /// Answers the first request of each connection with `response` and closes the connection.
    pub fn answering_once(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::scripted(move |peer| {
            if peer.request().is_some() {
                peer.send(&response);
            }
        })
    }

    /// Answers with the body of the request.
    pub fn echo() -> Self {
        Self::scripted(|peer| {
            while let Some(request) = peer.request() {
                peer.send(ok(request.body));
            }
        })
    }

    fn run(
        acceptor: Acceptor,
        endpoint: String,
        address: String,
        script: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let script = Arc::new(script);
        thread::spawn(move || {
            while let Ok(socket) = acceptor.accept() {
                if accepting.stopping.load(Ordering::Relaxed) {
                    return;
                }
                let mut peer = Peer::new(socket, Arc::clone(&accepting));
                let script = Arc::clone(&script);
                thread::spawn(move || script(&mut peer));
            }
        });
        Self { endpoint, address, shared }
    }

    /// `ip:port`, or `unix:/path`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Every request that came whole, in the order of their ends.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.record().requests.clone()
    }

    /// The only request that came, ever.
    pub fn only_request(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }

    /// Waits until this many requests have come whole.
    pub fn wait_for_requests(&self, count: usize) {
        eventually("the backend gets the requests", || self.requests().len() >= count);
    }

    /// Every byte that came, by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.shared.record().connections.iter().map(|connection| connection.received.clone()).collect()
    }

    /// Whether these bytes came on some connection.
    pub fn has_received(&self, needle: &str) -> bool {
        let record = self.shared.record();
        record.connections.iter().any(|it| it.received.windows(needle.len()).any(|bytes| bytes == needle.as_bytes()))
    }

    /// How many connections were opened, ever.
    pub fn connections(&self) -> usize {
        self.shared.record().connections.len()
    }

    /// How many connections scripts still run on.
    pub fn open_connections(&self) -> usize {
        self.shared.record().connections.iter().filter(|connection| connection.socket.is_some()).count()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, which then drops its listener.
        let _ = Socket::connect(&self.address);
        for socket in self.shared.record().connections.iter().filter_map(|connection| connection.socket.as_ref()) {
            socket.shutdown(Shutdown::Both);
        }
    }
}

/// One connection, as its script sees it.
#[derive(Debug)]
pub struct Peer {
    /// Counted from 0, over all connections of this backend.
    pub connection: usize,
    socket: Socket,
    shared: Arc<Shared>,
    /// What came and is not yet taken.
    buffer: Vec<u8>,
}

impl Peer {
    fn new(socket: Socket, shared: Arc<Shared>) -> Self {
        socket.set_read_timeout(3 * PATIENCE);
        socket.set_write_timeout(3 * PATIENCE);
        let mut record = shared.record();
        let connection = record.connections.len();
        let watched = socket.try_clone().expect("a socket can be cloned");
        record.connections.push(Connection { received: Vec::new(), socket: Some(watched) });
        drop(record);
        Self { connection, socket, shared, buffer: Vec::new() }
    }

    /// The next request, whole; `None` when the connection ends first, or when what comes is no request.
    pub fn request(&mut self) -> Option<Message> {
        loop {
            match Message::parse(Kind::Request, &self.buffer, false) {
                Ok(message) => {
                    self.buffer.drain(..message.raw.len());
                    let received = Received { connection: self.connection, message: message.clone() };
                    self.shared.record().requests.push(received);
                    return Some(message);
                }
                Err(Trouble::Malformed(_)) => return None,
                Err(Trouble::Unfinished) if self.receive() == 0 => return None,
                Err(Trouble::Unfinished) => {}
            }
        }
    }

    /// Waits for the first line of a request and leaves it; `None` when the connection ends first.
    pub fn first_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                return Some(super::message::latin1(&self.buffer[..end]));
            }
            if self.receive() == 0 {
                return None;
            }
        }
    }

    /// Waits for the head of a request and takes it, leaving the body; `None` when the connection ends first.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect::<Vec<_>>();
                return Some(super::message::latin1(&head));
            }
            if self.receive() == 0 {
                return None;
            }
        }
    }

    /// The next `count` bytes; fewer when the connection ends first.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.receive() > 0 {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Bytes that have come already or come within the time.
    pub fn read_for(&mut self, time: Duration) -> Vec<u8> {
        self.socket.set_read_timeout(time);
        self.receive();
        self.socket.set_read_timeout(3 * PATIENCE);
        std::mem::take(&mut self.buffer)
    }

    /// Waits until the other side has closed.
    pub fn wait_for_close(&mut self) {
        while self.receive() > 0 {}
    }

    /// Sends; that the other side has gone is not most scripts' concern.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes);
    }

    /// Sends; `false` when the other side has gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    pub fn pause(&self, milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }

    /// Keeps the connection open and silent for as long as the other side does.
    pub fn stall(&mut self) {
        self.wait_for_close();
    }

    /// Makes the close at the end of the script a reset.
    pub fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    /// Returns how many bytes came; 0 at the end of the connection and at any fault.
    fn receive(&mut self) -> usize {
        let mut piece = [0; 64 * 1024];
        let count = self.socket.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..count]);
        self.shared.record().connections[self.connection].received.extend_from_slice(&piece[..count]);
        count
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // With the record's descriptor gone, that of this peer is the last and closes the connection.
        self.shared.record().connections[self.connection].socket = None;
    }
}

/// A response with status 200, of known length.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}
