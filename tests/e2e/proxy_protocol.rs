//! A load balancer in front says for whom it connects, and nobody else can.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::peers::{Server, are_installed};
use crate::harness::{Client, Gateway, Origin, eventually, latin1, pause};

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n";
const REQUEST: &str = "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";

/// Version 2 with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = (block.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, block].concat()
}

/// For 2001:db8::7, with a field that nobody knows.
fn v2_for_ipv6() -> Vec<u8> {
    let address = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    v2(0x21, 0x21, &[&address[..], &address, &[1, 2, 3, 4], &[0xe0, 0, 1, 0]].concat())
}

/// A gateway whose listener is this one, with an address.
fn gateway_with(origin: &Origin, listener: Value) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0] = listener;
    config["listeners"][0]["name"] = json!("public");
    config["access_log"] = json!({ "format": "json" });
    Gateway::start(config)
}

/// One that expects a header of everybody here.
fn gateway(origin: &Origin) -> Gateway {
    gateway_with(origin, json!({ "proxy_protocol": { "trust": ["127.0.0.0/8"] } }))
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().sum("postern_proxy_headers_refused_total", &[("listener", "public"), ("reason", reason)])
}

/// Who asked, as the origin was told last.
fn told(origin: &Origin) -> String {
    origin.requests().last().expect("a request").values("x-forwarded-for").join(", ")
}

#[test]
fn the_headers_client_is_the_one_that_upstreams_and_the_log_hear_of() {
    for (header, client) in [(V1.as_bytes(), "192.0.2.7"), (&v2_for_ipv6(), "2001:db8::7")] {
        let origin = Origin::saying("hello");
        let gateway = gateway(&origin);
        let mut connection = gateway.client();

        // In one piece with a request, and for all requests of the connection.
        connection.send([header, REQUEST.as_bytes()].concat());
        assert_eq!(connection.response().text(), "hello");
        assert_eq!(told(&origin), client);
        assert_eq!(connection.get("/b").response().text(), "hello");
        assert_eq!(told(&origin), client);

        let lines = gateway.wait_for_lines("\"listener\":\"public\"", 2);
        for line in lines {
            let line: Value = serde_json::from_str(&line).expect("a line is JSON");
            assert_eq!(line["client"], client, "{line}");
        }
    }
}

#[test]
fn a_header_is_read_wherever_it_is_cut() {
    for header in [V1.as_bytes(), &v2_for_ipv6()] {
        let origin = Origin::saying("hello");
        let gateway = gateway(&origin);
        let bytes = [header, REQUEST.as_bytes()].concat();
        for cut in [1, 6, header.len() - 1, header.len(), header.len() + 1] {
            let response = gateway.client().send_split(&bytes, &[cut]).response();
            assert_eq!(response.text(), "hello", "cut at {cut}");
        }
    }
}

#[test]
fn whether_a_client_is_trusted_is_decided_by_the_headers_address() {
    let cases = [
        // The client, a proxy of its own, is trusted; the load balancer need not be.
        ("192.0.2.0/24", V1.as_bytes().to_vec(), "203.0.113.9, 192.0.2.7"),
        // The load balancer is trusted to say who its client is, and that makes nothing of what the client says true.
        ("127.0.0.1", V1.as_bytes().to_vec(), "192.0.2.7"),
        ("127.0.0.1", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("127.0.0.1", v2(0x21, 0x00, &[]), "127.0.0.1"),
        ("127.0.0.1", v2(0x21, 0x31, &[0; 216]), ""),
        // On its own behalf it speaks itself.
        ("127.0.0.1", v2(0x20, 0x00, &[]), "203.0.113.9, 127.0.0.1"),
        ("192.0.2.0/24", v2(0x20, 0x00, &[]), "127.0.0.1"),
    ];
    for (trust, header, expected) in cases {
        let origin = Origin::saying("hello");
        let listener = json!({ "proxy_protocol": { "trust": ["127.0.0.1"] }, "forwarded": { "trust": [trust] } });
        let gateway = gateway_with(&origin, listener);

        let response = gateway.client().send([&header, REQUEST.as_bytes()].concat()).response();

        assert_eq!(response.text(), "hello");
        assert_eq!(told(&origin), expected, "{:?} where {trust} is trusted", latin1(&header));
    }
}

#[test]
fn of_everybody_else_no_header_is_read() {
    let origin = Origin::saying("hello");
    let elsewhere = gateway_with(&origin, json!({ "proxy_protocol": { "trust": ["10.0.0.0/8", "::1"] } }));
    let nowhere = gateway_with(&origin, json!({}));
    for gateway in [elsewhere, nowhere] {
        assert_eq!(gateway.get("/").text(), "hello");
        assert_eq!(told(&origin), "127.0.0.1");

        for header in [V1.as_bytes(), &v2_for_ipv6()] {
            let mut client = gateway.client();
            client.send([header, REQUEST.as_bytes()].concat());
            assert_eq!(client.response().status(), 400);
            client.assert_closed();
        }
        assert_eq!(refused(&gateway, "malformed"), 0.0);
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn what_does_not_begin_with_a_header_is_closed_without_an_answer_and_counted() {
    let origin = Origin::saying("hello");
    let gateway = gateway(&origin);
    let too_long = v2(0x21, 0x11, &[0; 4096]);
    let cases: [&[u8]; 6] = [
        REQUEST.as_bytes(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 80\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &v2(0x21, 0x21, &[0; 12]),
        &too_long,
    ];

    for (before, bytes) in cases.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(bytes).assert_closed();
        assert_eq!(refused(&gateway, "malformed"), before as f64 + 1.0, "{:?}", latin1(bytes));
    }
    // One that ends half-way is malformed, too.
    gateway.client().send(&V1[..20]).finish().assert_closed();
    assert_eq!(refused(&gateway, "malformed"), cases.len() as f64 + 1.0);

    assert!(origin.requests().is_empty());
    let warning = "the connection does not begin with a PROXY header";
    eventually("the first of them is warned of", || gateway.stderr().contains(warning));
    assert_eq!(gateway.client().send(V1).get("/").response().text(), "hello");
}

#[test]
fn a_second_header_is_a_bad_request() {
    let origin = Origin::saying("hello");
    let gateway = gateway(&origin);
    assert_eq!(gateway.client().send([V1, V1, REQUEST].concat()).response().status(), 400);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_header_that_comes_late_is_not_waited_for() {
    let origin = Origin::saying("hello");
    let listener = json!({ "proxy_protocol": { "trust": ["127.0.0.1"] }, "timeouts": { "header": "200ms" } });
    let gateway = gateway_with(&origin, listener);

    gateway.client().assert_closed();
    assert_eq!(refused(&gateway, "late"), 1.0);
    // Nor does it help to send a byte now and then.
    let mut client = gateway.client();
    for byte in V1.as_bytes().chunks(1) {
        pause(20);
        if client.try_send(byte).is_err() {
            break;
        }
    }
    client.assert_closed();
    assert_eq!(refused(&gateway, "late"), 2.0);
}

#[test]
fn a_peer_that_only_looks_whether_somebody_listens_is_no_fault() {
    let origin = Origin::saying("hello");
    let gateway = gateway(&origin);

    gateway.client().finish().assert_closed();

    assert_eq!((refused(&gateway, "malformed"), refused(&gateway, "late")), (0.0, 0.0));
}

#[test]
fn headers_that_are_not_all_there_hold_no_receive_buffers_and_keep_no_drain_waiting() {
    let origin = Origin::saying("hello");
    let mut gateway = gateway(&origin);
    let mut slow: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = gateway.client();
            client.send("P");
            client
        })
        .collect();

    // The bytes of those who came before have been received when this is answered.
    assert_eq!(gateway.client().send(V1).get("/").response().text(), "hello");
    let used = gateway.metrics().sum("postern_receive_buffers_used", &[]);
    assert!(used < 10.0, "{used} buffers");

    gateway.ask_to_terminate();
    for client in &mut slow {
        client.assert_closed();
    }
    assert!(gateway.wait().success());
}

#[test]
fn what_haproxy_says_is_understood() {
    if !are_installed(&["haproxy", "curl"]) {
        return;
    }
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let origin = Origin::saying("hello");
        let gateway = gateway_with(&origin, json!({ "proxy_protocol": { "trust": ["127.0.0.1"] } }));
        let proxy = Server::haproxy(|address, _| {
            format!(
                "listen front
                   mode tcp
                   bind {address}
                   unique-id-format %{{+X}}o-%ci:%cp
                   server gateway {} {options}",
                gateway.address()
            )
        });

        let output = Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--interface",
                "127.0.0.5",
                &format!("http://{}/", proxy.address),
            ])
            .output()
            .expect("curl is installed");

        assert_eq!(latin1(&output.stdout), "hello", "{options}");
        assert_eq!(told(&origin), "127.0.0.5", "{options}");
        assert_eq!(refused(&gateway, "malformed"), 0.0, "{options}");
    }
}
