//! What the frames of a peer cost, counted from their headers as the bytes pass (RFC 9113 sections 4.1 and 10.5).
//!
//! Frames that ask for work and carry no request are cheap to send and not quite so cheap to answer. Each kind has a budget for a window of time.
//! Where honest peers send more of a kind the more they get, as they do of WINDOW_UPDATE, and of PING to measure the path, what was sent to them
//! adds to the budget: so it is never the speed of a download that exhausts one.
//!
//! What a header says is believed here without a check: the codec behind ends the connection of a peer whose frames make no sense.

use std::time::{Duration, Instant};

use crate::config::limits::{self, FrameBudget};

/// What a peer sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Resets,
    Settings,
    Pings,
    Priorities,
    EmptyData,
    WindowUpdates,
    /// Frames of types that nobody knows.
    Unknown,
}

impl Flood {
    /// Its budget, by the order of the kinds.
    const BUDGETS: [FrameBudget; 7] = [
        limits::H2_RESETS,
        limits::H2_SETTINGS,
        limits::H2_PINGS,
        limits::H2_PRIORITIES,
        limits::H2_EMPTY_DATA,
        limits::H2_WINDOW_UPDATES,
        limits::H2_UNKNOWN_FRAMES,
    ];
}

/// Bytes of the preface of a client (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// See the module.
#[derive(Debug)]
pub struct FrameWatch {
    is_bounded: bool,
    incoming: Frames,
    outgoing: Frames,
    /// A head has begun to come, and not ended.
    in_head: bool,
    ends_head: bool,
    window_end: Instant,
    counts: [u32; Flood::BUDGETS.len()],
    /// Bytes sent within the window, and within the one before: a peer answers to what was on its way.
    sent: Sent,
    sent_before: Sent,
    /// Requests received within the window.
    requests: u32,
}

/// What was sent to the peer.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    bytes: u64,
    data_frames: u64,
}

/// The headers of the frames that pass in one direction.
#[derive(Debug, Default)]
struct Frames {
    /// The next one, as far as it has passed.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of a frame's payload that are still to pass.
    payload: usize,
}

impl Frames {
    /// The first `skipped` bytes are no frames.
    fn behind(skipped: usize) -> Self {
        Self { payload: skipped, ..Self::default() }
    }

    /// Takes what is payload off the front of `bytes`.
    fn skip_payload(&mut self, bytes: &mut &[u8]) {
        let skipped = self.payload.min(bytes.len());
        self.payload -= skipped;
        *bytes = &bytes[skipped..];
    }

    /// Takes what is a header off the front of `bytes`, when there is no payload before it. Returns it when it is whole.
    fn take_header(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEADER_BYTES]> {
        let (taken, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.header_bytes));
        self.header[self.header_bytes..][..taken.len()].copy_from_slice(taken);
        self.header_bytes += taken.len();
        *bytes = rest;
        if self.header_bytes < HEADER_BYTES {
            return None;
        }
        self.header_bytes = 0;
        let [high, middle, low, ..] = self.header;
        self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(self.header)
    }
}

impl FrameWatch {
    /// Of a client, whose preface comes first.
    pub fn of_client(now: Instant) -> Self {
        Self::new((PREFACE.len(), 0), true, now)
    }

    /// Of an upstream, which may send what it likes.
    pub fn of_upstream(now: Instant) -> Self {
        Self::new((0, PREFACE.len()), false, now)
    }

    /// The first bytes of each direction, so many, are no frames.
    fn new((skipped_incoming, skipped_outgoing): (usize, usize), is_bounded: bool, now: Instant) -> Self {
        Self {
            is_bounded,
            incoming: Frames::behind(skipped_incoming),
            outgoing: Frames::behind(skipped_outgoing),
            in_head: false,
            ends_head: false,
            window_end: now + WINDOW,
            counts: [0; Flood::BUDGETS.len()],
            sent: Sent::default(),
            sent_before: Sent::default(),
            requests: 0,
        }
    }

    /// Notes bytes that have come.
    ///
    /// # Errors
    /// The peer has sent more of a kind of frame than is borne with.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        if now >= self.window_end {
            self.window_end = now + WINDOW;
            (self.sent_before, self.sent) = (self.sent, Sent::default());
            (self.counts, self.requests) = (Default::default(), 0);
        }
        loop {
            self.incoming.skip_payload(&mut bytes);
            if self.incoming.payload == 0 && self.ends_head {
                (self.in_head, self.ends_head) = (false, false);
            }
            let Some(header) = self.incoming.take_header(&mut bytes) else { return Ok(()) };
            self.frame(header)?;
        }
    }

    /// Notes bytes that are sent to the peer.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.sent.bytes += bytes.len() as u64;
        loop {
            self.outgoing.skip_payload(&mut bytes);
            let Some([_, _, _, kind, ..]) = self.outgoing.take_header(&mut bytes) else { return };
            self.sent.data_frames += u64::from(kind == DATA);
        }
    }

    /// Whether a head has come in part.
    pub fn in_head(&self) -> bool {
        self.in_head
    }

    /// Bytes of the frame that is coming.
    pub fn payload_left(&self) -> usize {
        self.incoming.payload
    }

    fn frame(&mut self, [_, _, _, kind, flags, ..]: [u8; HEADER_BYTES]) -> Result<(), Flood> {
        match kind {
            DATA if self.incoming.payload == 0 && flags & END_STREAM == 0 => self.count(Flood::EmptyData),
            DATA => Ok(()),
            // HEADERS and CONTINUATION
            1 | 9 => {
                self.requests += u32::from(kind == 1);
                (self.in_head, self.ends_head) = (true, flags & END_HEADERS != 0);
                Ok(())
            }
            2 => self.count(Flood::Priorities),
            3 => self.count(Flood::Resets),
            4 if flags & ACK == 0 => self.count(Flood::Settings),
            6 if flags & ACK == 0 => self.count(Flood::Pings),
            8 => self.count(Flood::WindowUpdates),
            // The acknowledgements of ours, PUSH_PROMISE and GOAWAY: of each the codec bears one or none.
            4..=7 => Ok(()),
            _ => self.count(Flood::Unknown),
        }
    }

    fn count(&mut self, kind: Flood) -> Result<(), Flood> {
        let count = &mut self.counts[kind as usize];
        *count += 1;
        let budget = &Flood::BUDGETS[kind as usize];
        let bytes = (self.sent.bytes + self.sent_before.bytes).checked_div(budget.per_sent).unwrap_or(0);
        let data_frames = u64::from(budget.per_data) * (self.sent.data_frames + self.sent_before.data_frames);
        let requests = u64::from(budget.per_request) * u64::from(self.requests);
        let allowed = u64::from(budget.base) + bytes + data_frames + requests;
        if self.is_bounded && u64::from(*count) > allowed { Err(kind) } else { Ok(()) }
    }
}

const WINDOW: Duration = limits::H2_WINDOW;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    fn watch(now: Instant) -> FrameWatch {
        FrameWatch::new((0, 0), true, now)
    }

    /// How many of these frames are borne with, and what there are too many of then.
    fn borne(watch: &mut FrameWatch, bytes: &[u8], now: Instant) -> (u32, Option<Flood>) {
        for count in 0..100_000 {
            if let Err(flood) = watch.received(bytes, now) {
                return (count, Some(flood));
            }
        }
        (100_000, None)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_kind_is_borne_with_as_often_as_its_budget_says() {
        let cases = [
            (3, 0, 4, limits::H2_RESETS, Flood::Resets),
            (4, 0, 6, limits::H2_SETTINGS, Flood::Settings),
            (6, 0, 8, limits::H2_PINGS, Flood::Pings),
            (2, 0, 5, limits::H2_PRIORITIES, Flood::Priorities),
            (0, 0, 0, limits::H2_EMPTY_DATA, Flood::EmptyData),
            (8, 0, 4, limits::H2_WINDOW_UPDATES, Flood::WindowUpdates),
            (0x42, 0, 3, limits::H2_UNKNOWN_FRAMES, Flood::Unknown),
        ];
        for (kind, flags, payload, budget, flood) in cases {
            let (mut watch, now) = (watch(now()), now());
            let bytes = frame(kind, flags, payload);
            assert_eq!(borne(&mut watch, &bytes, now), (budget.base, Some(flood)));
        }
    }

    #[test]
    fn a_budget_is_whole_again_in_the_next_window() {
        let (mut watch, now) = (watch(now()), now());
        let ping = frame(6, 0, 8);
        for _ in 0..limits::H2_PINGS.base {
            watch.received(&ping, now).expect("within the budget");
        }
        assert_eq!(borne(&mut watch, &ping, now + WINDOW), (limits::H2_PINGS.base, Some(Flood::Pings)));
    }

    #[test]
    fn what_was_sent_earns_window_updates_and_pings_but_no_resets() {
        for (kind, payload, budget) in [(8, 4, limits::H2_WINDOW_UPDATES), (6, 8, limits::H2_PINGS)] {
            let (mut watch, now) = (watch(now()), now());
            // Of another kind than DATA, in one frame.
            watch.sent(&frame(1, 0, budget.per_sent as usize * 1000 - HEADER_BYTES));
            assert_eq!(borne(&mut watch, &frame(kind, 0, payload), now).0, budget.base + 1000);

            let (mut watch, now) = (self::watch(self::now()), self::now());
            // However they are cut.
            let sent = [frame(DATA, 0, 1), frame(DATA, 0, 2)].concat().repeat(500);
            sent.chunks(7).for_each(|piece| watch.sent(piece));
            let by_bytes = (sent.len() as u64 / budget.per_sent) as u32;
            let borne = borne(&mut watch, &frame(kind, 0, payload), now).0;
            assert_eq!(borne, budget.base + 1000 * budget.per_data + by_bytes);
        }
        let (mut watch, now) = (watch(now()), now());
        watch.sent(&frame(DATA, 0, 1).repeat(100_000));
        assert_eq!(borne(&mut watch, &frame(3, 0, 4), now).0, limits::H2_RESETS.base);
    }

    #[test]
    fn content_acknowledgements_and_requests_cost_nothing() {
        for bytes in [frame(0, 0, 1), frame(0, END_STREAM, 0), frame(4, ACK, 0), frame(6, ACK, 8), frame(1, 5, 30)] {
            let (mut watch, now) = (watch(now()), now());
            assert_eq!(borne(&mut watch, &bytes, now), (100_000, None));
        }
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for _ in 0..limits::H2_PINGS.base {
            bytes.extend(frame(6, 0, 8));
            bytes.extend(frame(0, 0, 300));
        }
        let last = frame(6, 0, 8);
        for cut in [1, 2, 7, 9, 10, 4096] {
            let now = now();
            let mut watch = FrameWatch::of_client(now);
            for piece in bytes.chunks(cut) {
                assert_eq!(watch.received(piece, now), Ok(()), "{cut}");
            }
            assert_eq!(watch.received(&last, now), Err(Flood::Pings), "{cut}");
        }
    }

    #[test]
    fn a_head_is_under_way_until_its_last_byte_has_come() {
        let (mut watch, now) = (watch(now()), now());
        let head = [frame(1, 0, 20), frame(9, END_HEADERS, 10)].concat();
        for (index, byte) in head.iter().enumerate() {
            watch.received(&[*byte], now).expect("no flood");
            assert_eq!(watch.in_head(), (8..head.len() - 1).contains(&index), "{index}");
        }
        assert_eq!(watch.payload_left(), 0);
    }
}
