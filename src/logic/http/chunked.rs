//! The chunked transfer coding (RFC 9112 section 7.1), incrementally and in place.
//!
//! Every byte of framing goes through one small state machine, content is passed over in bulk. Lines end in CRLF and in nothing else: a
//! reader that takes a lone line feed sees other chunks than one that does not, and that is all that request smuggling needs.
//! Extensions mean nothing to us and are dropped. Their quoting need not be understood to find their end, since even a quoted string
//! cannot hold a line end; what is checked is that no control character hides in them.

use thiserror::Error;

use super::fields::{FieldFault, Line, Step, is_forbidden_trailer, step};
use super::framing::Decoded;
use super::octets::is_value_byte;

/// Digits of a chunk size: what fits 64 bits. Leading zeros count.
const SIZE_DIGITS_MAX: u8 = 16;
/// Extension bytes of one chunk. Nothing in use sends any.
const CHUNK_EXTENSION_BYTES_MAX: u16 = 256;
/// Extension bytes of one message, so that one-byte chunks cannot carry more framing than content without end.
const MESSAGE_EXTENSION_BYTES_MAX: u16 = 16 * 1024;
/// Bytes of all trailer fields, dropped ones included; the most that a reader ever allocates.
const TRAILER_BYTES_MAX: u16 = 8 * 1024;
/// Trailer fields, dropped ones included.
const TRAILER_FIELDS_MAX: u8 = 32;

/// Why a body was refused. From a client it means [`BodyFault::status`], from an upstream 502 or, once its head was passed on, an
/// aborted response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum BodyFault {
    #[error("the content ended before it was complete")]
    Truncated,
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    BadChunkSize,
    #[error("a chunk extension is malformed")]
    BadChunkExtension,
    #[error("chunk extensions are too long")]
    ChunkExtensionTooLong,
    #[error("a chunk's line or content does not end in CRLF")]
    BadChunkEnd,
    #[error("the trailer fields are too long or too many")]
    TrailersTooLong,
    #[error("a trailer field is malformed: {0}")]
    BadTrailer(#[source] FieldFault),
}

impl BodyFault {
    /// The status for the client that sent this.
    pub fn status(self) -> u16 {
        match self {
            BodyFault::TrailersTooLong => 431,
            BodyFault::Truncated
            | BodyFault::BadChunkSize
            | BodyFault::BadChunkExtension
            | BodyFault::ChunkExtensionTooLong
            | BodyFault::BadChunkEnd
            | BodyFault::BadTrailer(_) => 400,
        }
    }

    /// A stable name, the last part of the problem's `type`.
    pub fn slug(self) -> &'static str {
        match self {
            BodyFault::Truncated => "truncated-content",
            BodyFault::BadChunkSize => "bad-chunk-size",
            BodyFault::BadChunkExtension | BodyFault::ChunkExtensionTooLong => "bad-chunk-extension",
            BodyFault::BadChunkEnd => "bad-chunk-end",
            BodyFault::TrailersTooLong | BodyFault::BadTrailer(_) => "bad-trailers",
        }
    }
}

#[derive(Debug)]
pub(super) struct ChunkedReader {
    state: State,
    /// Extension bytes of the whole message so far.
    extension_bytes: u16,
    trailer_bytes: u16,
    trailer_fields: u8,
    /// Trailer fields that may go on, then the line that is still coming. Allocated when the first trailer byte comes.
    trailers: Vec<u8>,
    /// Where in `trailers` the line that is still coming begins.
    line_start: u16,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// White space behind a size, which only a `;` makes legal.
    SizeSpace {
        size: u64,
        bytes: u16,
    },
    /// Behind the `;`.
    Extension {
        size: u64,
        bytes: u16,
    },
    /// The CR of a size line came.
    SizeLineFeed {
        size: u64,
    },
    /// Content bytes of this chunk still to come; never zero.
    Content {
        remaining: u64,
    },
    ContentCarriageReturn,
    ContentLineFeed,
    /// At the start of a trailer line or of the empty line.
    TrailerStart,
    Trailer,
    /// The CR of the empty line came.
    LastLineFeed,
    Complete,
}

impl ChunkedReader {
    pub(super) fn new() -> Self {
        ChunkedReader {
            state: State::Size { value: 0, digits: 0 },
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            trailers: Vec::new(),
            line_start: 0,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    pub(super) fn remaining_hint(&self) -> Option<u64> {
        match self.state {
            State::Content { remaining } => Some(remaining),
            State::Complete => Some(0),
            _ => None,
        }
    }

    pub(super) fn trailers(&self) -> &[u8] {
        &self.trailers[..usize::from(self.line_start)]
    }

    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BodyFault> {
        let mut at = 0;
        let mut content = 0..0;
        while at < bytes.len() {
            match self.state {
                State::Content { remaining } => {
                    let taken = usize::try_from(remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
                    if content.is_empty() {
                        content = at..at + taken;
                    } else {
                        bytes.copy_within(at..at + taken, content.end);
                        content.end += taken;
                    }
                    at += taken;
                    self.state = match remaining - taken as u64 {
                        0 => State::ContentCarriageReturn,
                        remaining => State::Content { remaining },
                    };
                }
                State::Trailer => at += self.trailer(&bytes[at..])?,
                State::Complete => break,
                _ => {
                    self.state = self.framing_byte(bytes[at])?;
                    // The first byte of a trailer line is looked at twice.
                    at += usize::from(!matches!(self.state, State::Trailer));
                }
            }
        }
        Ok(Decoded { consumed: at, content, complete: self.is_complete() })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyFault> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyFault::BadChunkSize);
                }
                State::Size { value: value << 4 | hex_digit(byte), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyFault::BadChunkSize),
            (State::Size { value: size, .. } | State::Extension { size, .. }, b'\r') => State::SizeLineFeed { size },
            (State::Size { value: size, .. }, b';') => State::Extension { size, bytes: self.extension(0)? },
            (State::Size { value: size, .. }, b' ' | b'\t') => State::SizeSpace { size, bytes: self.extension(0)? },
            (State::Size { .. }, b'\n') => return Err(BodyFault::BadChunkEnd),
            (State::Size { .. }, _) => return Err(BodyFault::BadChunkSize),
            (State::SizeSpace { size, bytes }, b' ' | b'\t') => {
                State::SizeSpace { size, bytes: self.extension(bytes)? }
            }
            (State::SizeSpace { size, bytes }, b';') => State::Extension { size, bytes: self.extension(bytes)? },
            (State::SizeSpace { .. }, _) => return Err(BodyFault::BadChunkSize),
            (State::Extension { size, bytes }, _) if is_value_byte(byte) => {
                State::Extension { size, bytes: self.extension(bytes)? }
            }
            (State::Extension { .. }, _) => return Err(BodyFault::BadChunkExtension),
            (State::SizeLineFeed { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLineFeed { size }, b'\n') => State::Content { remaining: size },
            (State::ContentCarriageReturn, b'\r') => State::ContentLineFeed,
            (State::ContentLineFeed, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::TrailerStart, _) => State::Trailer,
            (State::LastLineFeed, b'\n') => State::Complete,
            (State::SizeLineFeed { .. } | State::ContentCarriageReturn | State::ContentLineFeed, _) => {
                return Err(BodyFault::BadChunkEnd);
            }
            (State::LastLineFeed, _) => return Err(BodyFault::BadTrailer(FieldFault::BareCarriageReturn)),
            (State::Content { .. } | State::Trailer | State::Complete, _) => {
                unreachable!("content and trailers are taken in bulk")
            }
        })
    }

    /// Counts one more extension byte; `bytes` are those of this chunk so far.
    fn extension(&mut self, bytes: u16) -> Result<u16, BodyFault> {
        if bytes == CHUNK_EXTENSION_BYTES_MAX || self.extension_bytes == MESSAGE_EXTENSION_BYTES_MAX {
            return Err(BodyFault::ChunkExtensionTooLong);
        }
        self.extension_bytes += 1;
        Ok(bytes + 1)
    }

    /// Takes what `bytes` holds of one trailer line, and judges the line when it is whole.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, BodyFault> {
        let line_feed = memchr::memchr(b'\n', bytes);
        let taken = line_feed.map_or(bytes.len(), |at| at + 1);
        let room = usize::from(TRAILER_BYTES_MAX - self.trailer_bytes);
        if taken > room {
            return Err(BodyFault::TrailersTooLong);
        }
        self.trailer_bytes += taken as u16;
        self.trailers.extend_from_slice(&bytes[..taken]);
        if line_feed.is_some() {
            self.judge_trailer()?;
            self.state = State::TrailerStart;
        }
        Ok(taken)
    }

    fn judge_trailer(&mut self) -> Result<(), BodyFault> {
        if self.trailer_fields == TRAILER_FIELDS_MAX {
            return Err(BodyFault::TrailersTooLong);
        }
        self.trailer_fields += 1;
        let start = usize::from(self.line_start);
        let mut line = Line::EMPTY;
        match step(&self.trailers, start, &mut line).map_err(BodyFault::BadTrailer)? {
            Step::Line if is_forbidden_trailer(line.name(&self.trailers)) => self.trailers.truncate(start),
            Step::Line => self.line_start = self.trailers.len() as u16,
            Step::End | Step::Partial => {
                unreachable!("a line that holds a line feed and begins with no CR is a field or a fault")
            }
        }
        Ok(())
    }
}

fn hex_digit(byte: u8) -> u64 {
    u64::from(match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    })
}

#[cfg(test)]
mod tests;
