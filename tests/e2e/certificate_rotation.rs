//! Files of certificates change while the gateway runs: what is new holds for new connections, and nothing that is open is touched.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::client_certificates::field_of;
use crate::harness::{Authority, Gateway, Metrics, Origin, TlsCaller, certificate_in, eventually, pause};
use crate::tls::{chained, encrypted};

/// Far off.
fn never() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)
}

fn renewals(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("postern_certificate_reloads_total", &[])
}

fn refusals(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("postern_certificate_reload_failures_total", &[])
}

/// Has the gateway look at its files, and waits until it has taken so many over.
fn taken_over(gateway: &Gateway, count: f64) {
    gateway.signal("HUP");
    eventually("the files are taken over", || {
        // Under load a shard may take too long to be counted.
        let answer = gateway.ask_admin("/metrics");
        let renewals =
            || Metrics::parse(&answer.text()).expect("metrics").sum("postern_certificate_reloads_total", &[]);
        answer.status() == 200 && renewals() == count
    });
}

fn chain(certificate: &Value) -> &str {
    certificate["chain"].as_str().expect("a file")
}

#[test]
fn a_renewed_certificate_is_for_new_connections_and_open_ones_go_on() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificate = authority.issue("site", &["localhost"], never());
    let gateway = encrypted(&origin, json!({ "certificates": [certificate] }));
    let caller = || TlsCaller::new(&authority, None);
    let mut open = caller().get(&gateway.address()).expect("an answer");
    let first = certificate_in(chain(&certificate));
    assert_eq!(open.certificate(), first);

    authority.issue("site", &["localhost"], never());

    // Nobody tells the gateway.
    let second = certificate_in(chain(&certificate));
    eventually("the new one is shown", || {
        let shown = caller().get(&gateway.address()).expect("an answer").certificate();
        assert!([&first, &second].contains(&&shown));
        shown == second
    });
    assert_eq!(open.get("/").expect("its connection is not touched").text(), "hello");
    eventually("it is counted, and the others are closed", || {
        let metrics = gateway.metrics();
        let open = metrics.sum("postern_connections_open", &[("listener", "public")]);
        (metrics.sum("postern_certificate_reloads_total", &[]), open) == (1.0, 1.0)
    });
    eventually("it is logged", || gateway.stderr().contains("site.pem"));
}

/// As Kubernetes does it: the files are symbolic links into a directory that is a symbolic link, which is replaced.
#[test]
fn a_swapped_directory_is_noticed() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let directory = origin_directory(&authority);
    for version in ["v1", "v2"] {
        let certificate = authority.issue(version, &["localhost"], never());
        fs::create_dir(directory.join(version)).expect("a new name");
        fs::rename(chain(&certificate), directory.join(version).join("tls.crt")).expect("the same file system");
        fs::rename(certificate["key"].as_str().expect("a file"), directory.join(version).join("tls.key")).expect("so");
    }
    symlink("v1", directory.join("..data")).expect("a new name");
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), directory.join(file)).expect("a new name");
    }
    let (crt, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let gateway = encrypted(&origin, json!({ "certificates": [{ "chain": crt, "key": key }] }));
    let shown = || TlsCaller::new(&authority, None).get(&gateway.address()).expect("an answer").certificate();
    let before = shown();

    symlink("v2", directory.join("..new")).expect("a new name");
    fs::rename(directory.join("..new"), directory.join("..data")).expect("the same directory");
    taken_over(&gateway, 1.0);

    let after = shown();
    assert_ne!(after, before);
    assert_eq!(after, certificate_in(&crt.display().to_string()));
    assert_eq!(refusals(&gateway), 0.0);
}

fn origin_directory(authority: &Authority) -> std::path::PathBuf {
    let directory = std::path::PathBuf::from(authority.file("secret"));
    fs::create_dir(&directory).expect("a new name");
    directory
}

#[test]
fn what_is_of_no_use_leaves_the_old_one_in_place_and_is_said_once() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates =
        [authority.issue("one", &["localhost"], never()), authority.issue("two", &["b.example"], never())];
    let gateway = encrypted(&origin, json!({ "certificates": certificates }));
    let first = certificate_in(chain(&certificates[0]));
    let shown = || TlsCaller::new(&authority, None).get(&gateway.address()).expect("an answer").certificate();
    let key = fs::read_to_string(authority.file("two.key")).expect("it was written");

    for (count, file, content, reason) in [
        (1.0, "one.pem", "-----BEGIN CERTIFICATE-----\nMII", "damaged"),
        (2.0, "one.key", &key, "damaged"),
        (3.0, "one.pem", &first_pem(&authority), "does not belong"),
    ] {
        authority.replace(file, content);
        gateway.signal("HUP");
        eventually("it is counted", || refusals(&gateway) == count);
        assert_eq!(shown(), first);
        eventually("the log says why", || gateway.stderr().contains(reason));
    }
    // What is bad does not get worse by being looked at.
    gateway.signal("HUP");
    pause(2500);
    assert_eq!((renewals(&gateway), refusals(&gateway)), (0.0, 3.0));
    assert_eq!(gateway.stderr().matches("what was read before stays in use").count(), 3, "{}", gateway.stderr());

    authority.issue("one", &["localhost"], never());
    taken_over(&gateway, 1.0);
    assert_eq!(shown(), certificate_in(chain(&certificates[0])));
}

/// A chain that is whole, and another's.
fn first_pem(authority: &Authority) -> String {
    fs::read_to_string(authority.file("ca.pem")).expect("it was written")
}

#[test]
fn metrics_tell_when_each_certificate_in_use_ends() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let behind = encrypted(&origin, json!({ "certificates": [authority.issue("site", &["localhost"], never())] }));
    let own = authority.issue("own", &["gateway"], never() - Duration::from_secs(9));
    let gateway = chained(&behind, json!({ "ca": authority.file("ca.pem"), "certificate": own }));
    let end = |gateway: &Gateway, file: &str| {
        gateway.metrics().sum("postern_certificate_not_after_seconds", &[("file", &authority.file(file))])
    };
    eventually("they are looked at", || gateway.metrics().samples.iter().any(|it| it.name.contains("not_after")));
    eventually("they are looked at", || behind.metrics().samples.iter().any(|it| it.name.contains("not_after")));
    assert_eq!((end(&behind, "site.pem"), end(&gateway, "own.pem")), (4_000_000_000.0, 3_999_999_991.0));

    authority.issue("site", &["localhost"], never() + Duration::from_secs(1));
    taken_over(&behind, 1.0);

    assert_eq!(end(&behind, "site.pem"), 4_000_000_001.0);
}

// === Clients' certificates ===

#[test]
fn a_session_is_resumed_across_a_renewal_of_the_listeners_certificate() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificate = authority.issue("site", &["localhost"], never());
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem") });
    let gateway = encrypted(&origin, json!({ "certificates": [certificate], "client_certificates": clients }));
    let caller = TlsCaller::new(&authority, Some(&authority.sign(&["client"])));
    assert!(!caller.get(&gateway.address()).expect("an answer").is_resumed());

    authority.issue("site", &["localhost"], never());
    taken_over(&gateway, 1.0);

    assert!(caller.get(&gateway.address()).expect("an answer").is_resumed());
}

#[test]
fn whose_authority_is_trusted_no_more_is_refused_with_a_session_from_before_too() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let (former, later) = (Authority::new("former"), Authority::new("later"));
    authority.replace("clients.pem", &fs::read_to_string(former.file("ca.pem")).expect("it was written"));
    let clients = json!({ "mode": "required", "ca": authority.file("clients.pem") });
    let certificates = json!([authority.sign(&["localhost"])]);
    let gateway = encrypted(&origin, json!({ "certificates": certificates, "client_certificates": clients }));
    let out = TlsCaller::new(&authority, Some(&former.sign(&["client"])));
    let r#in = TlsCaller::new(&authority, Some(&later.sign(&["client"])));
    let mut open = out.get(&gateway.address()).expect("an answer");
    assert!(out.get(&gateway.address()).expect("an answer").is_resumed());
    assert!(r#in.get(&gateway.address()).is_err());

    authority.replace("clients.pem", &fs::read_to_string(later.file("ca.pem")).expect("it was written"));
    taken_over(&gateway, 1.0);

    let served = origin.requests().len();
    assert!(out.get(&gateway.address()).is_err());
    assert_eq!(origin.requests().len(), served);
    assert!(r#in.get(&gateway.address()).is_ok());
    assert!(open.get("/").is_ok(), "connections that are open are not touched");
}

#[test]
fn a_client_that_is_revoked_is_refused_with_a_session_from_before_too() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let crl = authority.revoke(999);
    let certificates = json!([authority.sign(&["localhost"])]);
    let clients = json!({ "mode": "optional", "ca": authority.file("ca.pem"), "crl": [crl] });
    let gateway = encrypted(&origin, json!({ "certificates": certificates, "client_certificates": clients }));
    let (revoked, other) = (authority.sign(&["revoked"]), authority.sign(&["other"]));
    let revoked = TlsCaller::new(&authority, Some(&revoked));
    assert!(revoked.get(&gateway.address()).is_ok());
    assert!(revoked.get(&gateway.address()).expect("an answer").is_resumed());

    authority.revoke(2);
    taken_over(&gateway, 1.0);

    assert!(revoked.get(&gateway.address()).is_err());
    assert!(TlsCaller::new(&authority, Some(&other)).get(&gateway.address()).is_ok());
}

#[test]
fn a_client_whose_certificate_has_ended_is_refused_with_a_session_from_before_too() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let certificates = json!([authority.sign(&["localhost"])]);
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem") });
    let gateway = encrypted(&origin, json!({ "certificates": certificates, "client_certificates": clients }));
    let end = SystemTime::now() + Duration::from_secs(4);
    let caller = TlsCaller::new(&authority, Some(&authority.issue("short", &["client"], end)));
    assert!(!caller.get(&gateway.address()).expect("an answer").is_resumed());
    assert!(caller.get(&gateway.address()).expect("an answer").is_resumed());

    // Each session resumes the one before it.
    eventually("it is refused", || caller.get(&gateway.address()).is_err());
    assert!(SystemTime::now() >= end - Duration::from_secs(1));
}

// === Upstreams ===

/// The connections that the gateway has opened to its upstream, and of these those that are open and idle.
fn connections(gateway: &Gateway) -> (f64, f64, f64) {
    let metrics = gateway.metrics();
    let of = |name: &str| metrics.sum(&format!("postern_upstream_{name}"), &[("upstream", "origin")]);
    (of("connects_total"), of("connections_open"), of("connections_idle"))
}

/// A gateway that wants to know who it is spoken to by, and tells the origin.
fn asking(origin: &Origin, authority: &Authority) -> Gateway {
    let clients = json!({ "mode": "required", "ca": authority.file("ca.pem"), "forward": true });
    encrypted(origin, json!({ "certificates": [authority.sign(&["localhost"])], "client_certificates": clients }))
}

/// Neither the connections nor the sessions of the old one serve any more.
#[test]
fn after_its_renewal_only_the_new_certificate_is_shown_to_an_upstream() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    let behind = asking(&origin, &authority);
    let own = authority.issue("own", &["before"], never());
    let gateway = chained(&behind, json!({ "ca": authority.file("ca.pem"), "certificate": own }));
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").response().text(), "hello");
    }
    assert_eq!(connections(&gateway), (1.0, 1.0, 1.0));

    authority.issue("own", &["after"], never());
    taken_over(&gateway, 1.0);
    eventually("what is idle is closed", || connections(&gateway) == (1.0, 0.0, 0.0));
    for _ in 0..2 {
        assert_eq!(client.get("/").response().text(), "hello");
    }

    assert_eq!(connections(&gateway), (2.0, 1.0, 1.0));
    let told: Vec<String> = origin.requests().iter().map(|it| it.values("client-cert").join(", ")).collect();
    assert_eq!((&told[0], &told[2]), (&told[1], &told[3]));
    assert_ne!(told[0], told[2]);
}

#[test]
fn a_request_under_way_is_finished_on_its_connection_which_is_not_kept() {
    let authority = Authority::new("trusted");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            held.lock().expect("one at a time").recv().expect("the test goes on");
            peer.send(crate::harness::ok("hello"));
        }
    });
    let behind = asking(&origin, &authority);
    let own = authority.issue("own", &["before"], never());
    let gateway = chained(&behind, json!({ "ca": authority.file("ca.pem"), "certificate": own }));
    let mut client = gateway.client();
    client.get("/");
    origin.wait_for_requests(1);

    authority.issue("own", &["after"], never());
    taken_over(&gateway, 1.0);
    assert_eq!(connections(&gateway), (1.0, 1.0, 0.0));
    release.send(()).expect("it waits");

    assert_eq!(client.response().text(), "hello");
    release.send(()).expect("it waits");
    assert_eq!(client.get("/").response().text(), "hello");

    assert_eq!(connections(&gateway), (2.0, 1.0, 1.0));
    let told: HashSet<String> = origin.requests().iter().map(|it| it.values("client-cert").join(", ")).collect();
    assert_eq!(told.len(), 2, "the second request came by the new certificate");
}

#[test]
fn an_upstream_whose_authority_is_trusted_no_more_is_not_spoken_to() {
    let (authority, other, origin) = (Authority::new("trusted"), Authority::new("other"), Origin::saying("hello"));
    let behind = encrypted(&origin, json!({ "certificates": [authority.sign(&["localhost"])] }));
    authority.replace("upstream.pem", &fs::read_to_string(authority.file("ca.pem")).expect("it was written"));
    let gateway = chained(&behind, json!({ "ca": authority.file("upstream.pem") }));
    assert_eq!(gateway.get("/").text(), "hello");

    authority.replace("upstream.pem", &fs::read_to_string(other.file("ca.pem")).expect("it was written"));
    taken_over(&gateway, 1.0);

    assert_eq!(gateway.get("/").status(), 502);
    assert_eq!(origin.requests().len(), 1);
}

/// Whichever of the two it is.
#[test]
fn a_connection_is_kept_no_longer_than_the_certificates_last_that_it_was_opened_with() {
    let (authority, origin) = (Authority::new("trusted"), Origin::saying("hello"));
    for (theirs, ours) in [(true, false), (false, true)] {
        let soon = SystemTime::now() + Duration::from_secs(6);
        let end = |is_soon| if is_soon { soon } else { never() };
        let behind =
            encrypted(&origin, json!({ "certificates": [authority.issue("site", &["localhost"], end(theirs))] }));
        let own = authority.issue("own", &["gateway"], end(ours));
        let gateway = chained(&behind, json!({ "ca": authority.file("ca.pem"), "certificate": own }));
        let mut client = gateway.client();
        assert_eq!(client.get("/").response().text(), "hello");
        assert_eq!(connections(&gateway), (1.0, 1.0, 1.0));

        eventually("it is closed", || connections(&gateway) == (1.0, 0.0, 0.0));

        assert!(SystemTime::now() >= soon - Duration::from_secs(1));
        let answer = client.get("/").response();
        if theirs {
            assert_eq!(answer.status(), 502);
        } else {
            // An upstream that takes it is spoken to, one connection for each request.
            assert_eq!(answer.text(), "hello");
            eventually("it is not kept", || connections(&gateway) == (2.0, 0.0, 0.0));
        }
    }
}

// === All at once ===

/// Asks until it is told to stop: with GET and POST, on connections that serve one request, two or many. Returns how many requests were answered.
fn hammer(gateway: &Gateway, authority: &Authority, is_over: &AtomicBool) -> usize {
    let (mut caller, mut asked) = (TlsCaller::new(authority, None), 0);
    while !is_over.load(Ordering::Relaxed) {
        if asked % 4 == 0 {
            // Without a session from before.
            caller = TlsCaller::new(authority, None);
        }
        let mut client = caller.connect(&gateway.address()).expect("a handshake");
        for number in 0..[1, 2, 50][asked % 3] {
            let content = format!("content {asked}.{number}");
            let answer = match number % 2 {
                0 => client.post("/load", content.as_bytes()),
                _ => client.get("/load"),
            };
            let answer = answer.unwrap_or_else(|error| panic!("request {number} of a connection: {error}"));
            assert_eq!((answer.status(), answer.text()), (200, if number % 2 == 0 { content } else { String::new() }));
            asked += 1;
        }
    }
    asked
}

/// Ends the load also when the test fails.
struct Load<'a>(&'a AtomicBool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn under_load_certificates_are_renewed_on_both_sides_and_no_request_fails() {
    const ROUNDS: u32 = 5;
    let (authority, origin) = (Authority::new("trusted"), Origin::echo());
    let behind = asking(&origin, &authority);
    let (site, own) = (authority.issue("site", &["localhost"], never()), authority.issue("own", &["gateway"], never()));
    let port = behind.address().rsplit(':').next().expect("a port").to_owned();
    let gateway = Gateway::start(json!({
        "shards": 2,
        "listeners": [{ "name": "public", "tls": { "certificates": [site] } }],
        "upstreams": { "origin": {
            "endpoints": [format!("https://localhost:{port}")],
            "tls": { "ca": authority.file("ca.pem"), "certificate": own },
        } },
        "routes": [{ "upstream": "origin" }],
    }));
    let shown = || TlsCaller::new(&authority, None).get(&gateway.address()).expect("an answer").certificate();
    let told = || {
        let ours = origin.requests().into_iter().rfind(|request| request.target() == "/");
        ours.map(|request| request.values("client-cert").join(", "))
    };
    let is_over = AtomicBool::new(false);
    let (mut sites, mut owns) = (HashSet::new(), HashSet::new());

    thread::scope(|scope| {
        let load = Load(&is_over);
        let clients = [(); 4].map(|()| scope.spawn(|| hammer(&gateway, &authority, &is_over)));
        for round in 0..ROUNDS {
            sites.insert(shown());
            owns.insert(told());
            let served = origin.requests().len();
            eventually("there is load", || origin.requests().len() > served + 20);
            authority.issue("site", &["localhost"], never());
            authority.issue("own", &["gateway"], never());
            taken_over(&gateway, f64::from(2 * (round + 1)));
            assert_eq!(shown(), certificate_in(chain(&site)));
        }
        let served = origin.requests().len();
        eventually("there is load", || origin.requests().len() > served + 20);
        drop(load);
        assert!(clients.into_iter().all(|client| client.join().expect("no request failed") > 0));
    });

    shown();
    owns.insert(told());
    assert_eq!(told(), Some(field_of(&own)));
    assert_eq!((sites.len(), owns.len()), (5, 6));
    let metrics = gateway.metrics();
    let failures = ["upstream_failures_total", "upstream_connect_failures_total", "tls_handshake_failures_total"];
    assert_eq!(failures.map(|name| metrics.sum(&format!("postern_{name}"), &[])), [0.0; 3]);
}
