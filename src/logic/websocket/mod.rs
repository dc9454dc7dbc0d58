//! WebSocket (RFC 6455) as far as a gateway must know it: enough to say goodbye between two frames.
//!
//! A gateway passes frames on without reading them. When it has to end, it may put one frame of its own in, a Close with the status 1001 (going away),
//! which lets both peers end in good order instead of finding their connection broken. That frame must not land within another one. So each direction
//! of a connection is followed from frame to frame, by the few bytes of their heads; payloads are skipped and never looked at.
//!
//! What is no frame ends this: nobody knows where the next one would begin, so nothing is put in any more, and the bytes are passed on for the peers to
//! judge. Opcodes and bits that RFC 6455 reserves are none of it: they may be an extension's, whose frames have the same form (section 5.2).
//!
//! Nothing here knows what the frames travel in: one connection of its own, or a stream of HTTP/2 (RFC 8441).

use frames::Frames;

pub mod fuzzing;

mod frames;

#[cfg(test)]
mod tests;

/// Who sends the frames of one direction. Clients mask theirs, and servers must not (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

/// One direction of a connection: what is passed on of what its sender sends, and when we speak in its stead.
#[derive(Debug)]
pub struct Passage {
    frames: Frames,
    /// A Close frame of ours was the last that the receiver gets.
    is_cut: bool,
}

/// What becomes of bytes that a sender has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// So many of them are passed on, from the first; the others are dropped.
    pub count: usize,
    /// Behind those a frame by [`write_close`] is to be sent.
    pub then_close: bool,
}

impl Passage {
    /// The direction in which `sender` sends. Its first byte begins a frame.
    pub fn new(sender: Sender) -> Self {
        Self { frames: Frames::new(sender), is_cut: false }
    }

    /// What becomes of `bytes`, which are next. With `is_draining` the direction is cut behind the last frame that ends with or before them; until one
    /// does, they are passed on. What comes after the cut is dropped.
    pub fn pass(&mut self, bytes: &[u8], is_draining: bool) -> Passed {
        let whole = Passed { count: bytes.len(), then_close: false };
        let was_between = self.frames.are_between();
        let last_end = self.frames.feed(bytes);
        if self.is_cut {
            return Passed { count: 0, ..whole };
        }
        match last_end.or(was_between.then_some(0)) {
            Some(count) if is_draining && self.frames.are_open() => {
                self.is_cut = true;
                Passed { count, then_close: true }
            }
            _ => whole,
        }
    }

    /// Whether a drain can cut here, without further bytes.
    pub fn can_be_cut(&self) -> bool {
        !self.is_cut && self.frames.are_between()
    }

    /// Whether the sender has sent its own Close frame: nothing of interest follows.
    pub fn has_closed(&self) -> bool {
        self.frames.have_closed()
    }
}

/// The status of a Close frame by which an endpoint says that it is going away (section 7.4.1).
const GOING_AWAY: u16 = 1001;

/// Writes a Close frame as `sender` would send it. `mask` should be one that nobody can guess (section 5.3); servers use none.
pub fn write_close(out: &mut Vec<u8>, sender: Sender, mask: [u8; 4]) {
    let [high, low] = GOING_AWAY.to_be_bytes();
    match sender {
        Sender::Server => out.extend_from_slice(&[frames::FINAL_CLOSE, 2, high, low]),
        Sender::Client => {
            out.extend_from_slice(&[frames::FINAL_CLOSE, frames::MASKED | 2]);
            out.extend_from_slice(&mask);
            out.extend_from_slice(&[high ^ mask[0], low ^ mask[1]]);
        }
    }
}
