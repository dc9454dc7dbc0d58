//! The chunked coding as a dialogue: what comes in, what content comes out, whatever the pieces.

use super::super::framing::{BodyFraming, BodyReader};
use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Body {
    content: Vec<u8>,
    trailers: Vec<u8>,
    /// Bytes behind the message.
    surplus: usize,
}

/// Feeds `bytes` in pieces of at most `piece` bytes, the first of which has `first`.
fn read_in_pieces(framing: BodyFraming, bytes: &[u8], first: usize, piece: usize) -> Result<Body, BodyFault> {
    let mut reader = BodyReader::new(framing);
    let mut body = Body { content: Vec::new(), trailers: Vec::new(), surplus: 0 };
    let mut at = 0;
    let mut size = first;
    while at < bytes.len() && !reader.is_complete() {
        let end = bytes.len().min(at + size);
        let mut buffer = bytes[at..end].to_vec();
        let decoded = reader.decode(&mut buffer)?;
        assert!(decoded.complete || decoded.consumed == buffer.len(), "everything is taken before the end");
        body.content.extend_from_slice(&buffer[decoded.content]);
        at += decoded.consumed;
        size = piece;
    }
    reader.end_of_stream()?;
    body.trailers.extend_from_slice(reader.trailers());
    body.surplus = bytes.len() - at;
    Ok(body)
}

/// The one outcome of all ways to cut `bytes` into two, and into single bytes.
fn read(framing: BodyFraming, bytes: &[u8]) -> Result<Body, BodyFault> {
    let whole = read_in_pieces(framing, bytes, bytes.len().max(1), 1);
    for first in 1..=bytes.len() {
        for piece in [1, 3, bytes.len()] {
            let cut = read_in_pieces(framing, bytes, first, piece);
            assert_eq!(cut, whole, "{first} then {piece} of {:?}", bytes.escape_ascii().to_string());
        }
    }
    whole
}

#[test]
fn chunked_bodies_are_read_as_rfc_9112_section_7_1_says() {
    let cases: &[(&str, &str, &str, usize)] = &[
        ("0\r\n\r\n", "", "", 0),
        ("000\r\n\r\n", "", "", 0),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", "", 0),
        ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", "", 0),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "", 0),
        ("0000000000000001\r\na\r\n0\r\n\r\n", "a", "", 0),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "", 0),
        ("1\r\na\r\n0\r\n\r\nGET / HTTP/1.1", "a", "", 14),
        // Extensions are dropped.
        ("1;a\r\nb\r\n0;c=d\r\n\r\n", "b", "", 0),
        ("1 ; a=\"b;\\\"c\" ;d\t= e\r\nf\r\n0\r\n\r\n", "f", "", 0),
        ("1;\r\na\r\n0\r\n\r\n", "a", "", 0),
        // Trailers: section 7.1.2.
        ("0\r\nA: b\r\n\r\n", "", "A: b\r\n", 0),
        ("1\r\na\r\n0\r\nA: b\r\nC:d \r\n\r\nx", "a", "A: b\r\nC:d \r\n", 1),
        ("0\r\nContent-Length: 5\r\nA: b\r\nHost: c\r\n\r\n", "", "A: b\r\n", 0),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", "", "", 0),
        ("0\r\nAuthorization: a\r\nSet-Cookie: b\r\nConnection: c\r\nTrailer: d\r\nX_A: e\r\n\r\n", "", "", 0),
        ("0\r\nX-Forwarded-For: a\r\nContent-Type: b\r\nCache-Control: c\r\nTE: d\r\n\r\n", "", "", 0),
    ];
    for (bytes, content, trailers, surplus) in cases {
        let expected =
            Body { content: content.as_bytes().to_vec(), trailers: trailers.as_bytes().to_vec(), surplus: *surplus };
        assert_eq!(read(BodyFraming::Chunked, bytes.as_bytes()), Ok(expected), "{bytes:?}");
    }
}

#[test]
fn malformed_chunks_are_refused() {
    use BodyFault::*;
    let long_extension = format!("1;{}\r\n", "a".repeat(256));
    let cases: &[(&str, BodyFault)] = &[
        ("\r\n", BadChunkSize),
        ("g\r\n", BadChunkSize),
        ("+5\r\nhello", BadChunkSize),
        ("-1\r\n", BadChunkSize),
        (" 5\r\nhello", BadChunkSize),
        ("0x5\r\nhello", BadChunkSize),
        ("5_0\r\n", BadChunkSize),
        (";a\r\n", BadChunkSize),
        ("5 \r\nhello", BadChunkSize),
        ("5 5\r\nhello", BadChunkSize),
        ("5\t\r\nhello", BadChunkSize),
        ("5\x0b\r\nhello", BadChunkSize),
        ("00000000000000001\r\n", BadChunkSize),
        ("fffffffffffffffff\r\n", BadChunkSize),
        // Line ends: where smuggling lives.
        ("5\nhello\r\n", BadChunkEnd),
        ("5\rhello\r\n", BadChunkEnd),
        ("5\r\rhello\r\n", BadChunkEnd),
        ("5\r\nhello\n0\r\n\r\n", BadChunkEnd),
        ("5\r\nhello\r0\r\n\r\n", BadChunkEnd),
        ("5\r\nhelloX", BadChunkEnd),
        ("5\r\nhello\r\r", BadChunkEnd),
        ("5\r\nhello\r\n\r\n", BadChunkSize),
        ("1;a\nb\r\n", BadChunkExtension),
        ("1;a\rb\r\n", BadChunkEnd),
        ("1;a=\"\n\"\r\nb\r\n", BadChunkExtension),
        ("1;\x00\r\n", BadChunkExtension),
        ("1;\x7f\r\n", BadChunkExtension),
        (&long_extension, ChunkExtensionTooLong),
        // Trailers.
        ("0\r\nA : b\r\n\r\n", BadTrailer(FieldFault::SpaceBeforeColon)),
        ("0\r\nA: b\n\r\n", BadTrailer(FieldFault::BareLineFeed)),
        ("0\r\n\n", BadTrailer(FieldFault::BareLineFeed)),
        ("0\r\n\rA", BadTrailer(FieldFault::BareCarriageReturn)),
        ("0\r\nA: b\r\n c\r\n\r\n", BadTrailer(FieldFault::FoldedLine)),
        ("0\r\nA\r\n\r\n", BadTrailer(FieldFault::BadName)),
        ("0\r\nA: \x00\r\n\r\n", BadTrailer(FieldFault::ControlCharacter)),
        // The end.
        ("", Truncated),
        ("5", Truncated),
        ("5\r\nhell", Truncated),
        ("5\r\nhello", Truncated),
        ("5\r\nhello\r\n", Truncated),
        ("0\r\n", Truncated),
        ("0\r\nA: b\r\n", Truncated),
        ("0\r\n\r", Truncated),
    ];
    for (bytes, fault) in cases {
        assert_eq!(read(BodyFraming::Chunked, bytes.as_bytes()), Err(*fault), "{bytes:?}");
    }
}

#[test]
fn what_is_no_content_is_bounded() {
    let whole = |bytes: &str| read_in_pieces(BodyFraming::Chunked, bytes.as_bytes(), bytes.len(), 1).map(|_| ());
    let end = "0\r\n\r\n";

    let chunk = |extension: usize| format!("1;{}\r\na\r\n", "b".repeat(extension - 1));
    assert_eq!(whole(&(chunk(256) + end)), Ok(()));
    assert_eq!(whole(&(chunk(256).repeat(64) + end)), Ok(()));
    assert_eq!(whole(&(chunk(256).repeat(64) + &chunk(1) + end)), Err(BodyFault::ChunkExtensionTooLong));

    let trailers =
        |count: usize, bytes: usize| format!("0\r\n{}\r\n", format!("A: {}\r\n", "b".repeat(bytes - 5)).repeat(count));
    assert_eq!(whole(&trailers(32, 256)), Ok(()));
    assert_eq!(whole(&trailers(33, 8)), Err(BodyFault::TrailersTooLong));
    assert_eq!(whole(&trailers(1, 8192)), Ok(()));
    assert_eq!(whole(&trailers(1, 8193)), Err(BodyFault::TrailersTooLong));
    assert_eq!(whole(&format!("0\r\n{}", "a".repeat(8193))), Err(BodyFault::TrailersTooLong));
    let dropped = "0\r\n".to_owned() + &"Host: a\r\n".repeat(33);
    assert_eq!(whole(&dropped), Err(BodyFault::TrailersTooLong));
}

#[test]
fn a_single_piece_of_content_stays_where_it_is() {
    let mut reader = BodyReader::new(BodyFraming::Chunked);
    let mut bytes = *b"5\r\nhello\r\n";
    let decoded = reader.decode(&mut bytes).expect("a chunk");
    assert_eq!((decoded.consumed, decoded.content, decoded.complete), (10, 3..8, false));
    assert_eq!(&bytes, b"5\r\nhello\r\n");
}

#[test]
fn several_chunks_are_moved_together() {
    let mut reader = BodyReader::new(BodyFraming::Chunked);
    let mut bytes = *b"2\r\nab\r\n3;x\r\ncde\r\n0\r\n\r\n..";
    let decoded = reader.decode(&mut bytes).expect("a body");
    assert_eq!((decoded.consumed, decoded.content.clone(), decoded.complete), (bytes.len() - 2, 3..8, true));
    assert_eq!(&bytes[decoded.content], b"abcde");
}

#[test]
fn a_content_length_is_counted_exactly() {
    let body = |content: &str, surplus| Body { content: content.as_bytes().to_vec(), trailers: Vec::new(), surplus };
    assert_eq!(read(BodyFraming::Length(5), b"hello"), Ok(body("hello", 0)));
    assert_eq!(read(BodyFraming::Length(5), b"hello world"), Ok(body("hello", 6)));
    assert_eq!(read(BodyFraming::Length(5), b"hell"), Err(BodyFault::Truncated));
    assert_eq!(read(BodyFraming::Length(0), b"x"), Ok(body("", 1)));
    assert_eq!(read(BodyFraming::None, b"x"), Ok(body("", 1)));
    assert_eq!(read(BodyFraming::UntilClose, b"hello"), Ok(body("hello", 0)));
    assert_eq!(read(BodyFraming::UntilClose, b""), Ok(body("", 0)));
}

#[test]
fn hints_say_what_is_sure_to_come() {
    let mut reader = BodyReader::new(BodyFraming::Chunked);
    assert_eq!(reader.remaining_hint(), None);
    reader.decode(&mut b"ff\r\nab".to_vec()).expect("the start of a chunk");
    assert_eq!(reader.remaining_hint(), Some(253));
    assert_eq!(BodyReader::new(BodyFraming::Length(9)).remaining_hint(), Some(9));
    assert_eq!(BodyReader::new(BodyFraming::None).remaining_hint(), Some(0));
    assert_eq!(BodyReader::new(BodyFraming::UntilClose).remaining_hint(), None);
}
