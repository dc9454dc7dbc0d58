//! The gateway under test: the binary that was built, with a configuration of the test's own, in a process of its own.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{self, Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::proxy_to;
use super::message::{Message, latin1};
use super::{Client, Metrics, Origin, PATIENCE, TempDir, eventually};

/// How often a gateway is started anew because somebody else took a port in the meantime.
const TRIES: usize = 5;

/// A running gateway. It is killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    config: Value,
    stdout: Captured,
    stderr: Captured,
    directory: TempDir,
}

/// What a process has written so far.
type Captured = Arc<Mutex<Vec<u8>>>;

/// Runs the binary to its end.
pub fn postern(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the binary was built and can be run")
}

impl Gateway {
    /// Starts a gateway and waits until it is ready. It has one shard unless the configuration says otherwise.
    pub fn start(config: Value) -> Self {
        Self::start_read_by(config, capture)
    }

    /// Starts a gateway whose standard output and error nobody reads.
    pub fn start_unread(config: Value) -> Self {
        Self::start_read_by(config, |pipe| {
            // Kept open: a pipe that is closed is another case.
            std::mem::forget(pipe);
            Captured::default()
        })
    }

    fn start_read_by(config: Value, read: fn(OwnedFd) -> Captured) -> Self {
        for _ in 0..TRIES {
            let mut gateway = Self::spawn(with_defaults(config.clone()), read);
            match gateway.wait_until_ready() {
                Ok(()) => return gateway,
                Err(stderr) if stderr.contains("in use") => {}
                Err(stderr) => panic!("the gateway does not start:\n{stderr}"),
            }
        }
        panic!("every port that the system offers is in use");
    }

    /// A gateway that sends everything to this origin.
    pub fn before(origin: &Origin) -> Self {
        Self::start(proxy_to(origin))
    }

    fn spawn(config: Value, read: fn(OwnedFd) -> Captured) -> Self {
        let directory = TempDir::new();
        let file = directory.write("postern.json", &config.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .arg("run")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built and can be run");
        let stdout = read(child.stdout.take().expect("stdout is piped").into());
        let stderr = read(child.stderr.take().expect("stderr is piped").into());
        Self { child, config, stdout, stderr, directory }
    }

    /// Fails with what the process wrote when it ends instead.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let admin = self.admin();
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if self.child.try_wait().expect("it is our child").is_some() {
                // The thread that reads it may be a moment behind.
                thread::sleep(Duration::from_millis(50));
                return Err(self.stderr());
            }
            if let Ok(mut client) = Client::try_connect(&admin)
                && client.try_send("GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n").is_ok()
                && client
                    .try_response("GET")
                    .is_ok_and(|response| response.status() == 200 && response.has("x-request-id"))
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the gateway is not ready:\n{}", self.stderr());
    }

    /// The address of the first listener that is not admin.
    pub fn address(&self) -> String {
        self.address_where(|listener| listener["admin"] != true)
    }

    /// The address of the listener of this name.
    pub fn address_of(&self, name: &str) -> String {
        self.address_where(|listener| listener["name"] == name)
    }

    pub fn admin(&self) -> String {
        self.address_where(|listener| listener["admin"] == true)
    }

    fn address_where(&self, wanted: impl Fn(&Value) -> bool) -> String {
        let listeners = self.config["listeners"].as_array().expect("a list");
        let listener = listeners.iter().find(|listener| wanted(listener)).expect("such a listener");
        listener["address"].as_str().expect("with_defaults gave it one").to_owned()
    }

    /// A new connection to the first listener.
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    /// Asks on a connection of its own.
    pub fn get(&self, path: &str) -> Message {
        self.client().get(path).response()
    }

    /// Asks the admin listener.
    pub fn ask_admin(&self, path: &str) -> Message {
        Client::connect(&self.admin()).get(path).response()
    }

    /// What the counters say now.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask_admin("/metrics").text()).unwrap_or_else(|fault| panic!("metrics: {fault}"))
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors that the process has open.
    pub fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.process_id());
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}")).count()
    }

    /// Bytes of memory that the process has now.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it has had since [`forget_peak_memory`](Self::forget_peak_memory).
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    pub fn forget_peak_memory(&self) {
        let file = format!("/proc/{}/clear_refs", self.process_id());
        fs::write(&file, "5").unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    fn memory(&self, key: &str) -> u64 {
        let file = format!("/proc/{}/status", self.process_id());
        let status = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let kibibytes: Option<u64> =
            status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
        1024 * kibibytes.unwrap_or_else(|| panic!("no {key} in {status}"))
    }

    pub fn directory(&self) -> &TempDir {
        &self.directory
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        latin1(&self.stdout.lock().expect("no thread panics while it holds this"))
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        latin1(&self.stderr.lock().expect("no thread panics while it holds this"))
    }

    /// The lines on standard output that contain this, once there are so many of them, whole.
    pub fn wait_for_lines(&self, needle: &str, count: usize) -> Vec<String> {
        let found = || -> Vec<String> {
            let stdout = self.stdout();
            let whole = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(needle));
            whole.map(|line| line.trim_end().to_owned()).collect()
        };
        eventually("the lines are written", || found().len() >= count);
        found()
    }

    /// Asks the process to drain and end.
    pub fn ask_to_terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.process_id())]).status();
        assert!(sent.expect("there is a shell").success(), "the gateway is gone:\n{}", self.stderr());
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < give_up, "the gateway does not end:\n{}", self.stderr());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the process to end, and waits for it.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_terminate();
        self.wait()
    }

    /// Whether the process runs still.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- standard error of the gateway:\n{}", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn capture(pipe: OwnedFd) -> Captured {
    let mut pipe = fs::File::from(pipe);
    let captured = Captured::default();
    let writing = Arc::clone(&captured);
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            writing.lock().expect("no thread panics while it holds this").extend_from_slice(&piece[..count]);
        }
    });
    captured
}

fn with_defaults(mut config: Value) -> Value {
    let object = config.as_object_mut().expect("a configuration is an object");
    object.entry("shards").or_insert(json!(1));
    let listeners = object["listeners"].as_array_mut().expect("listeners are a list");
    if !listeners.iter().any(|listener| listener["admin"] == true) {
        listeners.push(json!({ "name": "admin", "admin": true }));
    }
    for listener in listeners {
        let listener = listener.as_object_mut().expect("a listener is an object");
        listener.entry("address").or_insert_with(|| json!(format!("127.0.0.1:{}", free_port())));
    }
    config
}

/// A port that nobody listens on, and that no other test of this process is given: listeners of two gateways that share
/// their port would share their clients too.
///
/// It is below those that the system gives to whoever asks for any, so that nobody takes it before the gateway does.
pub fn free_port() -> u16 {
    const SPAN: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    static LOWEST: LazyLock<u32> = LazyLock::new(|| {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let first = range.split_whitespace().next().and_then(|first| first.parse::<u32>().ok());
        first.unwrap_or(32_768).saturating_sub(SPAN).max(1024)
    });
    loop {
        // Test runs beside this one begin elsewhere.
        let offset = process::id().wrapping_mul(997).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % SPAN;
        let port = u16::try_from(*LOWEST + offset).expect("20,000 ports lie between 1024 and 65,535");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
