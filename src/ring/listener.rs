//! Accepting connections: one multishot submission per listening socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::Ring;
use super::operation::{InFlight, Key, Kind, State};
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
    /// # Errors
    /// What ended the multishot accept.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let accepting = self.accepting.get_or_insert_with(|| {
            let accept = opcode::AcceptMulti::new(types::Fd(self.socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
            // SAFETY: the entry names no memory, and the operation keeps the listening socket open.
            unsafe {
                self.ring.submit(Kind::Accept { accepted: Default::default() }, Some(self.socket.clone()), |_| accept)
            }
        });
        let key = accepting.key.expect("taken only below, where it is replaced");
        match self.ring.poll_accepted(key, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(fd)) => Poll::Ready(Ok(Stream::new(&self.ring, fd))),
            Poll::Ready(Err(error)) => {
                self.accepting = None;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Ring {
    fn poll_accepted(&self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let (polled, replaced) = {
            let mut core = self.core.borrow_mut();
            let operation = core.operations.get_mut(key).expect("the listener owns this operation");
            let Kind::Accept { accepted } = &mut operation.kind else { unreachable!("a listener's operation accepts") };
            match (accepted.pop_front(), &mut operation.state) {
                (Some(fd), _) => (Poll::Ready(Ok(fd)), None),
                (None, State::Done { result, .. }) => (Poll::Ready(Err(io::Error::from_raw_os_error(-*result))), None),
                (None, state) => (Poll::Pending, state.wait(cx)),
            }
        };
        drop(replaced);
        polled
    }
}
