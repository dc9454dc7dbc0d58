//! An HTTP/2 client that sends whatever it is told to, frame by frame, and holds what comes back against RFC 9113.
//!
//! It speaks plain text, knowing beforehand that HTTP/2 is spoken. It opens streams that nobody counts, says what nobody may say, and notes what
//! comes: a test sends, waits [`until`](H2Client::until) something has come, and looks.

pub mod frame;
pub mod hpack;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use self::frame::{ACK, END_HEADERS, END_STREAM, Frame, PADDED, PREFACE, PRIORITY_FLAG, kind};
use self::hpack::{Decoder, Fields};
use super::PATIENCE;
use super::message::latin1;
use super::socket::Socket;

/// The largest payload that the server was allowed.
const MAX_FRAME: usize = 16_384;

/// One connection to a server.
pub struct H2Client {
    socket: Socket,
    buffer: Vec<u8>,
    decoder: Decoder,
    /// A block of fields that has begun, with the flags of its HEADERS.
    block: Option<(u32, u8, Vec<u8>)>,
    streams: BTreeMap<u32, Stream>,
    /// Says what honest clients say: that settings and pings have come, and that there is room for more content.
    pub is_polite: bool,
    /// The server's SETTINGS.
    pub settings: Option<Vec<(u16, u32)>>,
    /// How often the server has acknowledged.
    pub settings_acknowledged: usize,
    pub pings_acknowledged: usize,
    /// How often the server has reset a stream, the same or another.
    pub resets: usize,
    pub goaway: Option<GoAway>,
    /// The server has closed the connection, or reset it.
    pub is_closed: bool,
}

/// What has come on one stream.
#[derive(Clone, Default)]
pub struct Stream {
    /// Interim heads, the head, and trailers.
    pub blocks: Vec<Fields>,
    pub body: Vec<u8>,
    /// Nothing more will come.
    pub is_ended: bool,
    /// The error code that it was reset with, the first time.
    pub reset: Option<u32>,
}

/// The server's last words.
#[derive(Clone, Debug)]
pub struct GoAway {
    pub code: u32,
}

impl fmt::Debug for H2Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, settings_acknowledged, pings_acknowledged, resets, goaway, is_closed, .. } = self;
        write!(
            out,
            "{settings_acknowledged} SETTINGS and {pings_acknowledged} PING acknowledged, {resets} resets, {goaway:?}, "
        )?;
        write!(out, "closed: {is_closed}, {} streams, at last", streams.len())?;
        out.debug_map().entries(streams.iter().rev().take(3)).finish()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, body, is_ended, reset } = self;
        let start = latin1(&body[..body.len().min(100)]);
        write!(out, "{blocks:?}, {} bytes {start:?}, ended: {is_ended}, reset: {reset:?}", body.len())
    }
}

impl Stream {
    pub fn status(&self) -> u16 {
        self.head().and_then(|head| head[0].1.parse().ok()).unwrap_or_else(|| panic!("no head in {self:?}"))
    }

    /// The value of a field of the head that may be there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head()?.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} is there several times in {self:?}");
        value
    }

    pub fn text(&self) -> String {
        latin1(&self.body)
    }

    fn head(&self) -> Option<&Fields> {
        self.blocks.iter().find(|block| is_head(block) && !is_interim(block))
    }
}

fn is_head(block: &Fields) -> bool {
    block.first().is_some_and(|(name, _)| name == ":status")
}

fn is_interim(block: &Fields) -> bool {
    block[0].1.starts_with('1')
}

impl H2Client {
    /// Connects to `ip:port`, and waits for the server's first words.
    pub fn connect(address: &str) -> Self {
        Self::connect_with(address, &[])
    }

    /// The same with these settings.
    pub fn connect_with(address: &str, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::connect_mute(address);
        client.send(PREFACE).send(frame::settings(settings));
        client.until("the server introduces itself", |client| client.settings.is_some());
        client
    }

    /// Connects and says nothing.
    pub fn connect_mute(address: &str) -> Self {
        let socket = Socket::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        socket.set_write_timeout(PATIENCE);
        Self {
            socket,
            buffer: Vec::new(),
            decoder: Decoder::new(),
            block: None,
            streams: BTreeMap::new(),
            is_polite: true,
            settings: None,
            settings_acknowledged: 0,
            pings_acknowledged: 0,
            resets: 0,
            goaway: None,
            is_closed: false,
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        assert!(self.try_send(bytes), "the server does not take it; so far: {self:?}");
        self
    }

    /// Sends; `false` when the server does not take it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends `unit(0)`, `unit(1)` and so on, reading what comes, until the server has had enough. Returns how many it was sent, `count` at most.
    pub fn flood(&mut self, count: u32, unit: impl Fn(u32) -> Vec<u8>) -> u32 {
        const AT_ONCE: u32 = 20;
        for start in (0..count).step_by(AT_ONCE as usize) {
            let end = count.min(start + AT_ONCE);
            let piece: Vec<u8> = (start..end).flat_map(&unit).collect();
            let taken = self.try_send(piece);
            self.receive(Duration::from_millis(1)).unwrap_or_else(|fault| panic!("{fault}"));
            if !taken || self.goaway.is_some() || self.is_closed {
                return end;
            }
        }
        count
    }

    /// What has come on a stream so far.
    pub fn stream(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Everything that has come on streams so far.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// Waits for the whole response on this stream.
    pub fn response(&mut self, stream: u32) -> Stream {
        self.try_response(stream).unwrap_or_else(|fault| panic!("no response: {fault}"))
    }

    /// The same; fails with what there is instead.
    pub fn try_response(&mut self, stream: u32) -> Result<Stream, String> {
        self.try_until("the response is complete", |client| client.stream(stream).is_ended)?;
        Ok(self.stream(stream))
    }

    /// Asks for this path on this stream, and waits for the response.
    pub fn get(&mut self, stream: u32, path: &str) -> Stream {
        self.send(frame::headers(stream, END_STREAM, &frame::get(path))).response(stream)
    }

    /// Waits for the server to reset this stream; returns its error code.
    pub fn reset_of(&mut self, stream: u32) -> u32 {
        self.until("the stream is reset", |client| client.stream(stream).reset.is_some());
        self.stream(stream).reset.expect("waited for")
    }

    /// Waits for the server to say goodbye and to close the connection; returns its error code.
    pub fn goodbye(&mut self) -> u32 {
        self.until("the server says goodbye", |client| client.goaway.is_some());
        self.until("the server closes the connection", |client| client.is_closed);
        self.goaway.as_ref().expect("waited for").code
    }

    /// Reads until this holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.try_until(what, holds).unwrap_or_else(|fault| panic!("{fault}"));
    }

    fn try_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let give_up = Instant::now() + 3 * PATIENCE;
        while !holds(self) {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_closed {
                return Err(format!("it never came to this: {what}; only to {self:?}"));
            }
            self.receive(left)?;
        }
        Ok(())
    }

    /// Reads for this long, whatever comes.
    pub fn read_for(&mut self, milliseconds: u64) {
        let end = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < end && !self.is_closed {
            let left = end.saturating_duration_since(Instant::now());
            self.receive(left).unwrap_or_else(|fault| panic!("{fault}"));
        }
    }

    /// Waits for one read, and takes in the frames that are there then. Fails with what is wrong with one of them.
    fn receive(&mut self, patience: Duration) -> Result<(), String> {
        self.socket.set_read_timeout(patience.max(Duration::from_millis(1)));
        let mut piece = [0; 64 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => self.is_closed = true,
            Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                self.is_closed = true;
            }
            Err(_) => {}
        }
        while let Some(frame) = Frame::take(&mut self.buffer) {
            self.take(&frame).map_err(|fault| format!("{fault} at {frame:?}; before: {self:?}"))?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> Result<(), String> {
        let fault = |what: &str| Err(what.to_owned());
        if frame.payload.len() > MAX_FRAME {
            return fault("a frame that is too large");
        }
        if self.settings.is_none() && (frame.kind != kind::SETTINGS || frame.has(ACK)) {
            return fault("the first words are no SETTINGS");
        }
        if self.block.as_ref().is_some_and(|(stream, ..)| frame.kind != kind::CONTINUATION || frame.stream != *stream) {
            return fault("a frame within a block of fields");
        }
        match frame.kind {
            kind::DATA => self.take_content(frame),
            kind::HEADERS => self.take_block(frame.stream, frame.flags, unpadded(frame)?, frame.has(END_HEADERS)),
            kind::CONTINUATION => {
                let Some((stream, flags, mut block)) = self.block.take() else { return fault("out of nowhere") };
                block.extend_from_slice(&frame.payload);
                self.take_block(stream, flags, block, frame.has(END_HEADERS))
            }
            kind::RST_STREAM => {
                self.streams.entry(frame.stream).or_default().reset.get_or_insert(frame.number(0));
                self.resets += 1;
                Ok(())
            }
            kind::SETTINGS if frame.has(ACK) => {
                self.settings_acknowledged += 1;
                Ok(())
            }
            kind::SETTINGS => {
                let settings = frame.payload.chunks_exact(6).map(|setting| {
                    let setting: [u8; 6] = setting.try_into().expect("6 bytes");
                    let [id_high, id_low, value @ ..] = setting;
                    (u16::from_be_bytes([id_high, id_low]), u32::from_be_bytes(value))
                });
                self.settings = Some(settings.collect());
                self.say(frame::settings_ack());
                Ok(())
            }
            kind::PING if frame.has(ACK) => {
                self.pings_acknowledged += 1;
                Ok(())
            }
            kind::PING => {
                self.say(frame::frame(kind::PING, ACK, 0, &frame.payload));
                Ok(())
            }
            kind::GOAWAY => {
                let goaway = GoAway { code: frame.number(4) };
                if self.goaway.as_ref().is_some_and(|before| before.code != 0) {
                    return fault(&format!("another word behind the last one, which was {:?}", self.goaway));
                }
                self.goaway = Some(goaway);
                Ok(())
            }
            kind::WINDOW_UPDATE => Ok(()),
            _ => fault("nothing that a server sends"),
        }
    }

    fn take_content(&mut self, frame: &Frame) -> Result<(), String> {
        let content = unpadded(frame)?;
        let stream = self.streams.entry(frame.stream).or_default();
        if stream.is_ended || stream.reset.is_some() || stream.head().is_none() {
            return Err("content where none may be".to_owned());
        }
        stream.body.extend_from_slice(&content);
        stream.is_ended = frame.has(END_STREAM);
        if stream.is_ended {
            check_length(stream)?;
        }
        let count = u32::try_from(frame.payload.len()).expect("checked");
        if count > 0 {
            self.say([frame::window_update(0, count), frame::window_update(frame.stream, count)].concat());
        }
        Ok(())
    }

    fn take_block(&mut self, stream: u32, flags: u8, block: Vec<u8>, is_whole: bool) -> Result<(), String> {
        if !is_whole {
            self.block = Some((stream, flags, block));
            return Ok(());
        }
        let fields = self.decoder.decode(&block)?;
        let stream = self.streams.entry(stream).or_default();
        if stream.is_ended || stream.reset.is_some() {
            return Err("fields behind the end".to_owned());
        }
        let is_ended = flags & END_STREAM != 0;
        check_fields(&fields, stream.head().is_none(), is_ended)?;
        let is_trailer = !is_head(&fields);
        stream.blocks.push(fields);
        stream.is_ended = is_ended;
        if is_trailer { check_length(stream) } else { Ok(()) }
    }

    /// Says what an honest client says. That the server has gone will be seen elsewhere.
    fn say(&mut self, bytes: Vec<u8>) {
        if self.is_polite {
            self.try_send(bytes);
        }
    }
}

/// The payload without padding and priority (sections 6.1 and 6.2).
fn unpadded(frame: &Frame) -> Result<Vec<u8>, String> {
    let mut rest = frame.payload.as_slice();
    let mut padding = 0;
    if frame.has(PADDED) {
        let (&length, left) = rest.split_first().ok_or("no length of padding")?;
        (padding, rest) = (usize::from(length), left);
    }
    if frame.kind == kind::HEADERS && frame.has(PRIORITY_FLAG) {
        rest = rest.get(5..).ok_or("no priority")?;
    }
    let length = rest.len().checked_sub(padding).ok_or("more padding than payload")?;
    Ok(rest[..length].to_vec())
}

/// What every response must be (sections 8.2 and 8.3.2).
fn check_fields(fields: &Fields, is_head_due: bool, is_ended: bool) -> Result<(), String> {
    const OF_A_CONNECTION: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let statuses = fields.iter().filter(|(name, _)| name.starts_with(':')).count();
    let is_fine = match (is_head_due, is_head(fields)) {
        (true, true) => statuses == 1 && fields[0].1.len() == 3 && !(is_interim(fields) && is_ended),
        (false, false) => statuses == 0 && is_ended,
        _ => false,
    };
    if !is_fine {
        return Err(format!("neither head nor trailers, or not in their place: {fields:?}"));
    }
    let is_fault = |name: &str, value: &str| {
        name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
            || OF_A_CONNECTION.contains(&name)
            || value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    };
    match fields.iter().find(|(name, value)| is_fault(name, value)) {
        Some(field) => Err(format!("no field of HTTP/2: {field:?}")),
        None => Ok(()),
    }
}

/// Section 8.1.1. A response that ends with its head may have the length of another.
fn check_length(stream: &Stream) -> Result<(), String> {
    match stream.field("content-length") {
        Some(length) if length != stream.body.len().to_string() => {
            Err(format!("{length} bytes were said to come, and {} came", stream.body.len()))
        }
        _ => Ok(()),
    }
}
