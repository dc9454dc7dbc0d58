//! How one ends, by the byte.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{ASK, SWITCH, file};
use crate::harness::config::proxy_to;
use crate::harness::{Client, Gateway, Origin, eventually, latin1, pause};

/// As a server says that it is going away.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";
/// As a client answers it, or says so first.
const MASKED_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe9";

/// An origin that switches and answers a Close.
fn answering() -> Origin {
    Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            peer.read(8);
            peer.send(GOING_AWAY);
            peer.stall();
        }
    })
}

/// A client whose tunnel is there, and the gateway.
fn tunnel(origin: &Origin, change: impl FnOnce(&mut Value)) -> (Gateway, Client) {
    let mut config = proxy_to(origin);
    config["access_log"] = json!({});
    change(&mut config);
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    assert_eq!(client.send(ASK).response().status(), 101);
    (gateway, client)
}

/// What the origin got behind the head.
fn tunnelled(origin: &Origin) -> Vec<u8> {
    let received = origin.received().remove(0);
    let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    received[head + 4..].to_vec()
}

/// Whether these are a Close frame with status 1001 as a client sends it.
fn is_masked_going_away(frame: &[u8]) -> bool {
    let [0x88, 0x82, a, b, c, d, high, low] = *frame else { return false };
    [a, b, c, d] != [0; 4] && [high ^ a, low ^ b] == [3, 0xe9]
}

fn begin_drain(gateway: &Gateway) {
    gateway.ask_to_terminate();
    eventually("the drain has begun", || Client::try_connect(&gateway.address()).is_err());
}

#[test]
fn a_close_waits_for_the_end_of_the_frame_that_is_on_its_way() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send([SWITCH.as_bytes(), b"\x01\x04ab"].concat());
            // The other half, when the client's half has come behind the beginning of the drain, and another frame.
            peer.read(10);
            peer.send(b"cd\x80\x00\x82\x7e");
            peer.stall();
        }
    });
    let (mut gateway, mut client) = tunnel(&origin, |_| {});
    assert_eq!(client.read(4), b"\x01\x04ab");
    client.send(b"\x82\x84\0\0\0\0AB");
    eventually("the origin has it", || tunnelled(&origin).ends_with(b"AB"));

    begin_drain(&gateway);
    client.assert_silent();
    client.send(b"CD\x81\x81\0\0\0\0.\x82");

    // Whole frames go along; what has begun behind them does not.
    assert_eq!(client.read(8), [b"cd\x80\x00", GOING_AWAY].concat());
    eventually("the origin has it all", || tunnelled(&origin).len() == 25);
    let got = tunnelled(&origin);
    assert_eq!(got[..17], *b"\x82\x84\0\0\0\0ABCD\x81\x81\0\0\0\0.");
    assert!(is_masked_going_away(&got[17..]), "{got:x?}");
    // Neither has said goodbye, and what they say instead goes nowhere.
    client.send(b"\x85\0\0\0\0dropped");
    client.assert_silent();
    assert!(gateway.is_running());
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(tunnelled(&origin).len(), 25);
}

#[test]
fn a_drain_is_over_when_both_sides_have_answered() {
    let origin = answering();
    let (mut gateway, mut client) = tunnel(&origin, |config| config["drain_timeout"] = json!("1h"));

    begin_drain(&gateway);
    assert_eq!(client.read(4), GOING_AWAY);
    client.send(MASKED_CLOSE);

    client.assert_closed();
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(is_masked_going_away(&tunnelled(&origin)));
}

#[test]
fn tls_ends_in_order_where_both_sides_have_said_goodbye_and_only_there() {
    for answers in [true, false] {
        let origin = answering();
        let mut config = proxy_to(&origin);
        let certificate = json!({ "chain": file("config/tls/site.pem"), "key": file("config/tls/site.key") });
        config["listeners"][0]["tls"] = json!({ "certificates": [certificate] });
        let mut gateway = Gateway::start(config);
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &gateway.address()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut stdin = client.stdin.take().expect("it is piped");
        stdin.write_all(ASK.as_bytes()).expect("it reads");
        origin.wait_for_requests(1);

        gateway.ask_to_terminate();
        eventually("the origin is told", || is_masked_going_away(&tunnelled(&origin)));
        if answers {
            stdin.write_all(MASKED_CLOSE).expect("it reads");
        }

        assert_eq!(gateway.wait().code(), Some(0));
        let output = client.wait_with_output().expect("it ends with its connection");
        assert!(output.stdout.ends_with(GOING_AWAY), "{output:?}");
        let is_cut = latin1(&output.stderr).contains("unexpected eof");
        assert_eq!(is_cut, !answers, "{}", latin1(&output.stderr));
    }
}

#[test]
fn a_close_of_the_clients_own_goes_before_ours() {
    let origin = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            peer.stall();
        }
    });
    let (mut gateway, mut client) = tunnel(&origin, |_| {});
    client.send(MASKED_CLOSE);
    eventually("the origin has it", || tunnelled(&origin) == MASKED_CLOSE);

    begin_drain(&gateway);

    assert_eq!(client.read(4), GOING_AWAY);
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(tunnelled(&origin), MASKED_CLOSE, "a second one");
}

#[test]
fn what_is_no_websocket_is_left_alone_until_the_drains_time_is_up() {
    let echo = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    // The frames of a server are not masked, and those of no other protocol are any.
    for (switch, bytes) in [(SWITCH, "\u{1}\u{7f}no frames"), (echo, "")] {
        let origin = Origin::scripted(move |peer| {
            if peer.request().is_some() {
                peer.send([switch, bytes].concat());
                peer.stall();
            }
        });
        let mut config = proxy_to(&origin);
        config["drain_timeout"] = json!("1s");
        let mut gateway = Gateway::start(config);
        let mut client = gateway.client();
        let ask = ASK.replace("Upgrade: websocket", "Upgrade: websocket, echo");
        assert_eq!(client.send(ask).response().status(), 101);
        assert_eq!(client.read(bytes.len()), bytes.as_bytes());
        client.send("no frames");
        eventually("the origin has it", || tunnelled(&origin) == b"no frames");

        begin_drain(&gateway);
        client.send(", still").assert_silent();

        assert_eq!(gateway.wait().code(), Some(1));
        assert!(client.read_to_end().is_empty());
        assert_eq!(tunnelled(&origin), b"no frames, still");
    }
}

#[test]
fn a_side_that_takes_nothing_is_not_waited_for_like_one_that_says_nothing() {
    let flooding = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            while peer.try_send([0; 1 << 16]) {}
        }
    });
    let (gateway, _client) =
        tunnel(&flooding, |config| config["listeners"][0]["timeouts"] = json!({ "write": "300ms" }));
    let line = gateway.wait_for_lines("\"path\":\"/chat\"", 1).remove(0);
    assert!(line.contains("\"client-stalled\"") && line.contains("\"SI\""), "{line}");

    let deaf = Origin::scripted(|peer| {
        if peer.request().is_some() {
            peer.send(SWITCH);
            peer.pause(20_000);
        }
    });
    let (gateway, mut client) =
        tunnel(&deaf, |config| config["upstreams"]["origin"]["timeouts"] = json!({ "idle": "300ms" }));
    pause(600);
    while client.try_send([0; 1 << 16]).is_ok() {}
    let line = gateway.wait_for_lines("\"path\":\"/chat\"", 1).remove(0);
    assert!(line.contains("\"upstream-timeout\"") && line.contains("\"UT\""), "{line}");
}
