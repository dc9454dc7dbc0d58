//! The command line: a gateway starts whole or not at all, and says why.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Origin, PATIENCE, TempDir, eventually, free_port, latin1, pause, postern};

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str], directory: &TempDir) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(arguments).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the binary was built and can be run"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(directory: &TempDir, config: &Value) -> String {
    directory.write("postern.json", &config.to_string()).display().to_string()
}

fn respond(listeners: Value) -> Value {
    json!({ "shards": 1, "listeners": listeners, "routes": [{ "respond": { "body": "served" } }] })
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_served() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().expect("a bound socket has an address").to_string();
    let free_address = format!("127.0.0.1:{}", free_port());
    let directory = TempDir::new();
    let file = write(&directory, &respond(json!([{ "address": free_address }, { "address": taken_address }])));
    let watched = free_address.clone();
    let watcher = thread::spawn(move || {
        let tries = (0..40).map(|_| {
            thread::sleep(Duration::from_millis(5));
            TcpStream::connect(&watched).is_ok()
        });
        tries.filter(|connected| *connected).count()
    });

    let output = postern(&["run", &file]);

    assert!(!output.status.success() && output.status.code().is_some(), "{output:?}");
    let message = latin1(&output.stderr);
    assert!(message.contains(&taken_address), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(watcher.join().expect("it only connects"), 0, "the other listener was served meanwhile");
}

#[test]
fn a_second_gateway_on_the_same_port_does_not_start() {
    let address = format!("127.0.0.1:{}", free_port());
    let directory = TempDir::new();
    let file = write(&directory, &respond(json!([{ "address": address }])));
    let _first = Running::start(&["run", &file], &directory);
    eventually("the first serves", || TcpStream::connect(&address).is_ok());

    let output = postern(&["run", &file]);

    assert!(!output.status.success(), "{output:?}");
    assert!(latin1(&output.stderr).contains(&address), "{output:?}");
    assert_eq!(Client::connect(&address).get("/").response().text(), "served");
}

#[test]
fn a_file_that_is_no_socket_is_named_and_left_alone() {
    let directory = TempDir::new();
    let precious = directory.write("data.db", "precious");
    let address = format!("unix:{}", precious.display());
    let file = write(&directory, &respond(json!([{ "address": address }])));

    let (code, message) = run_to_end(Command::new(env!("CARGO_BIN_EXE_postern")).args(["run", &file]));

    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains(&address), "{message}");
    assert_eq!(std::fs::read_to_string(precious).expect("it is there still"), "precious");
}

#[test]
fn without_descriptors_enough_it_ends_and_says_so() {
    let directory = TempDir::new();
    let mut config = respond(json!([{ "address": format!("127.0.0.1:{}", free_port()) }]));
    config["shards"] = json!(2);
    let file = write(&directory, &config);
    let mut failed_shards = 0;
    // Each number is too few at another place of the start.
    for descriptors in 8..20 {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n $0; exec \"$1\" run \"$2\"", &descriptors.to_string()]);
        let (code, message) = run_to_end(command.args([env!("CARGO_BIN_EXE_postern"), &file]));
        assert!(code.is_some_and(|code| code != 0), "with {descriptors} descriptors");
        failed_shards += usize::from(code == Some(3) && message.contains("did not start"));
    }
    assert!(failed_shards > 0, "it never came to a shard");
}

/// The exit code and standard error of what must end by itself.
fn run_to_end(command: &mut Command) -> (Option<i32>, String) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("it can be run"));
    let mut stderr = running.0.stderr.take().expect("stderr is piped");
    let reader = thread::spawn(move || {
        let mut message = String::new();
        stderr.read_to_string(&mut message).map(|_| message).expect("text")
    });
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = running.0.try_wait().expect("it is our child") {
            break status;
        }
        assert!(Instant::now() < give_up, "it does not end");
        thread::sleep(Duration::from_millis(5));
    };
    (status.code(), reader.join().expect("it only reads"))
}

#[test]
fn check_approves_of_every_example() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let quickstart = directory.join("quickstart.json").display().to_string();

    let output = postern(&["check", &quickstart]);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn check_and_run_say_everything_that_is_wrong_with_a_file() {
    let directory = TempDir::new();
    let address = format!("127.0.0.1:{}", free_port());
    let broken = json!({
        "listeners": [{ "address": address, "timeouts": { "headr": "1s", "body": "soon" } }],
        "routes": [{ "upstream": "nowhere" }],
    });
    let file = write(&directory, &broken);
    for command in ["check", "run"] {
        let output = postern(&[command, &file]);
        assert!(!output.status.success() && output.status.code().is_some(), "{command}: {output:?}");
        let message = latin1(&output.stderr) + &latin1(&output.stdout);
        for part in [
            "listeners[0].timeouts.headr",
            "\"header\"",
            "listeners[0].timeouts.body",
            "soon",
            "routes[0].upstream",
            "nowhere",
        ] {
            assert!(message.contains(part), "{command}: no {part} in {message}");
        }
    }
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn files_that_are_no_configuration_are_told_so() {
    let directory = TempDir::new();
    let missing = directory.join("missing.json").display().to_string();
    for (file, part) in [
        (missing.clone(), missing.as_str()),
        (directory.write("cut.json", "{ \"listeners\": [").display().to_string(), "line"),
        (directory.write("empty.json", "").display().to_string(), "empty.json"),
    ] {
        let output = postern(&["check", &file]);
        assert!(!output.status.success() && output.status.code().is_some(), "{file}: {output:?}");
        let message = latin1(&output.stderr);
        assert!(message.contains(part) && !message.contains("panicked"), "{file}: {message}");
    }
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let output = postern(&["schema"]);

    assert_eq!(output.status.code(), Some(0));
    let schema = serde_json::from_slice::<Value>(&output.stdout).expect("the schema is JSON");
    for key in ["listeners", "upstreams", "routes", "shards", "drain_timeout", "log", "access_log"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn help_lists_the_commands_and_a_wrong_one_is_an_error() {
    let output = postern(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = latin1(&output.stdout);
    for command in ["run", "check", "schema", "demo"] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))),
            "no {command} in {help}"
        );
    }
    assert!(!postern(&["serve"]).status.success());
    assert!(!postern(&[]).status.success());
}

#[test]
fn the_demo_serves_what_it_prints_and_needs_no_file() {
    let port = free_port().to_string();
    let directory = TempDir::new();
    let _demo = Running::start(&["demo", "--port", &port], &directory);
    let address = format!("127.0.0.1:{port}");

    // The demo tries whether the port is free before it serves there.
    eventually("the demo serves", || {
        Client::try_connect(&address).is_ok_and(|mut client| {
            let asked = client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok();
            asked && client.try_response("GET").is_ok_and(|response| response.status() < 500)
        })
    });

    assert_eq!(std::fs::read_dir(directory.path()).expect("it exists").count(), 0);
}

/// Pages of 2 MiB would cost several of them before the first request.
#[test]
fn memory_comes_in_small_pages() {
    let directory = TempDir::new();
    let port = free_port();
    let file = write(&directory, &respond(json!([{ "address": format!("127.0.0.1:{port}") }])));
    let running = Running::start(&["run", &file], &directory);
    eventually("it serves", || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).expect("it runs");

    // Linux 5.0 and newer say so.
    assert!(status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])), "{status}");
}

#[test]
fn a_hangup_ends_no_gateway_also_where_there_are_no_certificates_to_look_at() {
    let origin = Origin::saying("hello");
    let mut gateway = Gateway::before(&origin);

    gateway.signal("HUP");
    pause(100);

    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(gateway.terminate().code(), Some(0));
}
