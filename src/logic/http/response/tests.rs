//! What an upstream may answer and what it may not, each row at every cut.

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 256, fields: 4, target: 0 };
const PLAIN: ResponseContext<'_> = ResponseContext { head_request: false, upgrade: None };
const HEAD: ResponseContext<'_> = ResponseContext { head_request: true, upgrade: None };
const UPGRADE: ResponseContext<'_> = ResponseContext { head_request: false, upgrade: Some(b"other/1, websocket") };

fn parse(bytes: &[u8], context: ResponseContext<'_>) -> Result<Parsed<String>, ResponseFault> {
    Ok(match parse_response(bytes, &mut FieldSlots::new(), &LIMITS, context)? {
        Parsed::Complete(head) => Parsed::Complete(summary(&head)),
        Parsed::Partial => Parsed::Partial,
    })
}

fn summary(head: &ResponseHead<'_>) -> String {
    let mut text = format!("{} {:?} {:?}", head.status, String::from_utf8_lossy(head.reason), head.framing);
    if let Some(length) = head.content_length {
        text += &format!(" length:{length}");
    }
    for (flag, name) in [(head.persistent, "stays"), (head.is_interim(), "interim"), (head.is_switching(), "switches")]
    {
        if flag {
            text += &format!(" {name}");
        }
    }
    text
}

/// As for requests: one verdict, however the bytes come.
fn verdict(bytes: &[u8], context: ResponseContext<'_>) -> Result<Parsed<String>, ResponseFault> {
    let whole = parse(bytes, context);
    let mut settled = false;
    for cut in 0..=bytes.len() {
        match parse(&bytes[..cut], context) {
            Ok(Parsed::Partial) => {
                assert!(!settled, "verdict withdrawn at {cut} of {:?}", bytes.escape_ascii().to_string())
            }
            early => {
                assert_eq!(early, whole, "at {cut} of {:?}", bytes.escape_ascii().to_string());
                settled = true;
            }
        }
    }
    whole
}

#[test]
fn responses_are_framed_as_rfc_9112_section_6_3_says() {
    let cases: &[(&str, ResponseContext<'_>, &str)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", PLAIN, "200 \"OK\" Length(5) length:5 stays"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", PLAIN, "200 \"OK\" Chunked stays"),
        ("HTTP/1.1 200 OK\r\n\r\n", PLAIN, "200 \"OK\" UntilClose"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", PLAIN, "200 \"OK\" Length(5) length:5"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", PLAIN, "200 \"OK\" Length(5) length:5"),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            PLAIN,
            "200 \"OK\" Length(5) length:5 stays",
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", PLAIN, "200 \"OK\" UntilClose"),
        ("HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n", PLAIN, "200 \"OK\" Length(0) length:0 stays"),
        // No content, whatever the fields say.
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HEAD, "200 \"OK\" None length:5 stays"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, "200 \"OK\" None stays"),
        ("HTTP/1.1 200 OK\r\n\r\n", HEAD, "200 \"OK\" None stays"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", PLAIN, "304 \"Not Modified\" None length:5 stays"),
        ("HTTP/1.1 204 No Content\r\n\r\n", PLAIN, "204 \"No Content\" None stays"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", PLAIN, "204 \"No Content\" None stays"),
        // A 204 that announces content makes its connection uncertain.
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", PLAIN, "204 \"No Content\" None"),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", PLAIN, "204 \"No Content\" None"),
        ("HTTP/1.1 100 Continue\r\n\r\n", PLAIN, "100 \"Continue\" None stays interim"),
        ("HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", PLAIN, "103 \"Early Hints\" None stays interim"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            UPGRADE,
            "101 \"Switching Protocols\" None stays switches",
        ),
        (
            "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: WebSocket, Other/1\r\n\r\n",
            UPGRADE,
            "101 \"S\" None stays switches",
        ),
        // Reason phrases: section 4.
        ("HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", PLAIN, "599 \"\" Length(0) length:0 stays"),
        ("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", PLAIN, "404 \"\" Length(0) length:0 stays"),
        (
            "HTTP/1.1 200 \u{fc}\tb c\r\nContent-Length: 0\r\n\r\n",
            PLAIN,
            "200 \"\u{fc}\\tb c\" Length(0) length:0 stays",
        ),
    ];
    for (bytes, context, expected) in cases {
        assert_eq!(verdict(bytes.as_bytes(), *context), Ok(Parsed::Complete((*expected).to_owned())), "{bytes:?}");
    }
}

#[test]
fn malformed_responses_are_refused() {
    use ResponseFault::*;
    let cases: &[(&[u8], ResponseContext<'_>, ResponseFault)] = &[
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"ICY 200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"http/1.1 200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1 200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1  200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1\t200 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1 20 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1 200\tOK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/1.1 +20 OK\r\n\r\n", PLAIN, BadStatusLine),
        (b"HTTP/2.0 200 OK\r\n\r\n", PLAIN, UnsupportedVersion),
        (b"HTTP/1.1 099 OK\r\n\r\n", PLAIN, BadStatus),
        (b"HTTP/1.1 600 OK\r\n\r\n", PLAIN, BadStatus),
        (b"HTTP/1.1 200 O\x00K\r\n\r\n", PLAIN, BadReason),
        (b"HTTP/1.1 200 \x1b[0m\r\n\r\n", PLAIN, BadReason),
        (b"HTTP/1.1 200 OK\n\n", PLAIN, Field(FieldFault::BareLineFeed)),
        (b"HTTP/1.1 200\n\n", PLAIN, Field(FieldFault::BareLineFeed)),
        (b"HTTP/1.1 200 OK\rA: b\r\n\r\n", PLAIN, Field(FieldFault::BareCarriageReturn)),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", PLAIN, Field(FieldFault::FoldedLine)),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", PLAIN, Field(FieldFault::SpaceBeforeColon)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", PLAIN, Field(FieldFault::BadContentLength)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            PLAIN,
            Field(FieldFault::RepeatedContentLength),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            PLAIN,
            Field(FieldFault::LengthAndTransferEncoding),
        ),
        // Not even where there is no content.
        (
            b"HTTP/1.1 304 N\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            PLAIN,
            Field(FieldFault::RepeatedContentLength),
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", HEAD, Field(FieldFault::BadContentLength)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            PLAIN,
            Field(FieldFault::UnsupportedTransferCoding),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", PLAIN, Field(FieldFault::BadTransferEncoding)),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", PLAIN, Field(FieldFault::TransferEncodingInHttp10)),
        (b"HTTP/1.1 200 OK\r\nConnection: set-cookie\r\n\r\n", PLAIN, Field(FieldFault::ProtectedConnectionOption)),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n", PLAIN, InterimWithContent),
        (b"HTTP/1.1 103 E\r\nTransfer-Encoding: chunked\r\n\r\n", PLAIN, InterimWithContent),
        (b"HTTP/1.1 101 S\r\nContent-Length: 1\r\n\r\n", UPGRADE, InterimWithContent),
        // RFC 9110 section 7.8: what is switched to is said, was asked for, and is not HTTP.
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", PLAIN, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ,\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: other/2\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket, a\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", UPGRADE, UnaskedSwitch),
        (b"HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", PLAIN, Field(FieldFault::TooMany)),
    ];
    for (bytes, context, fault) in cases {
        assert_eq!(verdict(bytes, *context), Err(*fault), "{:?}", bytes.escape_ascii().to_string());
    }
    let endless = [b"HTTP/1.1 200 ".as_slice(), &[b'a'; 300]].concat();
    assert_eq!(verdict(&endless, PLAIN), Err(HeadTooLong));
}
