//! What a backend is told about the certificate that a client has proven to be its own (RFC 9440).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Authority, Gateway, Origin, TlsCaller, certificate_in};

/// What a client says of itself that wants to be somebody else.
const LIES: &str = "Client-Cert: :bGll:\r\nclient-cert-chain: :bGll:\r\nClient_Cert: :bGll:\r\nCLIENT-CERT: :bGll:\r\n";

/// A certificate as RFC 9440 section 2.2 has it.
pub(super) fn field_of(certificate: &Value) -> String {
    let certificate = certificate_in(certificate["chain"].as_str().expect("a file"));
    format!(":{}:", STANDARD.encode(&certificate))
}

fn gateway(origin: &Origin, authority: &Authority, clients: Value) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0]["tls"] =
        json!({ "certificates": [authority.sign(&["localhost"])], "client_certificates": clients });
    Gateway::start(config)
}

#[test]
fn the_backend_is_told_each_clients_own_certificate_on_every_request_of_its_connection() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem"), "forward": true });
    let gateway = gateway(&origin, &authority, clients);
    let own = [authority.sign(&["first"]), authority.sign(&["second"])];

    for certificate in &own {
        let caller = TlsCaller::new(&authority, Some(certificate));
        // The second connection resumes the session of the first, in which the certificate was shown.
        for resumed in [false, true] {
            let mut client = caller.connect(&gateway.address()).expect("a handshake");
            client.get("/").expect("an answer");
            client.get("/").expect("an answer");
            assert_eq!(client.is_resumed(), resumed);
        }
    }

    let told: Vec<String> = origin.requests().iter().map(|it| it.values("client-cert").join(", ")).collect();
    let expected: Vec<String> = own.iter().flat_map(|own| std::iter::repeat_n(field_of(own), 4)).collect();
    assert_eq!(told, expected);
    assert!(origin.requests().iter().all(|request| !request.has("client-cert-chain")));
}

#[test]
fn a_clients_own_word_about_certificates_goes_nowhere() {
    let authority = Authority::new("trusted");
    let ca = authority.file("ca.pem");
    let own = authority.sign(&["client"]);
    for (clients, shown, expected) in [
        (json!({ "mode": "off" }), None, None),
        (json!({ "mode": "optional", "ca": ca, "forward": true }), None, None),
        (json!({ "mode": "optional", "ca": ca }), Some(&own), None),
        (json!({ "mode": "optional", "ca": ca, "forward": true }), Some(&own), Some(field_of(&own))),
    ] {
        let origin = Origin::saying("hello");
        let gateway = gateway(&origin, &authority, clients);
        let mut client = TlsCaller::new(&authority, shown).connect(&gateway.address()).expect("a handshake");

        client.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{LIES}\r\n").as_bytes()).expect("an answer");

        let request = origin.only_request();
        assert_eq!(request.field("client-cert"), expected.as_deref());
        assert!(!String::from_utf8_lossy(&request.raw).contains("bGll"), "{request:?}");
    }
    // Nor does it where nothing is encrypted, whoever is trusted there.
    let origin = Origin::saying("hello");
    let mut config = proxy_to(&origin);
    config["listeners"][0]["forwarded"] = json!({ "trust": ["127.0.0.1"] });
    let gateway = Gateway::start(config);
    gateway.client().send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{LIES}\r\n")).response();
    assert!(!origin.only_request().has("client-cert") && !origin.has_received("bGll"));
}

/// Neither of a request nor, by way of a trailer, of a request that is under way.
#[test]
fn a_client_cannot_have_the_field_taken_away_or_add_it_behind() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem"), "forward": true });
    let gateway = gateway(&origin, &authority, clients);
    let own = authority.sign(&["client"]);
    let caller = TlsCaller::new(&authority, Some(&own));
    let ask = |request: &str| {
        let mut client = caller.connect(&gateway.address()).expect("a handshake");
        client.ask(request.as_bytes()).expect("an answer").status()
    };

    for name in ["Client-Cert", "client-cert-chain"] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {name}\r\n\r\n");
        assert_eq!(ask(&request), 400);
    }
    assert!(origin.requests().is_empty());

    let trailer = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nClient-Cert: :bGll:\r\nX-A: b\r\n\r\n";
    assert_eq!(ask(trailer), 200);
    assert!(!origin.has_received("bGll") && origin.has_received("X-A: b"));
    assert_eq!(origin.only_request().field("client-cert"), Some(&*field_of(&own)));
}
