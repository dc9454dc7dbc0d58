//! TCP and Unix byte streams.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, squeue, types};
use socket2::{Domain, SockAddr, Type};

use super::Ring;
use super::buffers::{Buf, Size};
use super::operation::{Ended, InFlight, Kind, Until};
use super::outgoing::Outgoing;
use super::socket::Socket;

/// A connected stream. Dropping it closes the connection once its operations in flight have ended.
pub struct Stream {
    ring: Rc<Ring>,
    pub(super) socket: Rc<Socket>,
}

/// Whether bytes are likely to be there already: decides if the kernel tries at once or waits first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Now,
    Later,
}

impl Stream {
    pub(super) fn new(ring: &Rc<Ring>, fd: OwnedFd) -> Self {
        Self { ring: ring.clone(), socket: Socket::new(ring, fd) }
    }

    /// Connects to `address`; TCP streams send without delay (no Nagle).
    ///
    /// # Errors
    /// What `socket(2)` or `connect(2)` say.
    pub async fn connect(ring: &Rc<Ring>, address: SockAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
        // `socket2` makes sockets close-on-exec and blocking: the ring needs the latter, it waits in the kernel.
        if !address.is_unix() {
            socket.set_tcp_nodelay(true)?;
        }
        let stream = Self::new(ring, socket.into());
        let fd = types::Fd(stream.socket.as_raw_fd());
        let address = Box::new(address);
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        // SAFETY: the address is boxed and owned by the operation, as is the socket.
        let connecting =
            unsafe { ring.submit(Kind::Connect { _address: address }, Some(stream.socket.clone()), |_| entry) };
        check(connecting.await.result)?;
        Ok(stream)
    }

    /// Receives what is there next, in a buffer taken only when there is something.
    ///
    /// One shot each, although the kernel could go on by itself, for less: it then misses a reset that came together with the bytes before it, and would
    /// hand out buffers that nobody has asked for.
    ///
    /// One receive at a time; dropping it unfinished may lose bytes that arrived, so a stream whose receive was dropped is good for closing only.
    pub fn receive(&self, size: Size, expect: Expect) -> Receive {
        let fd = types::Fd(self.socket.as_raw_fd());
        // SAFETY: the entry names no memory but a buffer group of this ring; the operation keeps the socket open.
        Receive(unsafe {
            self.ring.submit(Kind::Receive { size }, Some(self.socket.clone()), |_| receive_entry(fd, size, expect))
        })
    }

    /// Sends some of `outgoing`, as much as the peer has room for; waits while it has none.
    ///
    /// One send at a time. Dropped unfinished, it may have sent anything between nothing and all.
    pub fn send(&self, outgoing: Outgoing) -> Send {
        let fd = types::Fd(self.socket.as_raw_fd());
        let kind = Kind::Send(self.ring.departure(outgoing, Until::Some, false));
        // SAFETY: the parts are owned by the operation: heap bytes, a receive buffer, static bytes. None of them moves when `Kind` does, nor does what
        // describes them, in the departure's box.
        Send(unsafe { self.ring.submit(kind, Some(self.socket.clone()), |kind| send_entry(fd, kind)) })
    }

    /// Sends `outgoing` whole, while its task does something else: nobody is woken when that is done, unless the [`Posted`] was polled before.
    ///
    /// One send at a time. Dropping the `Posted` takes back what has not gone out.
    pub fn post(&self, outgoing: Outgoing) -> Posted {
        self.send_until(Until::Whole, outgoing)
    }

    /// Like [`post`](Self::post), for what is not wanted back: it holds nothing any more as soon as everything has gone out.
    pub fn post_for_good(&self, outgoing: Outgoing) -> Posted {
        self.send_until(Until::Gone, outgoing)
    }

    fn send_until(&self, until: Until, outgoing: Outgoing) -> Posted {
        let fd = types::Fd(self.socket.as_raw_fd());
        let kind = Kind::Send(self.ring.departure(outgoing, until, true));
        // SAFETY: as for `send`; `send_entry` describes the rest anew each time.
        let sending = unsafe { self.ring.submit(kind, Some(self.socket.clone()), |kind| send_entry(fd, kind)) };
        self.ring.core.borrow_mut().quiet.extend(sending.key);
        Posted(sending)
    }

    /// Tells the peer that nothing more will be sent; receiving goes on.
    ///
    /// A plain system call: it never waits, and io_uring would hand it to a worker thread.
    ///
    /// # Errors
    /// What `shutdown(2)` says: not connected, mostly.
    pub async fn shutdown_write(&self) -> io::Result<()> {
        self.socket.as_socket2().shutdown(std::net::Shutdown::Write)
    }

    /// The other end's address; `None` for Unix sockets and connections already reset.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.socket.as_socket2().peer_addr().ok().and_then(|address| address.as_socket())
    }

    /// This end's address; `None` for Unix sockets.
    pub fn local(&self) -> Option<std::net::SocketAddr> {
        self.socket.as_socket2().local_addr().ok().and_then(|address| address.as_socket())
    }

    /// When dropped, the connection is reset: the peer learns that what it got is not all.
    pub fn reset_on_close(&self) {
        // Fails only on sockets that have no such option, where a plain close has to do.
        let _ = self.socket.as_socket2().set_linger(Some(std::time::Duration::ZERO));
    }
}

pub(super) fn receive_entry(fd: types::Fd, size: Size, expect: Expect) -> squeue::Entry {
    let poll_first = match expect {
        Expect::Now => 0,
        Expect::Later => RECVSEND_POLL_FIRST,
    };
    opcode::Recv::new(fd, std::ptr::null_mut(), 0)
        .buf_group(size.group())
        .ioprio(poll_first)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// A quiet send is tried once, while the kernel takes its entry in, and completes only if that did not send all of it.
pub(super) fn send_entry(fd: types::Fd, kind: &mut Kind) -> squeue::Entry {
    let Kind::Send(departure) = kind else { unreachable!("only sends come here") };
    let (how, flags) = match departure.quiet {
        true => (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL, squeue::Flags::SKIP_SUCCESS),
        false => (libc::MSG_NOSIGNAL, squeue::Flags::empty()),
    };
    let entry = match departure.outgoing.single() {
        Some(bytes) => {
            opcode::Send::new(fd, bytes.as_ptr(), bytes.len().min(u32::MAX as usize) as u32).flags(how).build()
        }
        None => opcode::SendMsg::new(fd, departure.describe()).flags(how as u32).build(),
    };
    entry.flags(flags)
}

pub(super) fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// See [`Stream::receive`]. `Ok(None)` is the end of the stream.
pub struct Receive(InFlight);

impl Future for Receive {
    type Output = io::Result<Option<Buf>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ended { result, buf, .. } = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(check(result).map(|_| buf.filter(|buf| !buf.is_empty())))
    }
}

/// See [`Stream::send`]. Gives back what it was given, advanced by what was sent.
pub struct Send(InFlight);

impl Future for Send {
    type Output = (io::Result<()>, Outgoing);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ended { result, operation, .. } = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        let Kind::Send(departure) = operation.kind else { unreachable!("a send's operation sends") };
        drop(operation.socket);
        let mut outgoing = self.0.ring.give_back(departure);
        let sent = check(result).map(|count| outgoing.advance(count as usize));
        Poll::Ready((sent, outgoing))
    }
}

/// See [`Stream::post`].
pub struct Posted(InFlight);

impl Posted {
    /// Ready when everything has gone out, or sending has failed; until then the task of `cx` is woken for either.
    ///
    /// What was posted comes back, unless it was posted for good.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<()>, Outgoing)> {
        if self.0.has_vanished() {
            return Poll::Ready((Ok(()), Outgoing::default()));
        }
        let Ended { result, operation, .. } = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        let Kind::Send(departure) = operation.kind else { unreachable!("a post's operation sends") };
        Poll::Ready((check(result).map(drop), self.0.ring.give_back(departure)))
    }

    /// What [`poll_sent`](Self::poll_sent) says now, without waiting.
    pub fn try_sent(&mut self) -> Poll<(io::Result<()>, Outgoing)> {
        self.poll_sent(&mut Context::from_waker(std::task::Waker::noop()))
    }
}

/// `IORING_RECVSEND_POLL_FIRST` of the kernel's interface: wait for readiness before the first try.
const RECVSEND_POLL_FIRST: u16 = 1;
