//! Header fields: where they lie in a buffer, what each means to a proxy, and how one line is read.
//!
//! A field is looked at once, when its line is parsed; what it is to a proxy is kept beside its position, so that encoding asks nothing
//! again. Names are told apart by length and first letter: few fields of a message share both with one that matters.

use thiserror::Error;

use super::head::{LineEnd, line_end};
use super::octets::{self, CLASSES, TOKEN, UNDERSCORE};
use super::request_id;

/// Most field lines of one head. Browsers send about 20; 128 allows for crumbled cookies and tracing.
pub const MAX_FIELDS: usize = 128;

/// What a field is to a proxy. Only [`FieldKind::EndToEnd`] goes on as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    EndToEnd,
    /// Consumed here, whatever it says.
    HopByHop,
    /// A name with `_`, which CGI-like backends cannot tell from `-`: `X_Real_IP` would speak for `X-Real-IP`. Never forwarded.
    Underscored,
    /// Not hop-by-hop by its name, but the sender's `Connection` field takes it away.
    Nominated,
    /// Speaks for the certificate of a client (RFC 9440). Only we know what it was, so nobody else's word passes.
    ClientCert,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    MaxForwards,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    /// Any other `X-Forwarded-*`: backends trust `-Prefix`, `-Ssl`, `-User` and whatever comes to somebody's mind next.
    XForwardedOther,
    XRealIp,
}

/// Every name that means something to a proxy. Those of one length stand together.
const KNOWN: &[(&str, FieldKind)] = &[
    ("te", FieldKind::Te),
    ("host", FieldKind::Host),
    ("date", FieldKind::Date),
    ("expect", FieldKind::Expect),
    ("upgrade", FieldKind::Upgrade),
    ("trailer", FieldKind::Trailer),
    ("x-real-ip", FieldKind::XRealIp),
    ("forwarded", FieldKind::Forwarded),
    ("connection", FieldKind::Connection),
    ("keep-alive", FieldKind::HopByHop),
    ("client-cert", FieldKind::ClientCert),
    ("max-forwards", FieldKind::MaxForwards),
    ("content-length", FieldKind::ContentLength),
    ("x-forwarded-for", FieldKind::XForwardedFor),
    ("x-forwarded-host", FieldKind::XForwardedHost),
    ("x-forwarded-port", FieldKind::XForwardedPort),
    ("proxy-connection", FieldKind::HopByHop),
    ("client-cert-chain", FieldKind::ClientCert),
    ("transfer-encoding", FieldKind::TransferEncoding),
    ("x-forwarded-proto", FieldKind::XForwardedProto),
    ("proxy-authenticate", FieldKind::HopByHop),
    ("proxy-authorization", FieldKind::HopByHop),
];

/// What the names of all fields begin with that speak for a client.
const X_FORWARDED: &[u8] = b"x-forwarded-";

/// Names of the table are shorter than this.
const KNOWN_BYTES: usize = 20;

/// Of every length and first letter, the place of the first such name in the table: most fields are told apart by these two alone.
static PLACES: [[u8; LETTERS]; KNOWN_BYTES] = places();

const NO_PLACE: u8 = u8::MAX;
const LETTERS: usize = 32;

const fn places() -> [[u8; LETTERS]; KNOWN_BYTES] {
    let mut places = [[NO_PLACE; LETTERS]; KNOWN_BYTES];
    let mut place = KNOWN.len();
    while place > 0 {
        place -= 1;
        let name = KNOWN[place].0.as_bytes();
        places[name.len()][letter(name[0])] = place as u8;
    }
    places
}

/// One of 32 numbers, the same for both cases of a letter.
const fn letter(byte: u8) -> usize {
    (byte & 0x1f) as usize
}

impl FieldKind {
    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        let Some(&first) = name.first() else { return FieldKind::EndToEnd };
        match PLACES.get(name.len()).map(|places| places[letter(first)]) {
            Some(place) if place != NO_PLACE => FieldKind::known(name, place),
            _ if first | 0x20 == b'x' => FieldKind::unlisted(name),
            _ => FieldKind::EndToEnd,
        }
    }

    /// What the table says of `name`, whose like stand in it from `place` on.
    fn known(name: &[u8], place: u8) -> Self {
        let alike = KNOWN[usize::from(place)..].iter().take_while(|(known, _)| known.len() == name.len());
        let mut same = alike.filter(|(known, _)| octets::is_in_any_case(name, known.as_bytes()));
        same.next().map_or_else(|| FieldKind::unlisted(name), |(_, kind)| *kind)
    }

    /// A name that the table does not have.
    #[inline]
    fn unlisted(name: &[u8]) -> Self {
        match name.get(..X_FORWARDED.len()) {
            Some(start) if octets::is_in_any_case(start, X_FORWARDED) => FieldKind::XForwardedOther,
            _ => FieldKind::EndToEnd,
        }
    }
}

/// Fields that routing, framing or access depends on, beyond those with a [`FieldKind`] of their own. A `Connection` field that names
/// one wants a proxy to lose it on the way (RFC 9110 section 7.6.1 forbids it), and a trailer of that name wants to change what was
/// already decided (section 6.5.1): the first is refused, the second dropped.
#[rustfmt::skip]
const PROTECTED: &[(&str, &str)] = &[
    ("age",                 "a cache's arithmetic"),
    ("authorization",       "proves who asks"),
    ("cache-control",       "says who may see a stored copy"),
    ("content-encoding",    "says how to read the content"),
    ("content-range",       "says which part the content is"),
    ("content-type",        "says how to read the content"),
    ("cookie",              "proves who asks"),
    ("expires",             "a cache's arithmetic"),
    ("if-match",            "decides whether the request happens"),
    ("if-modified-since",   "decides whether the request happens"),
    ("if-none-match",       "decides whether the request happens"),
    ("if-range",            "decides which part is sent"),
    ("if-unmodified-since", "decides whether the request happens"),
    ("location",            "says where to go"),
    ("origin",              "what cross-site checks look at"),
    ("pragma",              "an old cache-control"),
    ("range",               "decides which part is sent"),
    ("set-cookie",          "hands out what proves who asks"),
    ("vary",                "says who may see a stored copy"),
    ("via",                 "how loops are found"),
    ("www-authenticate",    "says how to prove who asks"),
];

/// Whether a sender may neither take `name` away by nominating it in `Connection` nor change it in a trailer.
pub(super) fn is_protected(name: &[u8]) -> bool {
    match FieldKind::of(name) {
        FieldKind::EndToEnd => PROTECTED.iter().any(|(known, _)| octets::is_in_any_case(name, known.as_bytes())),
        FieldKind::HopByHop | FieldKind::Te | FieldKind::Trailer | FieldKind::Upgrade => false,
        FieldKind::Connection | FieldKind::ContentLength | FieldKind::Expect | FieldKind::Host => true,
        FieldKind::ClientCert | FieldKind::Date | FieldKind::MaxForwards => true,
        FieldKind::Forwarded | FieldKind::TransferEncoding | FieldKind::XForwardedFor | FieldKind::XForwardedHost => {
            true
        }
        FieldKind::XForwardedPort | FieldKind::XForwardedProto | FieldKind::XForwardedOther => true,
        FieldKind::XRealIp => true,
        FieldKind::Underscored | FieldKind::Nominated => unreachable!("not told from a name's spelling"),
    }
}

/// Whether a trailer field of this name is dropped: it is protected, means something on one connection only, or is for us to write.
pub(super) fn is_forbidden_trailer(name: &[u8]) -> bool {
    let is_request_id = || name.eq_ignore_ascii_case(request_id::FIELD.as_bytes());
    name.contains(&b'_') || FieldKind::of(name) != FieldKind::EndToEnd || is_protected(name) || is_request_id()
}

/// Where one field line lies in the bytes it was parsed from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) name_end: u32,
    pub(super) value_start: u32,
    pub(super) value_end: u32,
    pub(super) kind: FieldKind,
    /// Written as we would write it: `name: value` CRLF, so that its bytes can be copied with its neighbours'.
    pub(super) canonical: bool,
}

impl Line {
    pub(super) const EMPTY: Line =
        Line { start: 0, name_end: 0, value_start: 0, value_end: 0, kind: FieldKind::HopByHop, canonical: false };

    pub(super) fn name<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.start as usize..self.name_end as usize]
    }

    pub(super) fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.value_start as usize..self.value_end as usize]
    }
}

/// Room for the positions of one head's fields. It is 2.5 KiB and has no tie to a buffer: keep one and use it for every head.
#[derive(Debug)]
pub struct FieldSlots {
    pub(super) lines: [Line; MAX_FIELDS],
}

impl FieldSlots {
    pub const fn new() -> Self {
        FieldSlots { lines: [Line::EMPTY; MAX_FIELDS] }
    }
}

impl Default for FieldSlots {
    fn default() -> Self {
        FieldSlots::new()
    }
}

/// The fields of a head, in the order they came.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) lines: &'b [Line],
    /// `Connection` takes fields away that would be end-to-end by their names, perhaps among the trailers.
    pub(super) nominates: bool,
}

impl<'b> Fields<'b> {
    /// Every field's name and value, those that are not forwarded included.
    pub fn iter(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.lines.iter().map(move |line| (line.name(bytes), line.value(bytes)))
    }

    /// The value of the first field of this name; `name` in any case.
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn of_kind(&self, kind: FieldKind) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let bytes = self.bytes;
        self.lines.iter().filter(move |line| line.kind == kind).map(move |line| line.value(bytes))
    }
}

/// Why the fields of a head or the trailers of a body were refused. All but the marked ones mean 400 from a client; from an upstream
/// any of them means 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FieldFault {
    #[error("a field line has no name")]
    EmptyName,
    #[error("a field name holds a byte that names may not hold")]
    BadName,
    #[error("there is white space between a field name and its colon")]
    SpaceBeforeColon,
    #[error("a field line begins with white space")]
    FoldedLine,
    #[error("a carriage return stands alone")]
    BareCarriageReturn,
    #[error("a line feed stands alone")]
    BareLineFeed,
    #[error("a field value holds a control character")]
    ControlCharacter,
    /// 431.
    #[error("there are too many field lines")]
    TooMany,
    #[error("Content-Length is not one plain decimal number")]
    BadContentLength,
    #[error("Content-Length is given more than once")]
    RepeatedContentLength,
    #[error("both Content-Length and Transfer-Encoding are given")]
    LengthAndTransferEncoding,
    #[error("Transfer-Encoding is not exactly \"chunked\"")]
    BadTransferEncoding,
    #[error("Transfer-Encoding is given more than once")]
    RepeatedTransferEncoding,
    /// 501.
    #[error("Transfer-Encoding names a coding that is not supported")]
    UnsupportedTransferCoding,
    #[error("Transfer-Encoding is not part of HTTP/1.0")]
    TransferEncodingInHttp10,
    #[error("a Connection option is not a token")]
    BadConnectionOption,
    #[error("there are too many Connection options")]
    TooManyConnectionOptions,
    #[error("Connection lists a field that must reach the other end")]
    ProtectedConnectionOption,
}

impl FieldFault {
    /// The status for the client that sent this.
    pub fn status(self) -> u16 {
        match self {
            FieldFault::TooMany => 431,
            FieldFault::UnsupportedTransferCoding => 501,
            _ => 400,
        }
    }

    /// A stable name for documentation and metrics.
    pub fn slug(self) -> &'static str {
        match self {
            FieldFault::EmptyName | FieldFault::BadName => "bad-field-name",
            FieldFault::SpaceBeforeColon => "space-before-colon",
            FieldFault::FoldedLine => "folded-field",
            FieldFault::BareCarriageReturn | FieldFault::BareLineFeed => "bad-line-end",
            FieldFault::ControlCharacter => "bad-field-value",
            FieldFault::TooMany => "too-many-fields",
            FieldFault::BadContentLength | FieldFault::RepeatedContentLength => "bad-content-length",
            FieldFault::LengthAndTransferEncoding => "ambiguous-length",
            FieldFault::BadTransferEncoding
            | FieldFault::RepeatedTransferEncoding
            | FieldFault::TransferEncodingInHttp10 => "bad-transfer-encoding",
            FieldFault::UnsupportedTransferCoding => "unsupported-transfer-coding",
            FieldFault::BadConnectionOption
            | FieldFault::TooManyConnectionOptions
            | FieldFault::ProtectedConnectionOption => "bad-connection-option",
        }
    }
}

/// What stands at the beginning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A field.
    Line,
    /// The empty line, up to and including its CRLF.
    End,
    Partial,
}

/// Reads what stands at `start`, the beginning of a line; a field's position is written to `line`.
///
/// Not returned, because a line in a `Result` travels through memory in pieces that do not fit those in which it was written, and waiting for them
/// takes longer than reading the line did.
#[inline]
pub(super) fn step(bytes: &[u8], start: usize, line: &mut Line) -> Result<Step, FieldFault> {
    let mut name_end = octets::word_end(bytes, start);
    let mut seen = 0;
    let stop = loop {
        let Some(&byte) = bytes.get(name_end) else { return Ok(Step::Partial) };
        let class = CLASSES[usize::from(byte)];
        if class & TOKEN == 0 {
            break byte;
        }
        seen |= class;
        name_end += 1;
    };
    if stop != b':' || name_end == start {
        return no_name(bytes, start, name_end);
    }
    let name = &bytes[start..name_end];
    let kind = if seen & UNDERSCORE != 0 { FieldKind::Underscored } else { FieldKind::of(name) };

    let mut value_start = name_end + 1;
    while let Some(b' ' | b'\t') = bytes.get(value_start) {
        value_start += 1;
    }
    let mut at = octets::value_end(bytes, value_start);
    match line_end(&bytes[at..]) {
        LineEnd::Ended => {}
        LineEnd::Partial => return Ok(Step::Partial),
        LineEnd::BareCarriageReturn => return Err(FieldFault::BareCarriageReturn),
        LineEnd::BareLineFeed => return Err(FieldFault::BareLineFeed),
        LineEnd::Other => return Err(FieldFault::ControlCharacter),
    }
    let end = at;
    while at > value_start && matches!(bytes[at - 1], b' ' | b'\t') {
        at -= 1;
    }
    let canonical = value_start == name_end + 2 && bytes[name_end + 1] == b' ' && at == end;
    let [start, name_end, value_start, value_end] = [start, name_end, value_start, at].map(|position| position as u32);
    *line = Line { start, name_end, value_start, value_end, kind, canonical };
    Ok(Step::Line)
}

/// Where the line that begins at `line` ends, behind its CRLF.
#[inline]
pub(super) fn next_line(bytes: &[u8], line: &Line) -> usize {
    let mut at = line.value_end as usize;
    if line.canonical {
        return at + 2;
    }
    while bytes[at] != b'\n' {
        at += 1;
    }
    at + 1
}

/// The line does not begin with a name and a colon: it is empty, or wrong.
#[cold]
fn no_name(bytes: &[u8], start: usize, name_end: usize) -> Result<Step, FieldFault> {
    let byte = bytes[name_end];
    if name_end > start {
        return Err(match byte {
            b' ' | b'\t' => FieldFault::SpaceBeforeColon,
            b'\n' => FieldFault::BareLineFeed,
            _ => FieldFault::BadName,
        });
    }
    match line_end(&bytes[start..]) {
        LineEnd::Ended => Ok(Step::End),
        LineEnd::Partial => Ok(Step::Partial),
        LineEnd::BareCarriageReturn => Err(FieldFault::BareCarriageReturn),
        LineEnd::BareLineFeed => Err(FieldFault::BareLineFeed),
        LineEnd::Other => Err(match byte {
            b' ' | b'\t' => FieldFault::FoldedLine,
            b':' => FieldFault::EmptyName,
            _ => FieldFault::BadName,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlisted(name: &[u8]) -> FieldKind {
        let other = name.to_ascii_lowercase().starts_with(b"x-forwarded-");
        if other { FieldKind::XForwardedOther } else { FieldKind::EndToEnd }
    }

    #[test]
    fn names_are_known_in_any_case_and_by_nothing_less() {
        let names = [
            ("TE", FieldKind::Te),
            ("Date", FieldKind::Date),
            ("Host", FieldKind::Host),
            ("Expect", FieldKind::Expect),
            ("Max-Forwards", FieldKind::MaxForwards),
            ("Client-Cert", FieldKind::ClientCert),
            ("Client-Cert-Chain", FieldKind::ClientCert),
            ("Upgrade", FieldKind::Upgrade),
            ("Trailer", FieldKind::Trailer),
            ("X-Real-IP", FieldKind::XRealIp),
            ("Forwarded", FieldKind::Forwarded),
            ("Keep-Alive", FieldKind::HopByHop),
            ("Connection", FieldKind::Connection),
            ("Content-Length", FieldKind::ContentLength),
            ("X-Forwarded-For", FieldKind::XForwardedFor),
            ("Proxy-Connection", FieldKind::HopByHop),
            ("X-Forwarded-Host", FieldKind::XForwardedHost),
            ("X-Forwarded-Port", FieldKind::XForwardedPort),
            ("X-Forwarded-Proto", FieldKind::XForwardedProto),
            ("X-Forwarded-Prefix", FieldKind::XForwardedOther),
            ("X-Forwarded-Client-Cert", FieldKind::XForwardedOther),
            ("Transfer-Encoding", FieldKind::TransferEncoding),
            ("Proxy-Authenticate", FieldKind::HopByHop),
            ("Proxy-Authorization", FieldKind::HopByHop),
        ];
        for (name, kind) in names {
            for spelling in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(FieldKind::of(spelling.as_bytes()), kind, "{spelling}");
            }
            for position in 0..name.len() {
                let mut other = name.as_bytes().to_vec();
                other[position] = b'!';
                assert_eq!(FieldKind::of(&other), unlisted(&other), "{}", other.escape_ascii());
            }
            let longer = format!("{name}x");
            assert_eq!(FieldKind::of(longer.as_bytes()), unlisted(longer.as_bytes()));
        }
    }

    #[test]
    fn what_may_not_be_nominated_may_not_be_a_trailer() {
        for (name, _) in PROTECTED {
            assert!(is_protected(name.to_uppercase().as_bytes()), "{name}");
            assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Expect",
            "X-Forwarded-For",
            "X-Forwarded-User",
            "Client-Cert",
            "Client-Cert-Chain",
            "Max-Forwards",
            "Date",
        ] {
            assert!(is_protected(name.as_bytes()) && is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization"] {
            assert!(!is_protected(name.as_bytes()) && is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["X-Checksum", "Server-Timing", "Grpc-Status"] {
            assert!(!is_protected(name.as_bytes()) && !is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        assert!(is_forbidden_trailer(b"x_checksum") && is_forbidden_trailer(b"x-request-id"));
    }
}
