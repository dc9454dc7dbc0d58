//! What must hold for any bytes at all. The fuzz target calls this, and a test replays the committed corpus through it.

use super::text::LINE_BYTES_MAX;
use super::{Header, HeaderFault, Provenance, encode_v1, encode_v2, parse};
use crate::config::limits;
use crate::logic::http::Parsed;

/// A header means the same wherever its bytes are cut and whatever follows it, and written anew it says the same again.
pub fn header(bytes: &[u8]) {
    let verdict = parse(bytes);
    match verdict {
        Ok(Parsed::Complete(header)) => {
            let len = header.len;
            assert!((0..len).all(|cut| parse(&bytes[..cut]) == Ok(Parsed::Partial)));
            assert_eq!(parse(&bytes[..len]), verdict, "what follows has a say");
            assert_said_again(&header.provenance);
        }
        Ok(Parsed::Partial) => {
            assert!(bytes.len() < limits::PROXY_HEADER);
            assert!((0..bytes.len()).all(|cut| parse(&bytes[..cut]) == Ok(Parsed::Partial)));
        }
        Err(fault) => assert_refused_once(bytes, fault),
    }
}

/// A fault that a prefix already has stays, and none comes before the one of the whole.
fn assert_refused_once(bytes: &[u8], fault: HeaderFault) {
    let mut refused = false;
    for cut in 0..=bytes.len().min(limits::PROXY_HEADER) {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Partial) => assert!(!refused, "{cut} bytes are refused no more"),
            Ok(Parsed::Complete(header)) => panic!("{cut} bytes are {header:?}, more are {fault}"),
            Err(early) => {
                assert_eq!(early, fault, "{cut} bytes");
                refused = true;
            }
        }
    }
}

fn assert_said_again(provenance: &Provenance) {
    let mut line = Vec::new();
    encode_v1(&mut line, provenance);
    assert!(line.len() <= LINE_BYTES_MAX);
    let sayable = match provenance {
        Provenance::Proxied { .. } => *provenance,
        Provenance::Unix | Provenance::Unknown | Provenance::Local => Provenance::Unknown,
    };
    assert_says(&line, sayable);
    let mut binary = Vec::new();
    encode_v2(&mut binary, provenance);
    assert_says(&binary, *provenance);
}

fn assert_says(bytes: &[u8], provenance: Provenance) {
    let header = Header { len: bytes.len(), provenance, details: super::Details::default() };
    assert_eq!(parse(bytes), Ok(Parsed::Complete(header)), "{bytes:?}");
}
