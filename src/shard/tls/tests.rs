//! Both ends in one thread, without a socket between them.

use std::sync::Arc;

use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use super::certificates::Certificates;
use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

struct Authority {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn authority(version: &'static SupportedProtocolVersion) -> Authority {
    let Generated { cert, signing_key } = generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
    let provider = Arc::new(default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let certified = CertifiedKey::from_der(vec![cert.der().clone()], key, &provider).expect("they fit");
    let mut certificates = Certificates::default();
    certificates.add(&["a.example".to_owned()], certified);
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]);
    let server = server.expect("a version").with_no_client_auth().with_cert_resolver(Arc::new(certificates));
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let client = client.expect("a version").with_root_certificates(roots).with_no_client_auth();
    Authority { server: Arc::new(server), client: Arc::new(client) }
}

/// Both ends after their handshake, whose flights travelled in pieces of `piece` bytes.
fn established(authority: &Authority, name: &'static str, piece: usize) -> Result<(Tls, Tls), Error> {
    let mut server = Tls::server(authority.server.clone())?;
    let mut client = Tls::client(authority.client.clone(), name.try_into().expect("a name"))?;
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    let mut client_state = client.open(&[], &mut at_client)?;
    let mut server_state = server.open(&[], &mut at_server)?;
    for _ in 0..8 {
        for part in client.take_own().chunks(piece) {
            server_state = server.open(part, &mut at_server)?;
        }
        for part in server.take_own().chunks(piece) {
            client_state = client.open(part, &mut at_client)?;
        }
    }
    assert_eq!((client_state, server_state), (State::Established, State::Established));
    assert!(at_server.is_empty() && at_client.is_empty());
    Ok((client, server))
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[test]
fn content_of_any_length_crosses_in_pieces_of_any_length() {
    for version in VERSIONS {
        let authority = authority(version);
        for (bytes, piece) in [(1, 1), (0, 7), (1000, 1), (16_384, 4096), (16_385, 999), (100_000, usize::MAX)] {
            let (mut client, mut server) = established(&authority, "a.example", piece).expect("a handshake");
            for _ in 0..3 {
                let (sent, mut sealed, mut received) = (content(bytes), Vec::new(), Vec::new());
                client.seal(&sent, &mut sealed).expect("established");
                for part in sealed.chunks(piece) {
                    assert_eq!(server.open(part, &mut received).expect("no forgery"), State::Established);
                }
                assert!(received == sent, "{bytes} bytes in pieces of {piece}");

                let (mut sealed, mut returned) = (Vec::new(), Vec::new());
                server.seal(&received, &mut sealed).expect("established");
                for part in sealed.chunks(piece) {
                    client.open(part, &mut returned).expect("no forgery");
                }
                assert!(returned == sent);
            }
        }
    }
}

#[test]
fn what_lies_between_two_messages_holds_no_memory() {
    for version in VERSIONS {
        let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
        let (mut sealed, mut received) = (Vec::new(), Vec::new());
        client.seal(&content(5000), &mut sealed).expect("established");
        server.open(&sealed, &mut received).expect("no forgery");

        assert_eq!(server.incoming.capacity() + server.own.capacity(), 0);
        assert_eq!(client.incoming.capacity(), 0);
    }
}

#[test]
fn an_orderly_end_is_told_from_others_and_the_other_way_stays_open() {
    for version in VERSIONS {
        let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
        let (mut sealed, mut received) = (Vec::new(), Vec::new());
        client.seal(b"the last", &mut sealed).expect("established");
        client.close(&mut sealed).expect("established");
        assert_eq!(server.open(&sealed, &mut received).expect("no forgery"), State::PeerClosed);
        assert_eq!(received, b"the last");

        let (mut sealed, mut returned) = (Vec::new(), Vec::new());
        server.seal(b"an answer", &mut sealed).expect("this way is open");
        client.open(&sealed, &mut returned).expect("no forgery");
        assert_eq!(returned, b"an answer");
    }
}

/// Both ways, in either order, and more than once.
#[test]
fn the_end_is_said_once_and_nothing_is_sealed_behind_it() {
    for version in VERSIONS {
        for peer_first in [false, true] {
            let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
            let (mut sealed, mut received) = (Vec::new(), Vec::new());
            client.close(&mut sealed).expect("established");
            if peer_first {
                server.open(&sealed, &mut received).expect("no forgery");
            }
            let mut said = Vec::new();
            server.close(&mut said).expect("this way is open");
            if !peer_first {
                server.open(&sealed, &mut received).expect("no forgery");
            }
            assert_eq!(client.open(&said, &mut received).expect("no forgery"), State::PeerClosed);

            let mut again = Vec::new();
            server.close(&mut again).expect_err("it was said");
            server.seal(b"more", &mut again).expect_err("it was said");
            assert!(again.is_empty() && received.is_empty());
        }
    }
}

#[test]
fn a_forged_record_opens_to_nothing_and_is_answered_by_an_alert() {
    for version in VERSIONS {
        let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
        let (mut sealed, mut received) = (Vec::new(), Vec::new());
        client.seal(&content(100), &mut sealed).expect("established");
        *sealed.last_mut().expect("a record") ^= 1;

        server.open(&sealed, &mut received).expect_err("a forgery");

        assert!(received.is_empty());
        let alert = server.take_own();
        assert!(!alert.is_empty());
        client.open(&alert, &mut received).expect_err("the alert ends it");
        server.seal(b"more", &mut Vec::new()).expect_err("it has failed");
    }
}

#[test]
fn whoever_is_not_trusted_is_told_so() {
    let (ours, theirs) = (authority(&version::TLS13), authority(&version::TLS13));
    let strange = Authority { server: theirs.server, client: ours.client.clone() };
    established(&strange, "a.example", 100).err().expect("an unknown authority");
    established(&ours, "b.example", 100).err().expect("another name");
}

#[test]
fn what_is_no_tls_is_refused() {
    let mut server = Tls::server(authority(&version::TLS13).server).expect("a configuration");
    server.open(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", &mut Vec::new()).expect_err("plain text");
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_over() {
    let mut server = Tls::server(authority(&version::TLS13).server).expect("a configuration");
    server.seal(b"early", &mut Vec::new()).expect_err("no keys yet");
}

/// The client has begun a message of the handshake, and leaves it at that, while content goes to it.
#[test]
fn content_can_be_sealed_while_something_has_come_in_part() {
    for version in VERSIONS {
        for part in [1, 4, 5, 6, 30] {
            let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
            let (mut sealed, mut received) = (Vec::new(), Vec::new());
            client.seal(b"a request that is longer than any of the parts", &mut sealed).expect("established");
            server.open(&sealed[..part], &mut received).expect("no forgery");

            let mut answer = Vec::new();
            server.seal(b"an answer", &mut answer).expect("established");
            server.open(&sealed[part..], &mut received).expect("no forgery");

            assert_eq!(received, b"a request that is longer than any of the parts");
            client.open(&answer, &mut received).expect("no forgery");
        }
    }
}

#[test]
fn a_handshake_that_fails_is_answered_by_an_alert() {
    for version in VERSIONS {
        let mut authority = authority(version);
        Arc::get_mut(&mut authority.server).expect("one owner").alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::get_mut(&mut authority.client).expect("one owner").alpn_protocols = vec![b"http/1.0".to_vec()];
        let mut server = Tls::server(authority.server).expect("a configuration");
        let mut client =
            Tls::client(authority.client, "a.example".try_into().expect("a name")).expect("a configuration");
        client.open(&[], &mut Vec::new()).expect("its first flight");

        let error = server.open(&client.take_own(), &mut Vec::new()).expect_err("no common protocol");

        assert_eq!(error, Error::NoApplicationProtocol);
        let told = client.open(&server.take_own(), &mut Vec::new()).expect_err("it is told");
        assert_eq!(told, Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
    }
}

#[test]
fn what_comes_behind_a_goodbye_is_dropped_and_changes_nothing() {
    for version in VERSIONS {
        let (mut client, mut server) = established(&authority(version), "a.example", 100).expect("a handshake");
        let (mut sealed, mut received) = (Vec::new(), Vec::new());
        client.close(&mut sealed).expect("established");
        sealed.extend_from_slice(&content(100));
        for _ in 0..3 {
            assert_eq!(server.open(&sealed, &mut received).expect("its end"), State::PeerClosed);
            assert_eq!(server.incoming.capacity() + received.len(), 0);
        }
    }
}
