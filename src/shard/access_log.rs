//! One line per request, gathered per shard and written by one thread that may block.
//!
//! A line is begun when the request's head is read, while its bytes are at hand, or is refused, and ended with the response. Full buffers go down a bounded lane to
//! the writer; when the writer is behind, lines are dropped and counted, and no request waits.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::config::plan::{AccessLogTarget, LogFormat};
use crate::mesh::{Lane, LaneEnd, lane};

/// A shard hands its lines over when they come to this many bytes, or at the next tick.
const BATCH_BYTES: usize = 32 * 1024;
/// Batches on their way to the writer: with 32 KiB each, 4 MiB at most.
const BATCHES: usize = 128;

/// A shard's own part of the log.
pub struct AccessLog {
    format: LogFormat,
    lane: Lane,
    batch: RefCell<Batch>,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// What is known when a request's head was read, or was refused: then that is little.
pub struct Opening<'a> {
    pub at: SystemTime,
    /// Its address; empty when it has none.
    pub client: &'a str,
    pub listener: &'a str,
    pub request_id: &'a str,
    pub head: Option<OpeningHead<'a>>,
}

/// What a head says, once it is believed.
pub struct OpeningHead<'a> {
    pub method: &'a str,
    /// Empty when the request has none.
    pub host: &'a str,
    /// The target as it was sent, with its query.
    pub path: &'a str,
    pub version: &'a str,
}

/// What is known when its response has ended.
pub struct Closing<'a> {
    /// `None` when the client got no response at all.
    pub status: Option<u16>,
    pub received: u64,
    pub sent: u64,
    pub duration: Duration,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    pub attempts: u32,
    /// What went wrong, in a word that clients and metrics use too.
    pub problem: Option<&'a str>,
    /// The same in Envoy's vocabulary, which is coarser: `UF`, `DC` and others; `-` for none.
    pub flags: &'a str,
}

impl AccessLog {
    pub fn new(format: LogFormat, lane: Lane) -> Self {
        Self { format, lane, batch: RefCell::default() }
    }

    /// Begins a line in `line`, which is empty.
    pub fn open(&self, line: &mut Vec<u8>, opening: &Opening<'_>) {
        let time = Timestamp(opening.at);
        // Writing to a `Vec` does not fail.
        let _ = match self.format {
            LogFormat::Json => write!(line, "{{\"time\":\"{time}\""),
            LogFormat::Text => write!(line, "{time}"),
        };
        let head = opening.head.as_ref();
        let members = [
            ("client", Some(opening.client)),
            ("listener", Some(opening.listener)),
            ("request_id", Some(opening.request_id)),
            ("method", head.map(|head| head.method)),
            ("host", head.map(|head| head.host)),
            ("path", head.map(|head| head.path)),
            ("version", head.map(|head| head.version)),
        ];
        for (name, value) in members {
            self.member(line, name, value.filter(|value| !value.is_empty()));
        }
    }

    /// Ends the line and puts it with the others. Returns how many lines were dropped for want of room.
    pub fn close(&self, line: &mut Vec<u8>, closing: &Closing<'_>) -> u64 {
        let Closing { received, sent, attempts, flags, .. } = closing;
        let status = closing.status.unwrap_or(0);
        let us = closing.duration.as_micros();
        self.member(line, "upstream", closing.upstream);
        self.member(line, "endpoint", closing.endpoint);
        self.member(line, "problem", closing.problem);
        let _ = match self.format {
            LogFormat::Json => writeln!(
                line,
                ",\"status\":{status},\"bytes_received\":{received},\"bytes_sent\":{sent},\"duration_us\":{us},\
                 \"attempts\":{attempts},\"flags\":\"{flags}\"}}"
            ),
            LogFormat::Text => writeln!(line, " {status} {received} {sent} {us}us {attempts} {flags}"),
        };
        let full = {
            let mut batch = self.batch.borrow_mut();
            batch.bytes.extend_from_slice(line);
            batch.lines += 1;
            batch.bytes.len() >= BATCH_BYTES
        };
        if full { self.flush() } else { 0 }
    }

    /// Hands over what was gathered. Returns how many lines were dropped for want of room.
    pub fn flush(&self) -> u64 {
        let mut batch = self.batch.borrow_mut();
        if batch.bytes.is_empty() {
            return 0;
        }
        let lines = std::mem::take(&mut batch.lines);
        match self.lane.exchange(std::mem::take(&mut batch.bytes)) {
            Ok(empty) => {
                batch.bytes = empty;
                0
            }
            Err(mut full) => {
                full.clear();
                batch.bytes = full;
                lines
            }
        }
    }

    fn member(&self, line: &mut Vec<u8>, name: &str, value: Option<&str>) {
        match self.format {
            LogFormat::Json => {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(name.as_bytes());
                line.extend_from_slice(b"\":");
                match value {
                    None => line.extend_from_slice(b"null"),
                    Some(value) => json_string(line, value),
                }
            }
            LogFormat::Text => {
                line.push(b' ');
                text_word(line, value.unwrap_or("-"));
            }
        }
    }
}

fn json_string(line: &mut Vec<u8>, value: &str) {
    line.push(b'"');
    for character in value.chars() {
        match character {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            control if control.is_control() => {
                let _ = write!(line, "\\u{:04x}", control as u32);
            }
            plain => line.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    line.push(b'"');
}

/// A value as one word: what could end or forge a line is escaped.
fn text_word(line: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b' ' | b'\\' | 0..=0x1f | 0x7f => {
                let _ = write!(line, "\\x{byte:02x}");
            }
            plain => line.push(plain),
        }
    }
}

/// Opens the log and starts its writer, which calls `done` when the lane is closed and everything is written.
///
/// # Errors
/// The file cannot be opened, or no thread can be started.
pub fn start(target: &AccessLogTarget, done: impl FnOnce() + Send + 'static) -> std::io::Result<Lane> {
    let out: Box<dyn Write + Send> = match target {
        AccessLogTarget::Stdout => Box::new(std::io::stdout()),
        AccessLogTarget::File(path) => Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (lane, end) = lane(BATCHES);
    let write = move || {
        write(out, end);
        done();
    };
    std::thread::Builder::new().name("access-log".into()).spawn(write)?;
    Ok(lane)
}

fn write(mut out: Box<dyn Write + Send>, end: LaneEnd) {
    let mut failing = false;
    end.drain(|bytes| {
        let written = out.write_all(bytes).and_then(|()| out.flush());
        match written {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "the access log cannot be written; its lines are lost until it can");
            }
            Err(_) => {}
        }
    });
}

/// RFC 3339 in UTC, to the millisecond.
struct Timestamp(SystemTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = super::date::civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, path: &str) -> String {
        line_of(format, Some(OpeningHead { method: "GET", host: "example.com", path, version: "HTTP/1.1" }))
    }

    fn line_of(format: LogFormat, head: Option<OpeningHead<'_>>) -> String {
        let (lane, _end) = lane(1);
        let log = AccessLog::new(format, lane);
        let mut line = Vec::new();
        let opening = Opening {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            client: "192.0.2.1",
            listener: "public",
            request_id: "id",
            head,
        };
        log.open(&mut line, &opening);
        let closing = Closing {
            status: Some(200),
            received: 10,
            sent: 20,
            duration: Duration::from_micros(1500),
            upstream: Some("orders"),
            endpoint: None,
            attempts: 1,
            problem: None,
            flags: "-",
        };
        assert_eq!(log.close(&mut line, &closing), 0);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_json_line_parses_whatever_the_path_holds() {
        let text = line(LogFormat::Json, "/a\"b\\c\n\u{7f}é");
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["path"], "/a\"b\\c\n\u{7f}é");
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["endpoint"], serde_json::Value::Null);
        assert_eq!(value["duration_us"], 1500);
    }

    #[test]
    fn a_text_line_stays_one_line_of_as_many_words() {
        let text = line(LogFormat::Text, "/a b\r\nforged");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(text.split_whitespace().count(), line(LogFormat::Text, "/").split_whitespace().count());
    }

    #[test]
    fn a_line_of_which_little_is_known_has_as_many_members() {
        let text = line_of(LogFormat::Text, None);
        assert_eq!(text.split(' ').count(), line(LogFormat::Text, "/").split(' ').count(), "{text}");
        assert!(text.contains(" - - - - "), "{text}");
        let value: serde_json::Value = serde_json::from_str(&line_of(LogFormat::Json, None)).expect("JSON");
        for name in ["method", "host", "path", "version", "problem"] {
            assert_eq!(value.get(name), Some(&serde_json::Value::Null), "{name}");
        }
    }

    #[test]
    fn a_request_without_a_host_has_as_many_words() {
        let head = OpeningHead { method: "GET", host: "", path: "/", version: "HTTP/1.0" };
        let text = line_of(LogFormat::Text, Some(head));
        assert_eq!(text.split_whitespace().count(), line(LogFormat::Text, "/").split_whitespace().count(), "{text}");
    }

    #[test]
    fn lines_that_find_the_lane_full_are_dropped_and_counted() {
        let (lane, _end) = lane(1);
        let log = AccessLog::new(LogFormat::Text, lane);
        let closing = |log: &AccessLog| {
            let closing = Closing {
                status: None,
                received: 0,
                sent: 0,
                duration: Duration::ZERO,
                upstream: None,
                endpoint: None,
                attempts: 0,
                problem: None,
                flags: "-",
            };
            log.close(&mut vec![b'x'], &closing)
        };
        assert_eq!(closing(&log), 0);
        assert_eq!(log.flush(), 0);
        assert_eq!((closing(&log), closing(&log)), (0, 0));
        assert_eq!(log.flush(), 2);
    }
}
