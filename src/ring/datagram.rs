//! UDP: batches in both directions, with segmentation offload where the kernel has it.
//!
//! One multishot submission receives until it is dropped; what came in a turn is handed out together. With GRO the kernel joins datagrams of one sender
//! into one buffer and says how long each is; with GSO it cuts one send into equal datagrams.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, squeue, types};
use socket2::{Domain, Protocol, SockAddr, Type};

use super::Ring;
use super::buffers::{Buf, Size};
use super::operation::{Ended, InFlight, Key, Kind, Receiving};
use super::socket::Socket;
use super::stream::check;

/// A bound UDP socket.
pub struct Datagram {
    ring: Rc<Ring>,
    socket: Rc<Socket>,
    receiving: Option<InFlight>,
}

/// What arrived from one sender: one datagram, or several of `segment` bytes each, of which the last may be shorter.
#[derive(Debug)]
pub struct Received {
    pub bytes: Buf,
    pub from: SocketAddr,
    pub segment: usize,
}

/// What is sent to one receiver: one datagram, or several of `segment` bytes each, of which the last may be shorter.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub to: SocketAddr,
    /// `None` sends one datagram.
    pub segment: Option<u16>,
}

/// Address and control message of a receive: what `io_uring` writes in front of the payload.
const NAME_BYTES: u32 = size_of::<libc::sockaddr_in6>() as u32;
const CONTROL_BYTES: usize = 64;

impl Datagram {
    /// Binds `address`, and asks for `receive_buffer` bytes of kernel memory for what arrives while nobody looks.
    ///
    /// # Errors
    /// What `socket(2)` or `bind(2)` say. A smaller receive buffer than asked for is no error: see [`receive_buffer`](Self::receive_buffer).
    pub fn bind(ring: &Rc<Ring>, address: SocketAddr, receive_buffer: usize) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(receive_buffer)?;
        socket.bind(&address.into())?;
        let on: libc::c_int = 1;
        // SAFETY: passes a live `int` and its size. A kernel without GRO refuses, and then each buffer holds one datagram.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_GRO,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        Ok(Self { ring: ring.clone(), socket: Socket::new(ring, socket.into()), receiving: None })
    }

    /// The kernel's receive buffer in bytes, as granted (Linux doubles what was asked for, within `net.core.rmem_max`).
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.socket.as_socket2().recv_buffer_size()
    }

    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local(&self) -> io::Result<SocketAddr> {
        let address = self.socket.as_socket2().local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Appends everything that has arrived to `batch`, and waits until something has.
    ///
    /// # Errors
    /// What ended the receive (a refused earlier send, mostly); the next call begins anew.
    pub async fn receive(&mut self, batch: &mut Vec<Received>) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_receive(batch, cx)).await
    }

    /// Sends `packet`; waits while the socket's send buffer is full.
    pub fn send(&self, packet: Packet) -> SendPacket {
        let fd = types::Fd(self.socket.as_raw_fd());
        let kind = Kind::SendDatagrams(Departure::new(packet));
        // SAFETY: the departure is boxed and owned by the operation, with all that its header points to; the socket is owned as well.
        SendPacket(unsafe {
            self.ring.submit(kind, Some(self.socket.clone()), |kind| {
                let Kind::SendDatagrams(departure) = kind else { unreachable!("made above") };
                opcode::SendMsg::new(fd, departure.describe()).build()
            })
        })
    }

    fn poll_receive(&mut self, batch: &mut Vec<Received>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let receiving = self.receiving.get_or_insert_with(|| {
                let fd = types::Fd(self.socket.as_raw_fd());
                let kind = Kind::Datagrams(Box::new(Receiving { received: VecDeque::new(), header: receive_header() }));
                // SAFETY: the header is in the box that the operation owns; the socket is owned as well.
                unsafe {
                    self.ring.submit(kind, Some(self.socket.clone()), |kind| {
                        let Kind::Datagrams(receiving) = kind else { unreachable!("made above") };
                        receive_entry(fd, &receiving.header)
                    })
                }
            });
            let key = receiving.key.expect("taken only when it is replaced");
            match self.ring.poll_datagrams(key, batch, cx) {
                // Ended without an error: begin again.
                Poll::Ready(Ok(0)) => self.receiving = None,
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => {
                    self.receiving = None;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Ring {
    /// Moves what has arrived into `batch` and returns how much that was; nothing means that the operation has ended.
    fn poll_datagrams(&self, key: Key, batch: &mut Vec<Received>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = batch.len();
        loop {
            let mut core = self.core.borrow_mut();
            let operation = core.operations.get_mut(key).expect("the socket owns this operation");
            let Kind::Datagrams(receiving) = &mut operation.kind else {
                unreachable!("a datagram socket's operation receives")
            };
            let Some(buf) = receiving.received.pop_front() else {
                if batch.len() > before {
                    return Poll::Ready(Ok(batch.len() - before));
                }
                if let Some(fault) = operation.ended() {
                    return Poll::Ready(fault.map_or(Ok(0), Err));
                }
                let replaced = operation.state.wait(cx);
                drop(core);
                drop(replaced);
                return Poll::Pending;
            };
            let (name_bytes, control_bytes) = (receiving.header.msg_namelen, receiving.header.msg_controllen);
            drop(core);
            batch.extend(parse(buf, name_bytes, control_bytes));
        }
    }
}

pub(super) fn receive_entry(fd: types::Fd, header: &libc::msghdr) -> squeue::Entry {
    opcode::RecvMsgMulti::new(fd, header, Size::Large.group()).build()
}

fn receive_header() -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_BYTES;
    header.msg_controllen = CONTROL_BYTES;
    header
}

/// Takes apart what the kernel wrote: a description, the sender's address, control messages, the payload. `None` for what is not from an IP sender.
fn parse(mut buf: Buf, name_bytes: u32, control_bytes: usize) -> Option<Received> {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_namelen, header.msg_controllen) = (name_bytes, control_bytes);
    let message = types::RecvMsgOut::parse(&buf, &header).ok()?;
    let from = parse_address(message.name_data())?;
    let payload = message.payload_data();
    let start = buf.len() - payload.len();
    let segment = gro_segment(message.control_data()).unwrap_or(payload.len()).max(1);
    buf.advance(start);
    Some(Received { bytes: buf, from, segment })
}

fn parse_address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(name.get(24..28)?.try_into().ok()?);
            Some(std::net::SocketAddrV6::new(octets.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// The length of each datagram that GRO joined, from the control messages.
fn gro_segment(mut control: &[u8]) -> Option<usize> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const WORD: usize = size_of::<usize>();
    loop {
        let len = usize::from_ne_bytes(control.get(..WORD)?.try_into().ok()?);
        let level = i32::from_ne_bytes(control.get(WORD..WORD + 4)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(control.get(WORD + 4..HEADER)?.try_into().ok()?);
        if (level, kind) == (libc::SOL_UDP, libc::UDP_GRO) {
            let size = i32::from_ne_bytes(control.get(HEADER..HEADER + 4)?.try_into().ok()?);
            return usize::try_from(size).ok().filter(|size| *size > 0);
        }
        control = control.get(len.max(HEADER).next_multiple_of(WORD)..)?;
    }
}

/// A packet on its way, with everything that describes it to the kernel.
pub(super) struct Departure {
    packet: Packet,
    address: SockAddr,
    part: libc::iovec,
    header: libc::msghdr,
    control: Control,
}

#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment: u16,
    /// `CMSG_SPACE` rounds up to a word.
    padding: [u8; 6],
}

impl Departure {
    fn new(packet: Packet) -> Box<Self> {
        let address = packet.to.into();
        let segment = packet.segment.unwrap_or(0);
        // SAFETY: all-zero bytes are valid for these three C structs.
        let (part, header, mut cmsg): (libc::iovec, libc::msghdr, libc::cmsghdr) = unsafe { std::mem::zeroed() };
        cmsg.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<u16>();
        (cmsg.cmsg_level, cmsg.cmsg_type) = (libc::SOL_UDP, libc::UDP_SEGMENT);
        Box::new(Self { packet, address, part, header, control: Control { header: cmsg, segment, padding: [0; 6] } })
    }

    fn describe(&mut self) -> *const libc::msghdr {
        self.part = libc::iovec { iov_base: self.packet.bytes.as_mut_ptr().cast(), iov_len: self.packet.bytes.len() };
        self.header.msg_name = self.address.as_ptr().cast_mut().cast();
        self.header.msg_namelen = self.address.len();
        self.header.msg_iov = &mut self.part;
        self.header.msg_iovlen = 1;
        if self.packet.segment.is_some() {
            self.header.msg_control = (&raw mut self.control).cast();
            self.header.msg_controllen = size_of::<Control>();
        }
        &self.header
    }
}

/// See [`Datagram::send`]. Gives the packet back, so that its allocation can be used again.
pub struct SendPacket(InFlight);

impl Future for SendPacket {
    type Output = (io::Result<()>, Packet);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ended { result, operation, .. } = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        let Kind::SendDatagrams(departure) = operation.kind else { unreachable!("this operation sends datagrams") };
        Poll::Ready((check(result).map(drop), departure.packet))
    }
}
