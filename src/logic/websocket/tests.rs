//! RFC 6455's rules as tables of frames.

use super::frames::Frames;
use super::*;

/// A frame with this first byte, as `sender` sends it.
fn frame(sender: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = match sender {
        Sender::Client => (0x80, &[1, 2, 3, 4][..]),
        Sender::Server => (0, &[][..]),
    };
    let length = match payload.len() {
        short @ ..126 => vec![mask.0 | short as u8],
        middle @ ..0x1_0000 => [&[mask.0 | 126][..], &(middle as u16).to_be_bytes()].concat(),
        long => [&[mask.0 | 127][..], &(long as u64).to_be_bytes()].concat(),
    };
    let masked = payload.iter().zip((0..4).cycle()).map(|(byte, at)| byte ^ mask.1.get(at).unwrap_or(&0)).collect();
    [vec![first], length, mask.1.to_vec(), masked].concat()
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(Sender::Server, 0x81, payload)
}

fn closing(sender: Sender) -> Vec<u8> {
    let mut close = Vec::new();
    write_close(&mut close, sender, [0xde, 0xad, 0xbe, 0xef]);
    close
}

#[test]
fn frames_end_where_the_specification_says() {
    // Section 5.7 gives these, and the lengths at which the form changes are added.
    let cases: [(Sender, Vec<u8>); 14] = [
        (Sender::Server, b"\x81\x05Hello".to_vec()),
        (Sender::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()),
        (Sender::Server, b"\x01\x03Hel".to_vec()),
        (Sender::Server, b"\x80\x02lo".to_vec()),
        (Sender::Server, b"\x89\x05Hello".to_vec()),
        (Sender::Client, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()),
        (Sender::Server, text(&[0; 256])),
        (Sender::Server, text(&[0; 65536])),
        (Sender::Server, text(b"")),
        (Sender::Client, frame(Sender::Client, 0x82, b"")),
        (Sender::Server, text(&[0; 125])),
        (Sender::Server, text(&[0; 126])),
        (Sender::Client, frame(Sender::Client, 0x82, &[0; 65535])),
        // Reserved bits and opcodes are an extension's.
        (Sender::Server, frame(Sender::Server, 0xf7, b"abc")),
    ];
    for (sender, bytes) in cases {
        let shown = &bytes[..bytes.len().min(16)];
        let (last, head) = bytes.split_last().expect("a frame has bytes");
        let mut frames = Frames::new(sender);
        assert!(frames.are_between());
        assert_eq!(frames.feed(head), None, "{shown:x?}");
        assert!(!frames.are_between() && frames.are_open(), "{shown:x?}");
        assert_eq!(frames.feed(&[*last]), Some(1), "{shown:x?}");
        assert!(frames.are_between(), "{shown:x?}");
        let twice = [&bytes[..], &bytes, &[0x81]].concat();
        assert_eq!(Frames::new(sender).feed(&twice), Some(2 * bytes.len()), "{shown:x?}");
    }
}

#[test]
fn what_is_no_frame_is_lost_as_soon_as_that_is_known() {
    let cases: [(Sender, &[u8], &str); 12] = [
        (Sender::Server, b"\x81\x80", "a server masks"),
        (Sender::Client, b"\x81\x05", "a client does not"),
        (Sender::Server, b"\x09\x00", "a ping in pieces"),
        (Sender::Server, b"\x08\x00", "a close in pieces"),
        (Sender::Server, b"\x89\x7e", "a long ping"),
        (Sender::Server, b"\x88\x7f", "a very long close"),
        (Sender::Client, b"\x8a\xfe", "a long pong"),
        (Sender::Server, b"\x81\x7e\x00\x7d", "a length in two bytes that fits into less"),
        (Sender::Server, b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "a length in eight bytes that fits into two"),
        (Sender::Server, b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "a length with a sign"),
        (Sender::Server, b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "all of it"),
        (Sender::Server, b"GET / HTTP/1.1\r\n\r\n", "another protocol"),
    ];
    for (sender, bytes, what) in cases {
        let mut passage = Passage::new(sender);
        assert_eq!(passage.pass(bytes, false), Passed { count: bytes.len(), then_close: false });
        assert!(!passage.can_be_cut() && !passage.has_closed(), "{what}");
        // What looks like a frame is none from here on.
        let more = frame(sender, 0x81, b"more");
        assert_eq!(passage.pass(&more, true), Passed { count: more.len(), then_close: false }, "{what}");
    }
}

#[test]
fn the_longest_length_is_a_payload_that_never_ends() {
    let mut frames = Frames::new(Sender::Server);
    assert_eq!(frames.feed(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), None);
    assert_eq!(frames.feed(&[0; 4096]), None);
    assert!(frames.are_open() && !frames.are_between());
}

#[test]
fn a_silent_direction_is_cut_at_once() {
    for before in [&b""[..], &text(b"hello")] {
        let mut passage = Passage::new(Sender::Server);
        passage.pass(before, false);
        assert!(passage.can_be_cut());
        assert_eq!(passage.pass(b"", true), Passed { count: 0, then_close: true });
        assert!(!passage.can_be_cut());
    }
}

#[test]
fn a_drain_lets_the_frame_end_that_has_begun() {
    let (first, second) = (text(b"first"), text(b"second"));
    let bytes = [&first[..], &second, &[0x81]].concat();
    let mut passage = Passage::new(Sender::Server);
    passage.pass(&bytes[..3], false);
    assert!(!passage.can_be_cut());
    assert_eq!(passage.pass(&bytes[3..4], true), Passed { count: 1, then_close: false });

    // Whole frames behind it go along; the one that is not whole does not.
    let whole = first.len() + second.len();
    assert_eq!(passage.pass(&bytes[4..], true), Passed { count: whole - 4, then_close: true });
    assert_eq!(passage.pass(b"\x05third", true), Passed { count: 0, then_close: false });
}

#[test]
fn the_senders_own_close_is_passed_on_and_nothing_is_put_behind_it() {
    for payload in [&b""[..], &[3, 0xe8], &[3, 0xe8, b'b', b'y', b'e']] {
        let close = frame(Sender::Client, 0x88, payload);
        for is_draining in [false, true] {
            let mut passage = Passage::new(Sender::Client);
            let bytes = [&frame(Sender::Client, 0x81, b"last"), &close[..], b"\r\n"].concat();
            assert_eq!(passage.pass(&bytes, is_draining), Passed { count: bytes.len(), then_close: false });
            assert!(passage.has_closed() && !passage.can_be_cut());
        }
    }
}

#[test]
fn the_senders_close_is_noticed_behind_a_cut() {
    let mut passage = Passage::new(Sender::Client);
    passage.pass(b"", true);
    let answer = [frame(Sender::Client, 0x82, &[0; 300]), frame(Sender::Client, 0x88, &[3, 0xe9])].concat();
    assert_eq!(passage.pass(&answer[..310], true), Passed { count: 0, then_close: false });
    assert!(!passage.has_closed());
    assert_eq!(passage.pass(&answer[310..], true), Passed { count: 0, then_close: false });
    assert!(passage.has_closed());
}

#[test]
fn our_own_close_says_1001_and_is_masked_where_a_client_would_mask_it() {
    assert_eq!(closing(Sender::Server), b"\x88\x02\x03\xe9");
    assert_eq!(closing(Sender::Client), b"\x88\x82\xde\xad\xbe\xef\xdd\x44");
}

#[test]
fn any_split_and_any_moment_of_a_drain_keep_frames_whole() {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for _ in 0..200 {
        let sender = if below(2) == 0 { Sender::Client } else { Sender::Server };
        let mut bytes = Vec::new();
        for _ in 0..below(5) {
            let first = [0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0xc1, 0x88][below(9) as usize];
            let longest = if first & 8 == 0 { 140 } else { 126 };
            bytes.extend(frame(sender, first, &vec![below(256) as u8; below(longest) as usize]));
        }
        if below(2) == 0 && !bytes.is_empty() {
            let at = below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << below(8);
        }
        fuzzing::frames(&bytes);
    }
}
