//! What must hold for any bytes at all. The fuzz target calls this, and a test replays the committed corpus through it.

use super::frames::Frames;
use super::{Passage, Passed, Sender, write_close};

/// Frames end at the same places however their bytes are cut, and a drain at any moment puts its own frame between two of them.
pub fn frames(bytes: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        let ends = ends(sender, bytes);
        for cut in 0..=bytes.len() {
            assert_cut(sender, bytes, cut, &ends);
        }
        assert_drained_in_order(sender, bytes, &ends);
    }
}

/// Where frames end, found byte by byte; and how it ended.
fn ends(sender: Sender, bytes: &[u8]) -> Vec<usize> {
    let mut frames = Frames::new(sender);
    (1..=bytes.len()).filter(|&end| frames.feed(&bytes[end - 1..end]).is_some()).collect()
}

/// The same in two pieces.
fn assert_cut(sender: Sender, bytes: &[u8], cut: usize, ends: &[usize]) {
    let (first, second) = bytes.split_at(cut);
    let mut frames = Frames::new(sender);
    let last_before = ends.iter().rfind(|end| **end <= cut).copied();
    assert_eq!(frames.feed(first), last_before);
    assert!(!frames.are_between() || last_before.unwrap_or(0) == cut);
    let last_after = ends.iter().rfind(|end| **end > cut).map(|end| end - cut);
    assert_eq!(frames.feed(second), last_after);
}

/// What a receiver gets when the drain begins after each of the bytes.
fn assert_drained_in_order(sender: Sender, bytes: &[u8], ends: &[usize]) {
    let mut close = Vec::new();
    write_close(&mut close, sender, [7; 4]);
    for drained in 0..=bytes.len() {
        let (before, after) = bytes.split_at(drained);
        let mut passage = Passage::new(sender);
        assert_eq!(passage.pass(before, false), Passed { count: before.len(), then_close: false });
        let at_once = passage.can_be_cut();
        let Passed { count, then_close } = passage.pass(if at_once { b"" } else { after }, true);
        assert!(!at_once || then_close);
        if !then_close {
            assert!(at_once || count == after.len(), "what cannot be cut is passed on");
            continue;
        }
        let cut = drained + count;
        assert!(cut == 0 || ends.contains(&cut), "{cut} is within a frame");
        let got = [&bytes[..cut], &close].concat();
        let mut receiver = Frames::new(sender);
        assert_eq!(receiver.feed(&got), Some(got.len()));
        assert!(receiver.have_closed(), "it is the last frame");
        assert_eq!(passage.pass(&bytes[cut..], true), Passed { count: 0, then_close: false });
        assert!(!passage.can_be_cut());
    }
}
