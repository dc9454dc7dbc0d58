//! What one send sends: up to three parts, owned, sent in one call.

use super::buffers::Buf;
use super::operation::Until;

/// A head that was written, content that was received, and a constant tail; each may be empty.
///
/// The kernel reads the parts in place, so received content crosses the proxy without a copy. A send owns this until the kernel is done and then
/// gives it back, so that the head's allocation can be used again.
#[derive(Default)]
pub struct Outgoing {
    pub head: Vec<u8>,
    pub content: Option<Buf>,
    pub tail: &'static [u8],
    /// Bytes at the front that were already sent.
    sent: usize,
}

impl Outgoing {
    pub fn new(head: Vec<u8>, content: Option<Buf>, tail: &'static [u8]) -> Self {
        Self { head, content, tail, sent: 0 }
    }

    /// Bytes still to be sent.
    pub fn remaining(&self) -> usize {
        self.len() - self.sent
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Notes that `count` more bytes were sent.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining());
        self.sent += count;
    }

    /// As if nothing had been sent: for sending it again elsewhere.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    fn len(&self) -> usize {
        self.head.len() + self.content.as_ref().map_or(0, |content| content.len()) + self.tail.len()
    }

    /// The unsent bytes, in order; parts with none are left out.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        [&self.head[..], self.content.as_deref().unwrap_or_default(), self.tail].into_iter().filter_map(move |part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            (skipped < part.len()).then(|| &part[skipped..])
        })
    }

    /// The unsent bytes when they are all in one place.
    pub(super) fn single(&self) -> Option<&[u8]> {
        let mut parts = self.parts();
        let first = parts.next().unwrap_or_default();
        parts.next().is_none().then_some(first)
    }
}

/// A send as its operation owns it, with room for the kernel's description of a vectored one. Boxed by its users, since the description must not move
/// before it is submitted, and because few operations are sends: the others need not be as large.
pub(super) struct Departure {
    pub outgoing: Outgoing,
    pub until: Until,
    /// Submitted so that the kernel says nothing if all of it goes out at once.
    pub quiet: bool,
    header: libc::msghdr,
    parts: [libc::iovec; 3],
}

impl Departure {
    pub fn new() -> Box<Self> {
        const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { outgoing: Outgoing::default(), until: Until::Some, quiet: false, header, parts: [EMPTY; 3] })
    }

    /// Points at the unsent bytes, for the kernel to read.
    pub fn describe(&mut self) -> *const libc::msghdr {
        let mut count = 0;
        for part in self.outgoing.parts() {
            self.parts[count] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
            count += 1;
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = count as _;
        &self.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(outgoing: &Outgoing) -> Vec<u8> {
        outgoing.parts().flatten().copied().collect()
    }

    #[test]
    fn parts_are_what_is_left_after_any_count_of_sent_bytes() {
        let whole = b"headtail";
        for sent in 0..=whole.len() {
            let mut outgoing = Outgoing::new(b"head".to_vec(), None, b"tail");
            outgoing.advance(sent);
            assert_eq!(joined(&outgoing), whole[sent..]);
            assert_eq!(outgoing.remaining(), whole.len() - sent);
            assert_eq!(outgoing.single().is_some(), sent >= 4, "{sent}");
        }
    }
}
