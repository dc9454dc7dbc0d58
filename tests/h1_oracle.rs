//! The head parser beside httparse, which reads more kinds of heads: whatever ours takes, httparse takes too, and reads the same in it.
//!
//! The heads are those of the fuzz corpora and mutations of them, some hundred thousand from one seed; `ORACLE_SEED` sets another.

use std::fs;
use std::path::Path;

use postern::logic::http::{FieldSlots, HeadLimits, Parsed, ResponseContext, parse_request, parse_response};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 64, target: 1024 };
const MUTATIONS_PER_HEAD: usize = 4000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(folder).expect("the corpus is committed");
    entries.map(|entry| fs::read(entry.expect("readable").path()).expect("readable")).collect()
}

/// Mutates bytes the way that breaks heads: single bytes become delimiters, pieces are doubled, dropped or exchanged.
struct Mutator {
    state: u64,
}

impl Mutator {
    fn seeded() -> Self {
        let seed = std::env::var("ORACLE_SEED").map_or(7, |seed| seed.parse().expect("ORACLE_SEED is a number"));
        println!("ORACLE_SEED={seed}");
        Mutator { state: seed }
    }

    /// splitmix64
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }

    fn mutate(&mut self, head: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"\r\n\t \0:,;/?#*%.@[]-_019aAxX\x7f\x80\xff\"";
        let mut bytes = head.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let len = self.below(bytes.len() - at + 1).min(24);
            let telling = TELLING[self.below(TELLING.len())];
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = telling,
                1 => bytes.insert(at, telling),
                2 => drop(bytes.drain(at..at + len)),
                3 => drop(bytes.splice(at..at, bytes[at..at + len].to_vec())),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        bytes
    }
}

type Header<'b> = httparse::Header<'b>;

fn same_fields<'b>(ours: impl Iterator<Item = (&'b [u8], &'b [u8])>, theirs: &[Header<'_>]) {
    let ours: Vec<_> = ours.collect();
    let theirs: Vec<_> = theirs.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
    assert_eq!(ours, theirs);
}

/// Whether ours takes the head; httparse must agree then.
fn compare_request(bytes: &[u8]) -> bool {
    let mut slots = FieldSlots::new();
    let Ok(Parsed::Complete(head)) = parse_request(bytes, &mut slots, &LIMITS) else { return false };
    // httparse knows two versions; ours takes later minor ones for the second.
    let mut known = bytes.to_vec();
    let version = bytes.windows(7).position(|window| window == b"HTTP/1.").expect("a request line has a version") + 7;
    known[version] = known[version].min(b'1');
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(&known), Ok(httparse::Status::Complete(head.len)));
    assert_eq!(request.method, Some(head.method.as_str()));
    assert_eq!(request.path, Some(head.target));
    same_fields(head.fields.iter(), request.headers);
    true
}

fn compare_response(bytes: &[u8]) -> bool {
    let mut slots = FieldSlots::new();
    let context = ResponseContext { head_request: false, upgrade: Some(b"websocket") };
    let Ok(Parsed::Complete(head)) = parse_response(bytes, &mut slots, &LIMITS, context) else { return false };
    let mut known = bytes.to_vec();
    known[7] = known[7].min(b'1');
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    assert_eq!(response.parse(&known), Ok(httparse::Status::Complete(head.len)));
    assert_eq!(response.code, Some(head.status));
    same_fields(head.fields.iter(), response.headers);
    true
}

/// Compares every head of `target` and its mutations; enough of them must be taken for that to say something.
fn compare_all(target: &str, compare: fn(&[u8]) -> bool) {
    let mut mutator = Mutator::seeded();
    let (mut taken, mut all) = (0, 0);
    for head in corpus(target) {
        for mutation in 0..MUTATIONS_PER_HEAD {
            let bytes = if mutation == 0 { head.clone() } else { mutator.mutate(&head) };
            match std::panic::catch_unwind(|| compare(&bytes)) {
                Ok(taken_by_ours) => taken += usize::from(taken_by_ours),
                Err(_) => panic!("read differently: {}", bytes.escape_ascii()),
            }
            all += 1;
        }
    }
    assert!(taken > all / 20, "only {taken} of {all} heads were taken");
}

#[test]
fn request_heads_are_read_as_httparse_reads_them() {
    compare_all("h1_request", compare_request);
}

#[test]
fn response_heads_are_read_as_httparse_reads_them() {
    compare_all("h1_response", compare_response);
}
