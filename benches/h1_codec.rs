//! What HTTP/1.1 costs: heads in, heads out, chunks in.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postern::logic::http::encode::{self, Persistence, RequestEncoding, RequestIdField, ResponseEncoding};
use postern::logic::http::{
    BodyFraming, BodyReader, ClientText, FieldSlots, Forwarding, HeadLimits, Parsed, RequestHead, ResponseContext,
    ResponseHead, Version, parse_request, parse_response,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, fields: 100, target: 8 * 1024 };

/// What load generators send.
const SHORT_REQUEST: &[u8] = b"GET /api/v1/items/4711 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What browsers send.
const BROWSER_REQUEST: &[u8] = b"GET /v2/ledger/accounts/4711?from=2025-01-01&to=2025-12-31&page=3 HTTP/1.1\r\n\
    Host: api.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not A(Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://api.example.com/v2/ledger/accounts?page=2\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=7d0f3a1c9b8e4f62a5d1c3b7e9f04a68; theme=dark; consent=analytics%3Dfalse%26ads%3Dfalse\r\n\
    If-None-Match: \"5f2b-1a2b3c4d5e6f\"\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
    DNT: 1\r\n\r\n";

const SHORT_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n";

const REQUEST_ID: RequestIdField<'static> =
    RequestIdField { name: "x-request-id", value: b"0123456789abcdef0123456789abcdef" };

fn request<'b>(bytes: &'b [u8], slots: &'b mut FieldSlots) -> RequestHead<'b> {
    let Ok(Parsed::Complete(head)) = parse_request(bytes, slots, &LIMITS) else { panic!("a whole request head") };
    head
}

fn response<'b>(bytes: &'b [u8], slots: &'b mut FieldSlots) -> ResponseHead<'b> {
    let Ok(Parsed::Complete(head)) = parse_response(bytes, slots, &LIMITS, ResponseContext::default()) else {
        panic!("a whole response head")
    };
    head
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h1_parse");
    let mut slots = FieldSlots::new();
    for (name, bytes) in [("request_short", SHORT_REQUEST), ("request_browser", BROWSER_REQUEST)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(request(black_box(bytes), &mut slots).len));
        });
    }
    group.throughput(Throughput::Bytes(SHORT_RESPONSE.len() as u64));
    group.bench_function("response_short", |bencher| {
        bencher.iter(|| black_box(response(black_box(SHORT_RESPONSE), &mut slots).len));
    });
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h1_encode");
    let mut slots = FieldSlots::new();
    let mut out = Vec::with_capacity(4096);
    let client = ClientText::new([192, 0, 2, 1].into());
    for (name, bytes) in [("request_short", SHORT_REQUEST), ("request_browser", BROWSER_REQUEST)] {
        let head = request(bytes, &mut slots);
        let forwarding = Forwarding {
            client_cert: None,
            client: &client,
            proto: "http",
            host: head.host,
            trusted: false,
            x_forwarded: true,
            forwarded: false,
        };
        let plan = RequestEncoding {
            path: head.path,
            query: head.query,
            host: head.host,
            framing: head.framing,
            forwarding,
            request_id: Some(REQUEST_ID),
            edits: &encode::NO_EDITS,
            expect_continue: false,
            upgrade: false,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                encode::request(&mut out, black_box(&head), black_box(&plan));
                black_box(out.len())
            });
        });
    }
    let head = response(SHORT_RESPONSE, &mut slots);
    let plan = ResponseEncoding {
        framing: head.framing,
        persistence: Persistence::of(Version::Http11, true),
        request_id: Some(REQUEST_ID),
        edits: &encode::NO_EDITS,
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
    };
    group.bench_function("response_short", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode::response(&mut out, black_box(&head), black_box(&plan));
            black_box(out.len())
        });
    });
    group.finish();
}

/// 64 KiB of content, as one receive might hold it.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h1_chunked");
    group.throughput(Throughput::Bytes(64 * 1024));
    for chunk in [64, 1024, 64 * 1024] {
        let mut body = Vec::new();
        for _ in 0..64 * 1024 / chunk {
            body.extend_from_slice(encode::chunk_prefix(chunk).as_ref());
            body.resize(body.len() + chunk, b'x');
            body.extend_from_slice(encode::CHUNK_SUFFIX);
        }
        encode::last_chunk(&mut body, b"");
        let mut buffer = body.clone();
        group.bench_function(BenchmarkId::new("decode", chunk), |bencher| {
            bencher.iter(|| {
                // Decoding moves content: the body is laid out again each time, which costs a copy of it.
                buffer.copy_from_slice(&body);
                let mut reader = BodyReader::new(BodyFraming::Chunked);
                black_box(reader.decode(black_box(&mut buffer)).expect("a sound body").content.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parsing, encoding, chunks);
criterion_main!(benches);
