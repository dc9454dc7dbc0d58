//! HTTP/2 frames as bytes (RFC 9113 section 4.1), well-formed or not.

use super::hpack;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// The flag of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// The flag of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// The flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY_FLAG: u8 = 0x20;

/// Error codes (section 7).
pub mod code {
    pub const NO_ERROR: u32 = 0x0;
    pub const PROTOCOL_ERROR: u32 = 0x1;
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub const REFUSED_STREAM: u32 = 0x7;
    pub const CANCEL: u32 = 0x8;
    pub const COMPRESSION_ERROR: u32 = 0x9;
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// Settings (section 6.5.2).
pub mod setting {
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
}

/// Any frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a frame's length has 24 bits").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS with a whole block of plain fields.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | flags, stream, hpack::block(fields))
}

pub fn data(stream: u32, flags: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, flags, stream, content)
}

pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, payload)
}

pub fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, ACK, 0, [])
}

pub fn ping(content: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, 0, 0, content)
}

/// PRIORITY, or what HEADERS begins with under [`PRIORITY_FLAG`], is for nobody by now; here `stream` depends on `on`.
pub fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, [&on.to_be_bytes()[..], &[15]].concat())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

/// The fields of a `GET` of this path.
pub fn get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "example.com"), (":path", path)]
}

/// The fields of a `POST` to this path.
pub fn post(path: &str) -> [(&str, &str); 4] {
    [(":method", "POST"), (":scheme", "http"), (":authority", "example.com"), (":path", path)]
}

/// A frame that has come.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes a frame off the front of `buffer`, if it is there whole.
    pub fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let header: [u8; 9] = buffer.get(..9)?.try_into().expect("9 bytes");
        let [length @ .., kind, flags, stream_high, stream_2, stream_3, stream_low] = header;
        let [high, middle, low] = length;
        let end = 9 + u32::from_be_bytes([0, high, middle, low]) as usize;
        let payload = buffer.get(9..end)?.to_vec();
        buffer.drain(..end);
        let stream = u32::from_be_bytes([stream_high & 0x7f, stream_2, stream_3, stream_low]);
        Some(Self { kind, flags, stream, payload })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number at this place of the payload.
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).unwrap_or_else(|| panic!("too short: {self:?}"));
        u32::from_be_bytes(bytes.try_into().expect("4 bytes"))
    }
}
