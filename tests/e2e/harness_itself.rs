//! The harness, tried without a gateway: a test that cannot fail proves nothing.

use std::fs;

use crate::harness::h2::H2Client;
use crate::harness::h2::frame::{self, END_HEADERS, END_STREAM, code, kind};
use crate::harness::h2::hpack::{self, Decoder};
use crate::harness::peers::{Server, are_installed};
use crate::harness::{Client, Framing, Metrics, Origin, latin1, ok};

#[test]
fn a_client_reads_what_an_origin_sends_and_the_origin_remembers_the_request() {
    let origin = Origin::saying("hello");
    let mut client = Client::connect(origin.address());

    let first = client.get("/a").response();
    let second = client.post("/b", b"body").response();

    assert_eq!((first.status(), first.text().as_str()), (200, "hello"));
    assert_eq!(second.framing, Framing::Length);
    let requests = origin.requests();
    assert_eq!(requests[0].target(), "/a");
    assert_eq!((requests[1].method(), requests[1].body.as_slice()), ("POST", b"body".as_slice()));
    assert_eq!(requests[1].connection, 0);
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.received(), [[requests[0].raw.clone(), requests[1].raw.clone()].concat()]);
}

#[test]
fn a_chunked_message_is_read_with_its_trailers() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n");
    let mut client = Client::connect(origin.address());
    let request = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n";

    let response = client.send_split(request, &(1..request.len()).collect::<Vec<_>>()).response();

    assert_eq!(response.text(), "abc");
    assert_eq!(response.trailer("x-end"), ["1"]);
    assert_eq!(origin.only_request().body, b"hi");
    assert_eq!(origin.only_request().trailer("x-sum"), ["2"]);
    client.assert_silent();
}

#[test]
fn a_response_that_breaks_off_is_no_response() {
    let cut = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ];
    for response in cut {
        let origin = Origin::answering_once(response);
        assert_eq!(Client::connect(origin.address()).get("/").broken_off_response("GET"), response);
    }
}

#[test]
fn a_malformed_response_is_no_response() {
    let malformed = [
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    ];
    for response in malformed {
        let origin = Origin::answering_once(response);
        let fault = Client::connect(origin.address()).get("/").try_response("GET").expect_err(response);
        assert!(!fault.why.contains("the connection was ended"), "{response:?}");
    }
}

#[test]
fn a_response_that_lasts_until_the_close_is_complete_with_a_close_and_not_with_a_reset() {
    let response = "HTTP/1.1 200 OK\r\n\r\nuntil";
    let origin = Origin::scripted(move |peer| {
        if let Some(request) = peer.request() {
            peer.send(response);
            peer.pause(50);
            if request.target() == "/reset" {
                peer.reset_on_close();
            }
        }
    });

    assert_eq!(Client::connect(origin.address()).get("/close").response().text(), "until");
    assert_eq!(Client::connect(origin.address()).get("/reset").broken_off_response("GET"), response);
}

#[test]
fn a_close_and_a_reset_are_seen_by_both_sides() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(ok("x"));
            peer.reset_on_close();
        }
    });
    let mut client = Client::connect(origin.address());
    assert_eq!(client.get("/").response().text(), "x");
    client.assert_closed();

    let mut leaving = Client::connect(origin.address());
    leaving.send("GET");
    leaving.finish();
    leaving.assert_closed();
    let received = origin.received();
    assert_eq!(latin1(&received[1]), "GET");
}

#[test]
fn well_formed_metrics_are_read() {
    let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{b=\"x\\\"y\\\\,z}\",c=\"d\"} 3\na_total{b=\"q\",c=\"d\"} 4\n\
                # HELP h Times.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.25\nh_count 2\n";

    let metrics = Metrics::parse(text).unwrap();

    assert_eq!(metrics.sum("a_total", &[("c", "d")]), 7.0);
    assert_eq!(metrics.sum("a_total", &[("b", "x\"y\\,z}")]), 3.0);
    assert_eq!(metrics.sum("h_count", &[]), 2.0);
}

#[test]
fn malformed_metrics_are_refused() {
    let head = "# HELP a Things.\n# TYPE a counter\n";
    let histogram = "# HELP a Times.\n# TYPE a histogram\n";
    for text in [
        format!("{head}a 1"),
        "a 1\n".to_owned(),
        "# TYPE a counter\na 1\n".to_owned(),
        format!("{head}b 1\n"),
        format!("{head}a 1\na 2\n"),
        format!("{head}a -1\n"),
        format!("{head}a one\n"),
        format!("{head}a{{b=c}} 1\n"),
        format!("{head}a{{b=\"c}} 1\n"),
        format!("{head}a{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{head}a 1\n# HELP b Other.\n# TYPE b gauge\nb 1\n{head}a{{x=\"y\"}} 1\n"),
        format!("{histogram}a_bucket{{le=\"1\"}} 1\na_sum 1\na_count 1\n"),
        format!("{histogram}a_bucket{{le=\"1\"}} 2\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"),
        format!("{histogram}a_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n"),
    ] {
        assert!(Metrics::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn an_http_2_client_and_nginx_understand_each_other() {
    if !are_installed(&["nginx"]) {
        return;
    }
    let content: Vec<u8> = (0..300_000_u32).map(|index| (index * 31 + (index >> 8)) as u8).collect();
    let nginx = Server::nginx(|address, directory| {
        fs::write(directory.join("large"), &content).expect("room");
        let root = directory.path().display();
        format!(
            "listen {address} http2; root {root}; location /say/ {{ return 200 \"$request_method $http_x_own\\n\"; }}"
        )
    });
    let mut client = H2Client::connect(&nginx.address);

    assert!(client.get(1, "/large").body == content, "more than the windows were at first");
    assert_eq!(client.get(3, "/missing").status(), 404);
    let value = "v".repeat(300);
    let block = [hpack::block(&frame::get("/say/")), hpack::literal("x-own", &value)].concat();
    client.send(frame::frame(kind::HEADERS, END_STREAM, 5, &block[..7]));
    client.send(frame::frame(kind::CONTINUATION, END_HEADERS, 5, &block[7..]));
    assert_eq!(client.response(5).text(), format!("GET {value}\n"));
    client.send(frame::headers(7, 0, &frame::post("/say/"))).send(frame::data(7, END_STREAM, "content"));
    let answer = client.response(7);
    assert_eq!((answer.text().as_str(), answer.field("content-length")), ("POST \n", Some("6")));
    client.send(frame::ping(*b"12345678"));
    client.until("the ping is acknowledged", |client| client.pings_acknowledged == 1);
    assert_eq!(client.settings_acknowledged, 1);
    client.send(frame::headers(9, 0, &frame::post("/say/")));
    assert_eq!(client.reset_of(9), code::NO_ERROR, "the answer needs no content");
    // An update by nothing (RFC 9113 section 6.9).
    client.send(frame::window_update(0, 0));
    assert_eq!(client.goodbye(), code::PROTOCOL_ERROR);
}

#[test]
fn an_http_2_client_believes_no_malformed_response() {
    let status = hpack::literal(":status", "200");
    let head = |flags| frame::headers(1, flags, &[(":status", "200"), ("content-length", "2")]);
    let fields = |fields: &[u8]| frame::frame(kind::HEADERS, END_HEADERS, 1, [&status, fields].concat());
    for (response, is_fine) in [
        ([head(0), frame::data(1, END_STREAM, "ab")].concat(), true),
        ([head(0), frame::data(1, END_STREAM, "abc")].concat(), false),
        ([head(0), frame::data(1, 0, "a"), frame::headers(1, END_STREAM, &[("x-sum", "1")])].concat(), false),
        ([head(0), frame::data(1, 0, "ab"), frame::headers(1, END_STREAM, &[("x-sum", "1")])].concat(), true),
        ([head(0), frame::data(1, 0, "ab"), frame::headers(1, 0, &[("x-sum", "1")])].concat(), false),
        (frame::data(1, END_STREAM, "ab"), false),
        (frame::headers(1, END_STREAM, &[(":status", "103")]), false),
        (frame::headers(1, END_STREAM, &[("x-own", "1")]), false),
        (fields(&hpack::literal("X-Own", "1")), false),
        (fields(&hpack::literal("connection", "close")), false),
        (fields(&hpack::literal("x-own", "1\r\nx: 2")), false),
        (fields(&hpack::indexed(99)), false),
        (frame::frame(kind::DATA, END_STREAM, 1, vec![0; 16_385]), false),
        ([frame::frame(kind::HEADERS, 0, 1, &status), frame::ping(*b"12345678")].concat(), false),
    ] {
        let words = response.clone();
        let origin = Origin::scripted(move |peer| {
            peer.send(frame::settings(&[]));
            // The preface, three frames at least, and so a request.
            peer.read(24 + 3 * 9);
            peer.send(&words);
            peer.wait_for_close();
        });
        let mut client = H2Client::connect(origin.address());
        client.send(frame::headers(1, END_STREAM, &frame::get("/")));
        assert_eq!(client.try_response(1).is_ok(), is_fine, "{response:?}");
    }
}

/// RFC 7541 appendix C.6: Huffman's code, and a table of 256 bytes.
#[test]
fn compressed_fields_are_read() {
    type Fields = &'static [(&'static str, &'static str)];
    let blocks: [(&[u8], Fields); 3] = [
        (
            b"\x3f\xe1\x01\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\
              \xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3",
            &[
                (":status", "302"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
                ("location", "https://www.example.com"),
            ],
        ),
        (
            b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf",
            &[
                (":status", "307"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
                ("location", "https://www.example.com"),
            ],
        ),
        (
            b"\x88\xc1\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x84\xa6\x2d\x1b\xff\xc0\x5a\x83\x9b\xd9\xab\
              \x77\xad\x94\xe7\x82\x1d\xd7\xf2\xe6\xc7\xb3\x35\xdf\xdf\xcd\x5b\x39\x60\xd5\xaf\x27\x08\x7f\x36\x72\xc1\xab\x27\x0f\xb5\x29\x1f\x95\x87\
              \x31\x60\x65\xc0\x03\xed\x4e\xe5\xb1\x06\x3d\x50\x07",
            &[
                (":status", "200"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
                ("location", "https://www.example.com"),
                ("content-encoding", "gzip"),
                ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
            ],
        ),
    ];
    let mut decoder = Decoder::new();
    for (block, expected) in blocks {
        let fields = decoder.decode(block).unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, expected);
    }
}
