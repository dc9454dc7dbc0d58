//! Accepting connections: one multishot submission per listening socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::Ring;
use super::operation::{InFlight, Key, Kind};
use super::socket::Socket;
use super::stream::Stream;

/// Connections as they arrive on one listening socket.
pub struct Listener {
    socket: Rc<Socket>,
    accepting: Option<InFlight>,
    ring: Rc<Ring>,
}

impl Listener {
    /// `fd` listens already, and blocks.
    pub fn new(ring: &Rc<Ring>, fd: OwnedFd) -> Self {
        Self { socket: Socket::new(ring, fd), accepting: None, ring: ring.clone() }
    }

    /// The next connection. After an error (too many open files, say) the next call arms the kernel again.
    ///
    /// The kernel accepts some ahead of these calls, but a bounded number: who stops calling leaves the rest in the socket's backlog.
    ///
    /// # Errors
    /// What ended the multishot accept.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            let accepting = self.accepting.get_or_insert_with(|| accept(&self.ring, &self.socket));
            let key = accepting.key.expect("taken only below, where it is replaced");
            match std::task::ready!(self.ring.poll_accepted(key, cx)) {
                Ok(Some(fd)) => return Poll::Ready(Ok(Stream::new(&self.ring, fd))),
                Ok(None) => self.accepting = None,
                Err(error) => {
                    self.accepting = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

fn accept(ring: &Rc<Ring>, socket: &Rc<Socket>) -> InFlight {
    let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
    // SAFETY: the entry names no memory, and the operation keeps the listening socket open.
    unsafe { ring.submit(Kind::Accept(Box::default()), Some(socket.clone()), |_| entry) }
}

impl Ring {
    /// The next connection; `None` means that the operation has ended without a fault.
    fn poll_accepted(&self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<Option<OwnedFd>>> {
        let mut core = self.core.borrow_mut();
        let operation = core.operations.get_mut(key).expect("the listener owns this operation");
        let Kind::Accept(accepting) = &mut operation.kind else { unreachable!("a listener's operation accepts") };
        if let Some(fd) = accepting.accepted.pop_front() {
            return Poll::Ready(Ok(Some(fd)));
        }
        if let Some(fault) = operation.ended() {
            return Poll::Ready(fault.map_or(Ok(None), Err));
        }
        let replaced = operation.state.wait(cx);
        drop(core);
        drop(replaced);
        Poll::Pending
    }
}
