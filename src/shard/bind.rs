//! Claiming the listeners' addresses: the part of the start that can run into another process.
//!
//! TCP sockets are bound early and listen late, so that a gateway which cannot start has accepted nothing. A Unix socket listens from the moment it is
//! bound: its file outlives its process, and one that is bound but does not listen looks like one whose process died. Who connects meanwhile waits.

use std::fs::{remove_file, symlink_metadata};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::clock;
use super::start::StartError;
use crate::config::plan::{ListenerPlan, Plan, SocketAddress};
use crate::ids::ListenerId;

/// Connections that the kernel completes before a shard accepts them; `net.core.somaxconn` bounds it further.
pub const BACKLOG: i32 = 4096;
/// How long an address in use is tried again, and how often.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Every listener's sockets, and what they claim.
pub struct Sockets {
    /// Per shard: its own socket of each of its listeners.
    pub per_shard: Vec<Vec<(ListenerId, OwnedFd)>>,
    pub claims: Claims,
}

/// The addresses that this process has taken. The files of its Unix sockets are removed when this is dropped.
#[derive(Default)]
pub struct Claims {
    tcp: Vec<SocketAddr>,
    unix: Vec<SocketFile>,
}

/// Binds every listener's sockets.
///
/// # Errors
/// An address is in use, or not one of this machine's.
pub fn bind_all(plan: &Plan) -> Result<Sockets, StartError> {
    let shards = plan.cpus.len();
    let mut sockets = Sockets { per_shard: (0..shards).map(|_| Vec::new()).collect(), claims: Claims::default() };
    for (id, listener) in (0..).map(ListenerId).zip(&plan.listeners) {
        // One shard serves the admin listener: it asks the others.
        let wanted = if listener.admin { 1 } else { shards };
        let bound = bind(listener, wanted, &mut sockets.claims)
            .map_err(|source| StartError::Bind { address: show(&listener.address), source })?;
        for (shard, socket) in sockets.per_shard.iter_mut().zip(bound) {
            shard.push((id, socket));
        }
    }
    Ok(sockets)
}

impl Claims {
    /// Whether the addresses are still this process's alone. While neither of two gateways listens, both can bind the same ones; asked directly
    /// before the listening begins, this leaves the two next to no time for that.
    ///
    /// # Errors
    /// The first address that another process has taken.
    pub fn check(&self) -> Result<(), StartError> {
        for address in &self.tcp {
            bind_tcp(*address, false).map_err(|source| StartError::Bind { address: address.to_string(), source })?;
        }
        match self.unix.iter().find(|file| !file.is_ours()) {
            Some(file) => {
                let source = io::Error::new(io::ErrorKind::AddrInUse, "another process took its place meanwhile");
                Err(StartError::Bind { address: show_path(&file.path), source })
            }
            None => Ok(()),
        }
    }
}

/// The file of a Unix socket. It is removed when this is dropped, unless another process has put its own there.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Keeps the kernel from giving the inode to another file.
    _socket: OwnedFd,
}

impl SocketFile {
    fn new(path: &Path, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { identity: identity(path)?, path: path.to_owned(), _socket: socket })
    }

    fn is_ours(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            // Gone already is as good; a directory that has become read-only keeps it, and the next start finds that nobody listens.
            let _ = remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn show(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Ip(address) => address.to_string(),
        SocketAddress::Unix(path) => show_path(path),
    }
}

fn show_path(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Binds as many sockets as are `wanted`. An address in use is tried again for a while: a gateway that was killed holds its own for some
/// moments, until the kernel has taken its ring apart.
fn bind(listener: &ListenerPlan, wanted: usize, claims: &mut Claims) -> io::Result<Vec<OwnedFd>> {
    let end = clock::now() + BIND_PATIENCE;
    loop {
        match try_bind(&listener.address, wanted, claims) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now() < end => {
                std::thread::park_timeout(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

fn try_bind(address: &SocketAddress, wanted: usize, claims: &mut Claims) -> io::Result<Vec<OwnedFd>> {
    match address {
        SocketAddress::Ip(address) => {
            // Without `SO_REUSEPORT` first: with it, a second gateway of the same user would take a share of the first one's connections unnoticed.
            drop(bind_tcp(*address, false)?);
            let mut sockets = vec![bind_tcp(*address, true)?];
            // Port 0 is a free one, and all shards' the same.
            let taken = sockets[0].local_addr()?.as_socket().unwrap_or(*address);
            if taken != *address {
                tracing::info!(wanted = %address, %taken, "a free port");
            }
            for _ in 1..wanted {
                sockets.push(bind_tcp(taken, true)?);
            }
            claims.tcp.push(taken);
            Ok(sockets.into_iter().map(OwnedFd::from).collect())
        }
        SocketAddress::Unix(path) => {
            let socket = bind_unix(path)?;
            claims.unix.push(SocketFile::new(path, socket.try_clone()?.into())?);
            (0..wanted).map(|_| socket.try_clone().map(OwnedFd::from)).collect()
        }
    }
}

fn bind_tcp(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    // What is accepted inherits it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        // Anything at all at this path counts as in use. Only a socket file left over from a process that died may go.
        if !symlink_metadata(path)?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        if !is_abandoned(&address)? {
            return Err(error);
        }
        remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether nobody listens on a socket file. Only a refusal says so: a full backlog or a lack of permission is somebody.
fn is_abandoned(address: &SockAddr) -> io::Result<bool> {
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A connect to a full backlog would wait.
    caller.set_nonblocking(true)?;
    Ok(caller.connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A path of the test's own, removed at its end.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("postern-bind-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = remove_file(&self.0);
        }
    }

    fn claim(address: &SocketAddress) -> io::Result<(Vec<OwnedFd>, Claims)> {
        let mut claims = Claims::default();
        try_bind(address, 2, &mut claims).map(|sockets| (sockets, claims))
    }

    fn kind(address: &SocketAddress) -> Option<io::ErrorKind> {
        claim(address).err().map(|error| error.kind())
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let place = Place::new();
        std::fs::write(&place.0, "precious").expect("a temporary file");

        assert_eq!(kind(&SocketAddress::Unix(place.0.clone())), Some(io::ErrorKind::AlreadyExists));

        assert_eq!(std::fs::read_to_string(&place.0).expect("it is there still"), "precious");
    }

    #[test]
    fn a_socket_with_a_full_backlog_is_in_use_and_does_not_hold_up_the_start() {
        let place = Place::new();
        let address = SockAddr::unix(&place.0).expect("a short path");
        let live = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        live.bind(&address).expect("a free path");
        live.listen(0).expect("a bound socket listens");
        let waiting = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        waiting.connect(&address).expect("room for one");

        assert_eq!(kind(&SocketAddress::Unix(place.0.clone())), Some(io::ErrorKind::AddrInUse));

        assert!(place.0.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_the_file_goes_with_the_claim() {
        let place = Place::new();
        drop(std::os::unix::net::UnixListener::bind(&place.0).expect("a free path"));
        assert!(place.0.exists());

        let claimed = claim(&SocketAddress::Unix(place.0.clone())).expect("abandoned");

        std::os::unix::net::UnixStream::connect(&place.0).expect("it listens");
        drop(claimed);
        assert!(!place.0.exists());
    }

    #[test]
    fn a_gateway_that_is_starting_keeps_its_socket_file() {
        let place = Place::new();
        let address = SocketAddress::Unix(place.0.clone());
        let (_sockets, claims) = claim(&address).expect("a free path");

        assert_eq!(kind(&address), Some(io::ErrorKind::AddrInUse));

        claims.check().expect("still ours");
    }

    #[test]
    fn another_ones_socket_file_is_noticed_and_not_removed() {
        let place = Place::new();
        let (sockets, claims) = claim(&SocketAddress::Unix(place.0.clone())).expect("a free path");
        remove_file(&place.0).expect("it is there");
        let _other = std::os::unix::net::UnixListener::bind(&place.0).expect("a free path");

        assert!(claims.check().is_err());
        drop((sockets, claims));

        assert!(place.0.exists());
    }

    #[test]
    fn a_free_port_is_the_same_for_all_shards() {
        let (sockets, claims) = claim(&SocketAddress::Ip(([127, 0, 0, 1], 0).into())).expect("there are free ports");

        let ports: Vec<SocketAddr> = sockets
            .into_iter()
            .map(|socket| Socket::from(socket).local_addr().ok().and_then(|it| it.as_socket()).expect("bound"))
            .collect();

        assert!(ports[0].port() != 0 && ports[0] == ports[1], "{ports:?}");
        assert_eq!(claims.tcp, [ports[0]]);
    }

    #[test]
    fn of_two_that_bound_the_same_port_the_second_notices_that_the_first_listens() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
        let address = SocketAddress::Ip(free);
        let (first, first_claims) = claim(&address).expect("a free port");
        let (_second, second_claims) = claim(&address).expect("nobody listens yet");

        first_claims.check().expect("nobody else listens");
        let listening: Vec<Socket> = first.into_iter().map(Socket::from).collect();
        listening.iter().for_each(|socket| socket.listen(1).expect("a bound socket listens"));

        assert!(second_claims.check().is_err());
    }
}
