//! Where one frame ends and the next begins (RFC 6455 section 5.2), in bytes that come in any pieces.

use super::Sender;

/// Set in the first byte of the last frame of a message.
const FINAL: u8 = 0x80;
/// Set in the opcodes of control frames.
const CONTROL: u8 = 0x08;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
/// The first byte of a Close frame of ours.
pub(super) const FINAL_CLOSE: u8 = FINAL | CLOSE;

/// Set in the second byte when a mask follows the length.
pub(super) const MASKED: u8 = 0x80;
const SHORT_LENGTH: u8 = 0x7f;
/// Short lengths that say that the length is in the next two, or in the next eight bytes.
const IN_TWO_BYTES: u8 = 126;
const IN_EIGHT_BYTES: u8 = 127;

/// Two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;

/// The frames of one direction. Nothing of a payload is kept.
#[derive(Debug)]
pub(super) struct Frames {
    sender: Sender,
    state: State,
    /// As much of the current frame's head as `state` says.
    head: [u8; HEAD_BYTES_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a head have come, fewer than it has; 0 between two frames.
    Head(usize),
    /// So many bytes of a payload are to come, 1 at least.
    Payload(u64),
    /// The Close frame has come: it is the last one.
    Closed,
    /// What came is no frame.
    Lost,
}

impl Frames {
    pub fn new(sender: Sender) -> Self {
        Self { sender, state: State::Head(0), head: [0; HEAD_BYTES_MAX] }
    }

    /// Follows the frames through `bytes`, which are next. Returns where the last of them ends that ends there.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut last_end) = (0, None);
        while at < bytes.len() && self.are_open() {
            self.state = match self.state {
                State::Head(had) => {
                    self.head[had] = bytes[at];
                    at += 1;
                    self.after_head_bytes(had + 1)
                }
                State::Payload(left) => {
                    let come = left.min((bytes.len() - at) as u64);
                    at += come as usize;
                    self.with_payload_left(left - come)
                }
                ended @ (State::Closed | State::Lost) => ended,
            };
            if matches!(self.state, State::Head(0) | State::Closed) {
                last_end = Some(at);
            }
        }
        last_end
    }

    /// Whether the next byte would begin a frame.
    pub fn are_between(&self) -> bool {
        self.state == State::Head(0)
    }

    /// Whether more frames may come, and it is known where.
    pub fn are_open(&self) -> bool {
        matches!(self.state, State::Head(_) | State::Payload(_))
    }

    pub fn have_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// What the first `count` bytes of a head come to.
    fn after_head_bytes(&self, count: usize) -> State {
        let [first, second, rest @ ..] = &self.head;
        if count < 2 {
            return State::Head(count);
        }
        let (masked, short) = (second & MASKED != 0, second & SHORT_LENGTH);
        // A control frame has a short payload, and comes in one piece (section 5.5).
        let is_control = first & CONTROL != 0;
        if masked != (self.sender == Sender::Client) || is_control && (first & FINAL == 0 || short >= IN_TWO_BYTES) {
            return State::Lost;
        }
        let extended = match short {
            IN_TWO_BYTES => 2,
            IN_EIGHT_BYTES => 8,
            _ => 0,
        };
        if count < 2 + extended + if masked { 4 } else { 0 } {
            return State::Head(count);
        }
        let long = rest[..extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        // Lengths are written as short as they can be, and have no sign.
        match short {
            IN_TWO_BYTES if long < u64::from(IN_TWO_BYTES) => State::Lost,
            IN_EIGHT_BYTES if long <= u64::from(u16::MAX) || long > i64::MAX as u64 => State::Lost,
            IN_TWO_BYTES | IN_EIGHT_BYTES => self.with_payload_left(long),
            _ => self.with_payload_left(short.into()),
        }
    }

    fn with_payload_left(&self, left: u64) -> State {
        match left {
            0 if self.head[0] & OPCODE == CLOSE => State::Closed,
            0 => State::Head(0),
            _ => State::Payload(left),
        }
    }
}
