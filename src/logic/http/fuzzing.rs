//! What must hold for any bytes at all. The fuzz targets call these functions, and a test replays the committed corpora through them.
//!
//! Each panics when its property does not hold. None needs a fuzzer.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::encode::{self, RequestEncoding};
use super::forwarded::{ClientText, Forwarding};
use super::h2::{RequestParts, write_request};
use super::{
    BodyFault, BodyFraming, BodyReader, FieldSlots, HeadLimits, HeadScan, Parsed, ResponseContext, parse_request,
    parse_response, target,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, fields: 24, target: 512 };
/// Prefixes of a head that are parsed as well: every one of short heads.
const PREFIXES: usize = 256;

/// A request head means the same wherever its bytes are cut, and holds nothing that could end a line or a head of ours.
pub fn request_head(bytes: &[u8]) {
    let mut slots = FieldSlots::new();
    let head = match parse_request(bytes, &mut slots, &LIMITS) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => return,
        Err(fault) => {
            let verdict = |cut: usize| parse_request(&bytes[..cut], &mut FieldSlots::new(), &LIMITS).map(|_| ());
            return assert_refused_once(bytes, fault, verdict);
        }
    };
    assert!(head.len <= bytes.len() && head.len <= LIMITS.bytes);
    for text in [head.path, head.host, head.method.as_str(), head.query.unwrap_or_default()] {
        assert!(text.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{text:?}");
    }
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && !value.iter().any(|byte| b"\r\n\0".contains(byte)), "{name:?}: {value:?}");
    }
    let mut scratch = String::new();
    if let Ok(path) = target::normalize(head.path, &mut scratch) {
        let path = path.to_owned();
        assert_eq!(target::normalize(&path, &mut String::new()), Ok(path.as_str()), "normalised twice");
    }
    let len = head.len;
    for cut in (0..len).take(PREFIXES) {
        let mut slots = FieldSlots::new();
        let prefix = parse_request(&bytes[..cut], &mut slots, &LIMITS);
        assert!(matches!(prefix, Ok(Parsed::Partial)), "{cut} of {len} bytes: {prefix:?}");
    }
    let mut scan = HeadScan::default();
    assert!(scan.complete(&bytes[..len], &LIMITS));
}

/// A request in HTTP/2 that is taken is one head in HTTP/1.1, and says there what it said before and nothing else. One field to a line, as
/// `name: value`; those that begin with a colon are pseudo-fields, and `:ended` says that nothing follows.
pub fn h2_request(bytes: &[u8]) {
    let (mut fields, mut method, mut path) = (HeaderMap::new(), Method::GET, "/");
    let (mut scheme, mut authority, mut ended) = (None, None, false);
    for line in bytes.split(|&byte| byte == b'\n') {
        let at = line.iter().skip(1).position(|&byte| byte == b':').map_or(line.len(), |at| at + 1);
        let (name, value) = (&line[..at], line.get(at + 2..).unwrap_or_default());
        let text = str::from_utf8(value).unwrap_or_default();
        match name {
            b":method" => method = Method::from_bytes(value).unwrap_or(Method::GET),
            b":path" => path = text,
            b":scheme" => scheme = Some(text),
            b":authority" => authority = Some(text),
            b":ended" => ended = true,
            _ => {
                if let (Ok(name), Ok(value)) = (HeaderName::from_lowercase(name), HeaderValue::from_bytes(value)) {
                    fields.append(name, value);
                }
            }
        }
    }
    let request = RequestParts { method: &method, scheme, authority, path, fields: &fields, ended };
    let mut written = Vec::new();
    if write_request(&mut written, &request, LIMITS.fields).is_err() {
        return;
    }
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_request(&written, &mut slots, &LIMITS) else { return };
    assert_eq!(head.len, written.len(), "it is one head");
    assert_eq!((head.method.as_str(), head.target), (method.as_str(), path));
    assert_eq!(head.framing == BodyFraming::None, ended && !fields.contains_key("content-length"));
    if let Some(authority) = authority {
        assert_eq!(head.host, authority);
    }
    for (name, value) in head.fields.iter() {
        let is_ours = [&b"Host"[..], b"Cookie", b"Transfer-Encoding"].contains(&name);
        let came = || fields.get_all(str::from_utf8(name).expect("a token")).iter().any(|it| it.as_bytes() == value);
        assert!(is_ours || came(), "{name:?}: {value:?}");
    }
    let crumbs = fields.get_all("cookie").iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    assert_eq!(head.fields.first("cookie").unwrap_or_default(), crumbs.join(&b"; "[..]));
}

/// A fault that a prefix already has stays, and none comes before the one of the whole.
fn assert_refused_once<F: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    fault: F,
    verdict: impl Fn(usize) -> Result<(), F>,
) {
    let mut refused = false;
    for cut in (0..=bytes.len()).take(PREFIXES) {
        match verdict(cut) {
            Ok(()) => assert!(!refused, "{cut} bytes are refused no more"),
            Err(early) => {
                assert_eq!(early, fault, "{cut} bytes");
                refused = true;
            }
        }
    }
}

/// The same for a response head, after a request of either kind.
pub fn response_head(bytes: &[u8]) {
    for head_request in [false, true] {
        let facts = ResponseContext { head_request, upgrade: head_request.then_some(b"websocket") };
        let mut slots = FieldSlots::new();
        let head = match parse_response(bytes, &mut slots, &LIMITS, facts) {
            Ok(Parsed::Complete(head)) => head,
            Ok(Parsed::Partial) => continue,
            Err(fault) => {
                let verdict =
                    |cut: usize| parse_response(&bytes[..cut], &mut FieldSlots::new(), &LIMITS, facts).map(|_| ());
                assert_refused_once(bytes, fault, verdict);
                continue;
            }
        };
        assert!((100..600).contains(&head.status) && head.len <= bytes.len());
        assert!(!head_request || head.framing == BodyFraming::None);
        assert_eq!(head.is_switching(), head.upgrade.is_some());
        let len = head.len;
        for cut in (0..len).take(PREFIXES) {
            let mut slots = FieldSlots::new();
            let prefix = parse_response(&bytes[..cut], &mut slots, &LIMITS, facts);
            assert!(matches!(prefix, Ok(Parsed::Partial)), "{cut} of {len} bytes: {prefix:?}");
        }
    }
}

/// Chunks mean the same in one piece and in pieces as long as the first byte says.
pub fn chunked(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    let pieces = read(bytes, usize::from(*first).max(1));
    assert_eq!(whole, pieces);
}

/// What a body comes to: content, trailers, how many bytes it takes; or the fault.
type Body = Result<(Vec<u8>, Vec<u8>, usize), BodyFault>;

fn read(bytes: &[u8], piece: usize) -> Body {
    let mut reader = BodyReader::new(BodyFraming::Chunked);
    let (mut content, mut taken) = (Vec::new(), 0);
    while taken < bytes.len() && !reader.is_complete() {
        let mut buffer = bytes[taken..bytes.len().min(taken + piece)].to_vec();
        let decoded = reader.decode(&mut buffer)?;
        assert!(decoded.complete || decoded.consumed == buffer.len());
        content.extend_from_slice(&buffer[decoded.content]);
        taken += decoded.consumed;
    }
    reader.end_of_stream()?;
    Ok((content, reader.trailers().to_vec(), taken))
}

/// A head that was parsed, encoded and parsed again is the same message.
pub fn round_trip(bytes: &[u8]) {
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_request(bytes, &mut slots, &LIMITS) else { return };
    let client = ClientText::unknown();
    let plan = RequestEncoding {
        path: head.path,
        query: head.query,
        host: head.host,
        framing: head.framing,
        forwarding: Forwarding {
            client_cert: None,
            client: &client,
            proto: "http",
            host: "",
            trusted: false,
            x_forwarded: false,
            forwarded: false,
        },
        request_id: None,
        edits: &encode::NO_EDITS,
        expect_continue: head.expect_continue,
        upgrade: head.upgrade.is_some(),
    };
    let mut out = Vec::new();
    encode::request(&mut out, &head, &plan);
    if head.host.is_empty() {
        // HTTP/1.0 without a host: the gateway puts the upstream's in, and this does not.
        return;
    }
    let roomy = HeadLimits { bytes: 64 * 1024, fields: 128, target: 4096 };
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(again)) = parse_request(&out, &mut slots, &roomy) else {
        panic!("our own head does not parse: {:?}", String::from_utf8_lossy(&out))
    };
    assert_eq!(again.len, out.len());
    assert_eq!((again.method, again.path, again.query), (head.method, head.path, head.query));
    assert_eq!((again.host, again.framing), (head.host, head.framing));
    assert_eq!((again.expect_continue, again.te_trailers), (head.expect_continue, head.te_trailers));
    assert_eq!(again.upgrade, head.upgrade);
    assert_eq!(again.max_forwards, head.max_forwards.map(|forwards| forwards.saturating_sub(1)));
}
