//! Which bytes after a head are content, and where the message ends (RFC 9112 section 6).

use std::ops::Range;

use super::chunked::{BodyFault, ChunkedReader};
use super::head::Version;

/// How the end of a message's content is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// The message ends with its head.
    None,
    /// Content of exactly so many bytes.
    Length(u64),
    /// RFC 9112 section 7.1.
    Chunked,
    /// Everything until the connection closes: responses only.
    UntilClose,
}

impl BodyFraming {
    /// RFC 9112 section 6.3, for a request whose fields were found sound.
    pub(super) fn of_request(content_length: Option<u64>, chunked: bool) -> Self {
        match (chunked, content_length) {
            (true, _) => BodyFraming::Chunked,
            (false, Some(length)) => BodyFraming::Length(length),
            (false, None) => BodyFraming::None,
        }
    }

    /// RFC 9112 section 6.3, for a response whose fields were found sound.
    pub(super) fn of_response(status: u16, head_request: bool, content_length: Option<u64>, chunked: bool) -> Self {
        if head_request || status < 200 || status == 204 || status == 304 {
            return BodyFraming::None;
        }
        match (chunked, content_length) {
            (true, _) => BodyFraming::Chunked,
            (false, Some(length)) => BodyFraming::Length(length),
            (false, None) => BodyFraming::UntilClose,
        }
    }

    /// How content that comes framed so goes on to a peer that speaks `version`: content of unknown length is chunked where chunks are
    /// understood, and otherwise ends with the connection.
    pub fn onward(self, version: Version) -> Self {
        match self {
            BodyFraming::None | BodyFraming::Length(_) => self,
            BodyFraming::Chunked | BodyFraming::UntilClose if version > Version::Http10 => BodyFraming::Chunked,
            BodyFraming::Chunked | BodyFraming::UntilClose => BodyFraming::UntilClose,
        }
    }
}

/// What one call of [`BodyReader::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes that belong to this message; all that were given unless it is complete.
    pub consumed: usize,
    /// Where content now lies in the bytes given. May be empty.
    pub content: Range<usize>,
    /// The message ended; what lies behind `consumed` is not part of it.
    pub complete: bool,
}

/// Tells content from framing as bytes come, for the life of one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
}

#[derive(Debug)]
enum State {
    Complete,
    /// Bytes still to come; never zero.
    Length(u64),
    Chunked(ChunkedReader),
    UntilClose,
}

impl BodyReader {
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Complete,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(ChunkedReader::new()),
            BodyFraming::UntilClose => State::UntilClose,
        };
        BodyReader { state }
    }

    /// Whether the message has ended.
    pub fn is_complete(&self) -> bool {
        match &self.state {
            State::Complete => true,
            State::Length(_) | State::UntilClose => false,
            State::Chunked(chunked) => chunked.is_complete(),
        }
    }

    /// Decodes in place. `bytes` is what was received and not yet consumed. When several chunks lie in it, their content is moved
    /// together behind the first piece; a single piece stays where it is.
    ///
    /// # Errors
    /// The message is malformed: nothing of the connection can be trusted any more.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BodyFault> {
        match &mut self.state {
            State::Complete => Ok(Decoded { consumed: 0, content: 0..0, complete: true }),
            State::UntilClose => Ok(Decoded { consumed: bytes.len(), content: 0..bytes.len(), complete: false }),
            State::Chunked(chunked) => chunked.decode(bytes),
            State::Length(remaining) => {
                let taken = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                *remaining -= taken as u64;
                let complete = *remaining == 0;
                if complete {
                    self.state = State::Complete;
                }
                Ok(Decoded { consumed: taken, content: 0..taken, complete })
            }
        }
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// [`BodyFault::Truncated`] when more was to come.
    pub fn end_of_stream(&self) -> Result<(), BodyFault> {
        match &self.state {
            State::UntilClose => Ok(()),
            _ if self.is_complete() => Ok(()),
            State::Complete | State::Length(_) | State::Chunked(_) => Err(BodyFault::Truncated),
        }
    }

    /// Bytes that are sure to come: the rest of the content, or of the chunk that is under way. `None` when nothing says.
    pub fn remaining_hint(&self) -> Option<u64> {
        match &self.state {
            State::Complete => Some(0),
            State::Length(remaining) => Some(*remaining),
            State::Chunked(chunked) => chunked.remaining_hint(),
            State::UntilClose => None,
        }
    }

    /// The trailer fields that came and may go on, each line with its CRLF and no empty line behind them. Whole once the message is
    /// complete.
    pub fn trailers(&self) -> &[u8] {
        match &self.state {
            State::Chunked(chunked) => chunked.trailers(),
            State::Complete | State::Length(_) | State::UntilClose => &[],
        }
    }
}
