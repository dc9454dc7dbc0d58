//! TLS before the gateway and behind it, spoken by peers that were not written for these tests: curl, OpenSSL and nginx.

use std::process::{Command, Output, Stdio};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use serde_json::{Value, json};

use crate::harness::config::proxy_to;
use crate::harness::{Authority, Gateway, Origin, eventually, latin1};

pub(super) fn encrypted(origin: &Origin, tls: Value) -> Gateway {
    let mut config = proxy_to(origin);
    config["listeners"][0]["tls"] = tls;
    Gateway::start(config)
}

pub(super) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it is installed")
}

pub(super) fn curl(gateway: &Gateway, authority: &Authority, arguments: &[&str]) -> Output {
    let port = gateway.address().rsplit(':').next().expect("a port").to_owned();
    let url = format!("https://a.example:{port}/path");
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--http1.1", "--cacert", &authority.file("ca.pem")]);
    run(command.args(["--resolve", &format!("a.example:{port}:127.0.0.1")]).args(arguments).arg(url))
}

#[test]
fn curl_speaks_either_version_and_the_backend_hears_that_it_was_https() {
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
        let gateway = encrypted(&origin, json!({ "certificates": [authority.sign(&["a.example"])] }));

        let answer = latin1(&curl(&gateway, &authority, version).stdout);

        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
        let request = origin.only_request();
        assert_eq!(request.field("x-forwarded-proto"), Some("https"));
        assert_eq!(gateway.metrics().sum("postern_tls_handshakes_total", &[("listener", "public")]), 1.0);
    }
}

#[test]
fn an_older_version_than_is_allowed_is_refused() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates = json!([authority.sign(&["a.example"])]);
    let gateway = encrypted(&origin, json!({ "certificates": certificates, "min_version": "1.3" }));

    let refused = curl(&gateway, &authority, &["--tls-max", "1.2"]);
    assert!(!refused.status.success());
    assert!(origin.received().is_empty());
    eventually("it is counted", || {
        gateway.metrics().sum("postern_tls_handshake_failures_total", &[("listener", "public")]) == 1.0
    });

    assert!(curl(&gateway, &authority, &[]).status.success());
}

#[test]
fn content_of_megabytes_crosses_both_ways() {
    let (authority, origin) = (Authority::new("trusted"), Origin::echo());
    let gateway = encrypted(&origin, json!({ "certificates": [authority.sign(&["a.example"])] }));
    let content: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(authority.file("content"), &content).expect("room");

    let sent = format!("@{}", authority.file("content"));
    let answer = curl(&gateway, &authority, &["-H", "Expect:", "--data-binary", &sent]).stdout;

    assert!(answer.ends_with(&content), "{} bytes", answer.len());
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_is_asked_for() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates = json!([authority.sign(&["first.example"]), authority.sign(&["b.example", "*.wild.example"])]);
    let gateway = encrypted(&origin, json!({ "certificates": certificates }));
    for (asked, shown) in [
        (Some("b.example"), "b.example"),
        (Some("B.EXAMPLE"), "b.example"),
        (Some("x.wild.example"), "b.example"),
        (Some("x.y.wild.example"), "first.example"),
        (Some("wild.example"), "first.example"),
        (Some("stranger.example"), "first.example"),
        (None, "first.example"),
    ] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &gateway.address()]);
        match asked {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        let said = latin1(&run(&mut command).stdout);
        assert!(
            said.contains(&format!("subject=CN = {shown}")) || said.contains(&format!("subject=CN={shown}")),
            "{asked:?}: {said}"
        );
    }
}

#[test]
fn a_session_is_resumed_on_whichever_shard_it_comes_back_to() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut config = proxy_to(&origin);
        config["shards"] = json!(2);
        config["listeners"][0]["tls"] = json!({ "certificates": [authority.sign(&["a.example"])] });
        let gateway = Gateway::start(config);
        let session = authority.file("session");
        let connect = |option: &str| {
            let script = format!(
                "(printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'; sleep 0.2) | openssl s_client -connect {} {version} \
                 -ign_eof {option} {session}",
                gateway.address()
            );
            latin1(&run(Command::new("sh").args(["-c", &script])).stdout)
        };
        assert!(connect("-sess_out").contains("New, "));
        for _ in 0..8 {
            let said = connect("-sess_in");
            assert!(said.contains("Reused, ") && said.contains("HTTP/1.1 200"), "{said}");
        }
    }
}

#[test]
fn plain_text_and_silence_cost_their_own_connection() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let mut config = proxy_to(&origin);
    config["listeners"][0]["tls"] = json!({ "certificates": [authority.sign(&["a.example"])] });
    config["listeners"][0]["timeouts"] = json!({ "tls_handshake": "200ms" });
    let gateway = Gateway::start(config);
    let mut silent = gateway.client();
    let mut plain = gateway.client();
    plain.get("/");

    plain.read_to_end();
    silent.assert_closed();

    assert!(origin.received().is_empty());
    eventually("both are counted", || {
        gateway.metrics().sum("postern_tls_handshake_failures_total", &[("listener", "public")]) == 2.0
    });
    assert!(curl(&gateway, &authority, &[]).status.success());
}

#[test]
fn client_certificates_are_taken_from_whom_they_must_be() {
    let (authority, strangers, origin) = (Authority::new("trusted"), Authority::new("other"), Origin::saying("hello"));
    let certificates = json!([authority.sign(&["a.example"])]);
    let (right, wrong) = (authority.sign(&["client"]), strangers.sign(&["client"]));
    let show = |certificate: &Value| {
        [
            "--cert",
            certificate["chain"].as_str().expect("a file"),
            "--key",
            certificate["key"].as_str().expect("a file"),
        ]
        .map(str::to_owned)
    };
    for (mode, none_passes) in [("required", false), ("optional", true)] {
        let clients = json!({ "mode": mode, "ca": authority.file("ca.pem") });
        let gateway = encrypted(&origin, json!({ "certificates": certificates, "client_certificates": clients }));
        let passes = |arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            curl(&gateway, &authority, &arguments).status.success()
        };
        assert!(passes(&show(&right)), "{mode}");
        let before = origin.received().len();
        assert!(!passes(&show(&wrong)), "{mode}");
        assert_eq!(origin.received().len(), before);
        assert_eq!(passes(&[]), none_passes, "{mode}");
    }
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let mut config = proxy_to(&origin);
    config["listeners"][0]["tls"] = json!({ "certificates": [authority.sign(&["a.example"])] });
    config["listeners"][0]["proxy_protocol"] = json!({ "trust": ["127.0.0.1"] });
    let gateway = Gateway::start(config);

    assert!(!curl(&gateway, &authority, &[]).status.success());
    assert!(origin.received().is_empty());

    let answer = latin1(&curl(&gateway, &authority, &["--haproxy-protocol"]).stdout);
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn a_revoked_client_is_refused() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates = json!([authority.sign(&["a.example"])]);
    let (good, revoked) = (authority.sign(&["good"]), authority.sign(&["revoked"]));
    let crl = authority.revoke(3);
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem"), "crl": [crl] });
    let mut config = proxy_to(&origin);
    config["log"] = json!({ "level": "debug" });
    config["listeners"][0]["tls"] = json!({ "certificates": certificates, "client_certificates": clients });
    let gateway = Gateway::start(config);
    for (certificate, passes) in [(good, true), (revoked, false)] {
        let (chain, key) =
            (certificate["chain"].as_str().expect("a file"), certificate["key"].as_str().expect("a file"));
        assert_eq!(curl(&gateway, &authority, &["--cert", chain, "--key", key]).status.success(), passes);
        eventually("the log says why", || gateway.stderr().contains("its certificate is revoked") != passes);
    }
}

/// A gateway that speaks TLS to another, which speaks it to clients. They agree on HTTP/2, where the host has to be one that the certificate is for.
pub(super) fn chained(behind: &Gateway, tls: Value) -> Gateway {
    let port = behind.address().rsplit(':').next().expect("a port").to_owned();
    Gateway::start(json!({
        "listeners": [{ "name": "public" }],
        "upstreams": { "origin": { "endpoints": [format!("https://localhost:{port}")], "tls": tls } },
        "routes": [{ "upstream": "origin", "rewrite": { "host": "endpoint" } }],
    }))
}

#[test]
fn an_upstream_that_proves_itself_is_spoken_to_and_its_connection_kept() {
    let (authority, origin) = (Authority::new("trusted"), Origin::echo());
    let behind = encrypted(&origin, json!({ "certificates": [authority.sign(&["localhost"])] }));
    let gateway = chained(&behind, json!({ "ca": authority.file("ca.pem") }));
    let content: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    let mut client = gateway.client();
    for _ in 0..5 {
        client.post("/", &content);
        assert!(client.response().body == content);
    }
    assert_eq!(behind.metrics().sum("postern_tls_handshakes_total", &[("listener", "public")]), 1.0);
}

#[test]
fn an_upstream_that_does_not_prove_itself_gets_nothing_and_the_log_says_why() {
    let (authority, strangers, origin) = (Authority::new("trusted"), Authority::new("other"), Origin::saying("hello"));
    // Somebody else who calls itself the same.
    let impostor = Authority::new("trusted");
    let ca = json!(authority.file("ca.pem"));
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2998, 1, 1);
    for (certificate, tls, reason) in [
        (strangers.sign(&["localhost"]), json!({ "ca": ca }), "leads to no authority that is trusted"),
        (impostor.sign(&["localhost"]), json!({ "ca": ca }), "not signed by the authority that it names"),
        (authority.sign(&["elsewhere"]), json!({ "ca": ca }), "its certificate is not for localhost"),
        (authority.sign_until(&["localhost"], 2001), json!({ "ca": ca }), "its certificate has expired"),
        (authority.sign_with(&["localhost"], early), json!({ "ca": ca }), "its certificate is not valid yet"),
        (authority.sign_with(&["localhost"], for_clients), json!({ "ca": ca }), "for another purpose"),
        (
            authority.sign(&["localhost"]),
            json!({ "ca": ca, "server_name": "elsewhere" }),
            "its certificate is not for elsewhere",
        ),
        (
            authority.sign(&["localhost"]),
            json!({ "ca": ca, "pins": ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] }),
            "its public key is none of those that are pinned",
        ),
    ] {
        let behind = encrypted(&origin, json!({ "certificates": [certificate] }));
        let gateway = chained(&behind, tls);

        let answer = gateway.get("/");

        assert_eq!(answer.status(), 502, "{reason}");
        assert!(answer.text().contains("connect-failed"), "{}", answer.text());
        assert!(!answer.text().contains("certificate") && !answer.text().contains(reason), "{}", answer.text());
        eventually("the log says why", || gateway.stderr().contains(reason));
        assert!(origin.received().is_empty());
    }
}

#[test]
fn an_upstream_that_never_answers_the_handshake_is_one_that_takes_too_long_to_connect_to() {
    let (authority, origin) = (Authority::new("trusted"), Origin::scripted(|peer| peer.stall()));
    let mut config = proxy_to(&origin);
    config["upstreams"]["origin"]["endpoints"] = json!([origin.endpoint.replace("http://", "https://")]);
    config["upstreams"]["origin"]["tls"] = json!({ "ca": authority.file("ca.pem") });
    config["upstreams"]["origin"]["timeouts"] = json!({ "connect": "100ms" });
    let gateway = Gateway::start(config);

    for _ in 0..5 {
        assert_eq!(gateway.get("/").status(), 504);
    }
}

#[test]
fn the_gateway_shows_its_own_certificate_to_an_upstream_that_wants_one() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem") });
    let certificates = json!([authority.sign(&["localhost"])]);
    let behind = encrypted(&origin, json!({ "certificates": certificates, "client_certificates": clients }));
    let ca = authority.file("ca.pem");

    let anonymous = chained(&behind, json!({ "ca": ca }));
    assert_eq!(anonymous.get("/").status(), 502);
    assert!(origin.received().is_empty());

    let proven = chained(&behind, json!({ "ca": ca, "certificate": authority.sign(&["gateway"]) }));
    assert_eq!(proven.get("/").text(), "hello");
}

/// Without the word that it is over, the end of the connection may be somebody else's doing.
#[test]
fn a_response_that_ends_with_its_connection_is_whole_only_if_tls_says_so() {
    let (authority, origin) = (
        Authority::new("trusted"),
        Origin::scripted(|peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
        }),
    );
    let gateway = encrypted(&origin, json!({ "certificates": [authority.sign(&["a.example"])] }));
    let whole = curl(&gateway, &authority, &["--http1.0"]);
    assert!(whole.status.success(), "{}", latin1(&whole.stderr));
    assert!(latin1(&whole.stdout).ends_with("until the end"));
}

#[test]
fn a_drain_says_the_end_to_idle_clients() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let mut gateway = encrypted(&origin, json!({ "certificates": [authority.sign(&["a.example"])] }));
    let client = Command::new("sh")
        .args(["-c", &format!("sleep 5 | timeout 10 openssl s_client -connect {} 2>&1", gateway.address())])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is installed");
    eventually("it is connected", || {
        gateway.metrics().sum("postern_tls_handshakes_total", &[("listener", "public")]) == 1.0
    });

    assert_eq!(gateway.terminate().code(), Some(0));

    let said = latin1(&client.wait_with_output().expect("it ends").stdout);
    assert!(said.contains("closed") && !said.contains("unexpected eof"), "{said}");
}
