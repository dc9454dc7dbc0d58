//! A warm request allocates nothing: the whole gateway runs in this process, beside a client and a backend that allocate nothing either, under an
//! allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use postern::config;
use postern::shard::start;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes every call on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: usize = 200;
const MEASURED: usize = 2_000;

/// A request, the backend's response to it, and what ends the response that the client gets.
struct Case {
    name: &'static str,
    request: &'static [u8],
    response: &'static [u8],
    end: &'static [u8],
}

const CASES: [Case; 5] = [
    Case {
        name: "a GET with a small response",
        request: b"GET /small?q=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        end: b"hello",
    },
    Case {
        name: "a POST with a small body",
        request: b"POST /post HTTP/1.1\r\nHost: example.com\r\nContent-Length: 11\r\n\r\nhello=world",
        response: b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
        end: b"ok",
    },
    Case {
        name: "a chunked request and a chunked response",
        request:
            b"PUT /chunks HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        end: b"\r\n0\r\n\r\n",
    },
    Case {
        name: "a HEAD",
        request: b"HEAD /head HTTP/1.1\r\nHost: example.com\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        end: b"\r\n\r\n",
    },
    Case {
        name: "a rewritten path, edited fields and a normalised escape",
        request: b"GET /old/%7Euser/../a HTTP/1.1\r\nHost: example.com\r\nX-Secret: 1\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nX-Powered-By: origin\r\nContent-Length: 3\r\n\r\nyes",
        end: b"yes",
    },
];

const CONFIG: &str = r#"{
    "shards": 1,
    "log": { "level": "error" },
    "listeners": [ { "address": "127.0.0.1:$PORT" } ],
    "upstreams": { "origin": { "endpoints": ["http://127.0.0.1:$ORIGIN"] } },
    "routes": [
        { "upstream": "origin" },
        { "match": { "path": "/old/{*rest}" }, "upstream": "origin", "rewrite": { "path": "/new/{rest}" },
          "request_headers": { "remove": ["x-secret"], "set": { "x-added": "1" } },
          "response_headers": { "remove": ["x-powered-by"], "set": { "x-added": "2" } } }
    ]
}"#;

/// Reads until what was read ends with `end`; allocates nothing.
fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = [0; 4096];
    let mut len = 0;
    while !bytes[..len].ends_with(end) {
        let count = stream.read(&mut bytes[len..]).expect("readable");
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&bytes[..len]));
        len += count;
    }
}

fn answer(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    loop {
        let mut len = 0;
        // Each request of a case comes whole: it is small, and the gateway sends it in one piece.
        len += match stream.read(&mut bytes[len..]) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let method = &bytes[..len.min(4)];
        let path = bytes[..len].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let case = CASES.iter().find(|case| {
            let wanted = case.request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            case.request.starts_with(method)
                && (wanted == path || path.starts_with(b"/new/") && wanted.starts_with(b"/old/"))
        });
        let Some(case) = case else { panic!("{:?}", String::from_utf8_lossy(&bytes[..len])) };
        if stream.write_all(case.response).is_err() {
            return;
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

#[test]
fn a_warm_request_allocates_nothing() {
    let origin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (port, origin_port) = (free_port(), origin.local_addr().expect("bound").port());
    thread::spawn(move || origin.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer(stream)))));

    let text = CONFIG.replace("$PORT", &port.to_string()).replace("$ORIGIN", &origin_port.to_string());
    let plan = config::parse(&text, Path::new(""), &|_| None).expect("a good configuration");
    let (is_ready, ready) = mpsc::channel();
    thread::spawn(move || start::run(plan, move || is_ready.send(()).expect("the test waits")));
    ready.recv().expect("the gateway starts");

    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("the gateway accepts");
    client.set_nodelay(true).expect("a socket option");
    let mut request = |case: &Case| {
        client.write_all(case.request).expect("writable");
        read_until(&mut client, case.end);
    };
    for case in &CASES {
        (0..WARM_UP).for_each(|_| request(case));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..MEASURED).for_each(|_| request(case));
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{}: allocations in {MEASURED} requests", case.name);
    }
}
