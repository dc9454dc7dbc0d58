//! What the fields of one head say about its connection and its framing, gathered in the one pass that parses them.

use super::fields::{FieldFault, FieldKind, FieldSlots, Fields, Line, Step, is_protected, next_line, step};
use super::head::{Version, decimal};
use super::octets;

/// Options of all `Connection` fields together. Real ones list two or three.
const CONNECTION_OPTIONS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Facts<'b> {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade_option: bool,
    /// There is a `Date`.
    pub(super) dated: bool,
    /// `TE: trailers` (RFC 9110 section 10.1.4).
    pub(super) te_trailers: bool,
    upgrade: Once<'b>,
    pub(super) host: Once<'b>,
    pub(super) expect: Once<'b>,
    pub(super) max_forwards: Once<'b>,
    options: usize,
    nominates: bool,
}

/// A field that may come once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Once<'b> {
    #[default]
    Absent,
    Value(&'b [u8]),
    Repeated,
}

impl<'b> Once<'b> {
    fn note(&mut self, value: &'b [u8]) {
        *self = if *self == Once::Absent { Once::Value(value) } else { Once::Repeated };
    }
}

impl<'b> Facts<'b> {
    /// Parses the field lines that begin at `at`, up to and including the empty line, and gathers what they say. Gives them and where the head
    /// ends; `None`: not all here.
    pub(super) fn gather(
        &mut self,
        bytes: &'b [u8],
        mut at: usize,
        slots: &'b mut FieldSlots,
        max_fields: usize,
        version: Version,
    ) -> Result<Option<(Fields<'b>, usize)>, FieldFault> {
        let (room, _) = slots.lines.split_at_mut(max_fields);
        let mut surplus = Line::EMPTY;
        let mut count = 0;
        loop {
            let line = room.get_mut(count).unwrap_or(&mut surplus);
            match step(bytes, at, line)? {
                Step::Line => {}
                Step::End => break,
                Step::Partial => return Ok(None),
            }
            if count == max_fields {
                return Err(FieldFault::TooMany);
            }
            if line.kind != FieldKind::EndToEnd {
                self.note(line.kind, line.value(bytes), version)?;
            }
            at = next_line(bytes, line);
            count += 1;
        }
        let lines = &mut room[..count];
        if self.nominates {
            nominate(bytes, lines);
        }
        Ok(Some((Fields { bytes, lines, nominates: self.nominates }, at + 2)))
    }

    fn note(&mut self, kind: FieldKind, value: &'b [u8], version: Version) -> Result<(), FieldFault> {
        match kind {
            FieldKind::Connection => return self.note_connection(value),
            FieldKind::ContentLength => {
                if self.content_length.is_some() {
                    return Err(FieldFault::RepeatedContentLength);
                }
                self.content_length = Some(decimal(value).ok_or(FieldFault::BadContentLength)?);
            }
            FieldKind::TransferEncoding => self.note_transfer_encoding(value, version)?,
            FieldKind::Date => self.dated = true,
            FieldKind::Expect => self.expect.note(value),
            FieldKind::Host => self.host.note(value),
            FieldKind::MaxForwards => self.max_forwards.note(value),
            FieldKind::Te => {
                self.te_trailers |= octets::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
            }
            FieldKind::Upgrade => self.upgrade.note(value),
            FieldKind::EndToEnd | FieldKind::HopByHop | FieldKind::Underscored | FieldKind::Nominated => {}
            FieldKind::Forwarded | FieldKind::Trailer | FieldKind::XForwardedFor | FieldKind::XForwardedHost => {}
            FieldKind::XForwardedPort | FieldKind::XForwardedProto | FieldKind::XForwardedOther => {}
            FieldKind::ClientCert | FieldKind::XRealIp => {}
        }
        if self.chunked && self.content_length.is_some() {
            return Err(FieldFault::LengthAndTransferEncoding);
        }
        Ok(())
    }

    /// Only `chunked` alone is understood (RFC 9112 section 6.1). A list that ends in `chunked` is well-formed and needs codings we do not have;
    /// one that does not end so has no length that both sides agree on.
    fn note_transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), FieldFault> {
        if version == Version::Http10 {
            return Err(FieldFault::TransferEncodingInHttp10);
        }
        if self.chunked {
            return Err(FieldFault::RepeatedTransferEncoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let is_chunked = |coding: &[u8]| octets::trim(coding).eq_ignore_ascii_case(b"chunked");
        let mut codings = value.rsplit(|&byte| byte == b',');
        let ends_chunked = codings.next().is_some_and(is_chunked);
        let others_are_foreign = codings.all(|coding| octets::is_token(octets::trim(coding)) && !is_chunked(coding));
        Err(match ends_chunked && others_are_foreign {
            true => FieldFault::UnsupportedTransferCoding,
            false => FieldFault::BadTransferEncoding,
        })
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), FieldFault> {
        for option in octets::list(value) {
            self.options += 1;
            if self.options > CONNECTION_OPTIONS_MAX {
                return Err(FieldFault::TooManyConnectionOptions);
            }
            match option.len() {
                5 if octets::is_in_any_case(option, b"close") => self.close = true,
                10 if octets::is_in_any_case(option, b"keep-alive") => self.keep_alive = true,
                7 if octets::is_in_any_case(option, b"upgrade") => self.upgrade_option = true,
                _ if !octets::is_token(option) => return Err(FieldFault::BadConnectionOption),
                _ if is_protected(option) => return Err(FieldFault::ProtectedConnectionOption),
                // Fields of other kinds never go further than here, trailers of their names included.
                _ => self.nominates |= FieldKind::of(option) == FieldKind::EndToEnd,
            }
        }
        Ok(())
    }

    /// Whether the connection outlives this message, as far as its sender says (RFC 9112 section 9.3).
    pub(super) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The protocols that the sender asks for or, in a response, agrees to. They need the `upgrade` option, since `Upgrade` alone may be
    /// somebody else's (RFC 9110 section 7.8), and must not be another way to speak HTTP: behind an upgrade nothing is routed, limited
    /// or logged.
    pub(super) fn upgrade(&self, version: Version) -> Option<&'b [u8]> {
        let Once::Value(protocols) = self.upgrade else { return None };
        let asked = self.upgrade_option && version == Version::Http11 && octets::list(protocols).next().is_some();
        (asked && !octets::list(protocols).any(speaks_http)).then_some(protocols)
    }
}

/// `h2c`, `HTTP/2.0`, `TLS/1.2`: more HTTP, past everything that a gateway is for.
fn speaks_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next().unwrap_or(protocol);
    [b"h2c".as_slice(), b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// Marks the fields that `Connection` takes away. At most 32 options by 128 fields, compared by length first.
#[cold]
fn nominate(bytes: &[u8], lines: &mut [Line]) {
    for connection in 0..lines.len() {
        if lines[connection].kind != FieldKind::Connection {
            continue;
        }
        for option in octets::list(lines[connection].value(bytes)) {
            let would_go_on = |line: &&mut Line| matches!(line.kind, FieldKind::EndToEnd | FieldKind::Underscored);
            for line in lines.iter_mut().filter(would_go_on) {
                if line.name(bytes).eq_ignore_ascii_case(option) {
                    line.kind = FieldKind::Nominated;
                }
            }
        }
    }
}
