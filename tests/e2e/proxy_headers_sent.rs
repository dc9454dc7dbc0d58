//! A backend that wants to is told for which client each connection is, and no other client's request comes on it.

use std::net::SocketAddrV4;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::config::{proxy, proxy_to};
use crate::harness::peers::{Server, are_installed};
use crate::harness::{Client, Gateway, Origin, latin1, ok};

const VERSIONS: [&str; 2] = ["v1", "v2"];
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A gateway that begins its connections to this endpoint with headers of this version.
fn gateway(version: &str, endpoint: &str, listener: Value) -> Gateway {
    let mut config = proxy(&[endpoint]);
    config["listeners"][0] = listener;
    config["listeners"][0]["name"] = json!("public");
    config["upstreams"]["origin"]["proxy_protocol"] = json!(version);
    Gateway::start(config)
}

/// A backend that takes a header off each connection and answers every request there with it: as text, or without its signature in hexadecimal.
fn repeating_headers() -> Origin {
    Origin::scripted(|peer| {
        let mut header = peer.read(SIGNATURE.len());
        if header == SIGNATURE {
            header.extend(peer.read(4));
            header.extend(peer.read(u16::from_be_bytes([header[14], header[15]]).into()));
        }
        while !header.starts_with(SIGNATURE) && !header.ends_with(b"\r\n") {
            header.extend(peer.read(1));
        }
        let said = header.strip_prefix(SIGNATURE).map_or_else(|| latin1(&header), hexadecimal);
        while peer.request().is_some() {
            peer.send(ok(&said));
        }
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header for a client at `source` who came to `destination`.
fn header(version: &str, source: &str, destination: &str) -> String {
    let [source, destination] = [source, destination].map(|it| it.parse::<SocketAddrV4>().expect("ip:port"));
    if version == "v1" {
        let (from, to) = (source.ip(), destination.ip());
        return format!("PROXY TCP4 {from} {to} {} {}\r\n", source.port(), destination.port());
    }
    let ips = [source.ip().octets(), destination.ip().octets()].concat();
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    hexadecimal(&[&[0x21, 0x11, 0, 12], &ips[..], &ports].concat())
}

#[test]
fn every_request_has_a_connection_of_its_own_that_tells_its_client() {
    for version in VERSIONS {
        let origin = repeating_headers();
        let gateway = gateway(version, &origin.endpoint, json!({}));
        let mut clients: Vec<Client> = (0..3).map(|_| gateway.client()).collect();

        // In turn, so that a connection kept from one would serve the next.
        for _ in 0..3 {
            for client in &mut clients {
                let said = client.get("/").response().text();
                assert_eq!(said, header(version, &client.address(), &gateway.address()));
            }
        }

        assert_eq!(origin.connections(), 9);
        let idle = gateway.metrics().sum("postern_upstream_connections_idle", &[("upstream", "origin")]);
        assert_eq!(idle, 0.0);
    }
}

#[test]
fn what_a_load_balancer_in_front_said_is_passed_on() {
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let unix = [SIGNATURE, &[0x21, 0x31, 0, 216], &[0; 216]].concat();
    let unix_in_hex = hexadecimal(&unix[SIGNATURE.len()..]);
    let told = header("v2", "192.0.2.7:56324", "198.51.100.1:80");
    let cases: [(&[u8], &str, &str); 6] = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n", "v1", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 80\r\n", "v2", &told),
        (b"PROXY UNKNOWN\r\n", "v1", "PROXY UNKNOWN\r\n"),
        (b"PROXY UNKNOWN\r\n", "v2", "21000000"),
        (&unix, "v1", "PROXY UNKNOWN\r\n"),
        (&unix, "v2", &unix_in_hex),
    ];
    for (received, version, sent) in cases {
        let origin = repeating_headers();
        let gateway = gateway(version, &origin.endpoint, json!({ "proxy_protocol": { "trust": ["127.0.0.1"] } }));
        let said = gateway.client().send(received).get("/").response().text();
        assert_eq!(said, sent, "{:?} in {version}", latin1(received));
        // Its own connections are its own.
        let mut client = gateway.client();
        let said = client.send(&local).get("/").response().text();
        assert_eq!(said, header(version, &client.address(), &gateway.address()));
    }
}

#[test]
fn a_client_on_a_unix_socket_has_no_address_to_tell() {
    let unix = hexadecimal(&[&[0x21, 0x31, 0, 216], &[0; 216][..]].concat());
    for (version, expected) in [("v1", "PROXY UNKNOWN\r\n"), ("v2", &unix)] {
        let origin = repeating_headers();
        let directory = crate::harness::TempDir::new();
        let address = format!("unix:{}", directory.join("public.sock").display());
        let gateway = gateway(version, &origin.endpoint, json!({ "address": address }));

        assert_eq!(gateway.get("/").text(), expected);
    }
}

#[test]
fn two_gateways_in_a_row_know_the_first_ones_client() {
    for version in VERSIONS {
        let origin = Origin::saying("hello");
        let mut config = proxy_to(&origin);
        config["listeners"][0]["proxy_protocol"] = json!({ "trust": ["127.0.0.1"] });
        let back = Gateway::start(config);
        let front = gateway(
            version,
            &format!("http://{}", back.address()),
            json!({ "proxy_protocol": { "trust": ["127.0.0.1"] } }),
        );

        for client in ["192.0.2.7", "192.0.2.8"] {
            let header = format!("PROXY TCP4 {client} 198.51.100.1 56324 80\r\n");
            assert_eq!(front.client().send(header).get("/").response().text(), "hello");
            let requests = origin.requests();
            let request = requests.last().expect("a request");
            assert_eq!(request.values("x-forwarded-for"), [client], "{version}");
        }
    }
}

/// What a server of nginx or HAProxy answers: `source destination`, each `ip:port`, as headers told it.
fn assert_told(server: &Server, version: &str, scheme: &str, tls: &Value) {
    let mut config = proxy(&[&format!("{scheme}://{}", server.address)]);
    config["upstreams"]["origin"]["proxy_protocol"] = json!(version);
    if !tls.is_null() {
        config["upstreams"]["origin"]["tls"] = tls.clone();
    }
    let gateway = Gateway::start(config);
    let mut clients = [gateway.client(), gateway.client()];
    for _ in 0..2 {
        for client in &mut clients {
            let said = client.get("/").response().text();
            assert_eq!(said, format!("{} {}", client.address(), gateway.address()), "{version}");
        }
    }
}

#[test]
fn nginx_understands_it() {
    if !are_installed(&["nginx"]) {
        return;
    }
    let nginx = Server::nginx(|address, _| {
        let source = "$proxy_protocol_addr:$proxy_protocol_port";
        let destination = "$proxy_protocol_server_addr:$proxy_protocol_server_port";
        format!("listen {address} proxy_protocol; return 200 \"{source} {destination}\";")
    });
    for version in VERSIONS {
        assert_told(&nginx, version, "http", &Value::Null);
    }
}

#[test]
fn haproxy_understands_it_in_front_of_tls_too() {
    if !are_installed(&["haproxy"]) {
        return;
    }
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tls");
    let read = |name: &str| std::fs::read_to_string(certificates.join(name)).expect("it is committed");
    let start = |tls: bool| {
        Server::haproxy(|address, directory| {
            let pem = directory.write("site.pem", &[read("site.pem"), read("site.key")].concat());
            let tls = if tls { format!("ssl crt {}", pem.display()) } else { String::new() };
            format!(
                "frontend front
                   mode http
                   bind {address} accept-proxy {tls}
                   http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\""
            )
        })
    };
    let trusted = json!({ "ca": certificates.join("ca.pem"), "server_name": "example.com" });
    for version in VERSIONS {
        assert_told(&start(false), version, "http", &Value::Null);
        assert_told(&start(true), version, "https", &trusted);
    }
}
