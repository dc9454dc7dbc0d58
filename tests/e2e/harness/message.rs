//! HTTP/1.1 messages, read by a parser of the tests' own: strict, slow, and sharing nothing with Postern's.
//!
//! It reads a whole message or nothing, so it is simply run again when more bytes have come.

use std::fmt;

/// How a message says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It has no body, whatever its fields say.
    NoBody,
    Length,
    Chunked,
    /// A response that lasts until its connection is closed.
    UntilClose,
}

/// A request or a response.
#[derive(Clone, Debug)]
pub struct Message {
    pub first_line: String,
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Everything, as it came.
    pub raw: Vec<u8>,
}

/// What a message is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Request,
    /// The method of the request decides whether there is a body.
    ResponseTo(&'a str),
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// More is to come.
    Unfinished,
    Malformed(String),
}

type Result<T> = std::result::Result<T, Trouble>;

impl Message {
    /// Reads one message from the start of `bytes`; its length is that of `raw`. `ended` says that no more will come.
    pub fn parse(kind: Kind<'_>, bytes: &[u8], ended: bool) -> Result<Self> {
        let mut rest = bytes;
        let first_line = line(&mut rest)?;
        check_first_line(kind, &first_line)?;
        let fields = fields(&mut rest)?;
        let mut message =
            Self { first_line, fields, framing: Framing::NoBody, body: vec![], trailers: vec![], raw: vec![] };
        message.framing = message.find_framing(kind)?;
        match message.framing {
            Framing::NoBody => {}
            Framing::Length => {
                let length = message.content_length()?;
                message.body = take(&mut rest, length)?.to_vec();
            }
            Framing::Chunked => {
                message.body = chunks(&mut rest)?;
                message.trailers = self::fields(&mut rest)?;
            }
            Framing::UntilClose if ended => message.body = std::mem::take(&mut rest).to_vec(),
            Framing::UntilClose => return Err(Trouble::Unfinished),
        }
        message.raw = bytes[..bytes.len() - rest.len()].to_vec();
        Ok(message)
    }

    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line has a status")
    }

    pub fn method(&self) -> &str {
        self.first_line.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }

    /// All values of a field, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that may be there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} is there {} times in {self}", values.len());
        values.first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// The values of all trailer fields of this name.
    pub fn trailer(&self, name: &str) -> Vec<&str> {
        let of_name = self.trailers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether `Connection` lists this option.
    pub fn connection_has(&self, option: &str) -> bool {
        let values = self.values("connection");
        values.iter().flat_map(|value| value.split(',')).any(|member| member.trim().eq_ignore_ascii_case(option))
    }

    pub fn text(&self) -> String {
        latin1(&self.body)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    fn find_framing(&self, kind: Kind<'_>) -> Result<Framing> {
        let lengths = self.values("content-length").len();
        let codings = self.values("transfer-encoding");
        if let Kind::ResponseTo(method) = kind {
            let status = self.status();
            let is_tunnel = status == 101 || method == "CONNECT" && (200..300).contains(&status);
            if method == "HEAD" || status < 200 || status == 204 || status == 304 || is_tunnel {
                return Ok(Framing::NoBody);
            }
        }
        match (lengths, codings.as_slice()) {
            (0, []) if kind == Kind::Request => Ok(Framing::NoBody),
            (0, []) => Ok(Framing::UntilClose),
            (1, []) => Ok(Framing::Length),
            (0, [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            _ => malformed(format!("framing of {self}")),
        }
    }

    fn content_length(&self) -> Result<usize> {
        let value = self.field("content-length").unwrap_or_default();
        match value.parse() {
            Ok(length) if value.bytes().all(|byte| byte.is_ascii_digit()) => Ok(length),
            _ => malformed(format!("content-length {value:?}")),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "`{}`", self.first_line)?;
        for (name, value) in &self.fields {
            writeln!(out, "  {name}: {value}")?;
        }
        let body = latin1(&self.body[..self.body.len().min(400)]);
        write!(out, "  ({:?}, {} bytes of body: {body:?}, trailers {:?})", self.framing, self.body.len(), self.trailers)
    }
}

/// Bytes as text of which no byte is lost.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn malformed<T>(what: impl Into<String>) -> Result<T> {
    Err(Trouble::Malformed(what.into()))
}

fn check_first_line(kind: Kind<'_>, line: &str) -> Result<()> {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    let is_version = |word: &str| word == "HTTP/1.1" || word == "HTTP/1.0";
    let fine = match (kind, words.as_slice()) {
        (Kind::Request, [method, target, version]) => {
            method.bytes().all(is_token_byte) && !method.is_empty() && !target.is_empty() && is_version(version)
        }
        (Kind::ResponseTo(_), [version, status, ..]) => {
            is_version(version)
                && status.len() == 3
                && status.bytes().all(|byte| byte.is_ascii_digit())
                && *status >= "100"
        }
        _ => false,
    };
    if fine { Ok(()) } else { malformed(format!("first line {line:?} ({kind:?})")) }
}

/// Fields up to the empty line, which is taken too.
fn fields(rest: &mut &[u8]) -> Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        match line.split_once(':') {
            Some((name, value)) if !name.is_empty() && name.bytes().all(is_token_byte) => {
                fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
            }
            _ => return malformed(format!("field line {line:?}")),
        }
    }
}

fn chunks(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(rest)?;
        let is_hex = !size.is_empty() && size.len() <= 16 && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(size) = is_hex.then(|| usize::from_str_radix(&size, 16).ok()).flatten() else {
            return malformed(format!("chunk size line {size:?}"));
        };
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(take(rest, size)?);
        if take(rest, 2)? != b"\r\n" {
            return malformed("no line end after a chunk");
        }
    }
}

/// One line without its end, which must be CR LF; no other control byte than a tab may stand in it.
fn line(rest: &mut &[u8]) -> Result<String> {
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Err(Trouble::Unfinished) };
    let line = take(rest, end + 1)?;
    match line.strip_suffix(b"\r\n") {
        Some(text) if text.iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)) => Ok(latin1(text)),
        _ => malformed(format!("line {:?}", latin1(line))),
    }
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(length).ok_or(Trouble::Unfinished)?;
    *rest = left;
    Ok(taken)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
