use std::net::TcpStream;

use super::*;

fn connect(address: &SockAddr) -> TcpStream {
    TcpStream::connect(address.as_socket().expect("TCP")).expect("somebody listens")
}

#[test]
fn every_connection_is_accepted_once() {
    let executor = Executor::new();
    let (fd, address) = listening(1024);
    let mut listener = Listener::new(&executor.ring, fd);
    let peers: Vec<_> = (0..300).map(|_| connect(&address)).collect();
    let mut ports = executor.run(async {
        let mut ports = Vec::new();
        while ports.len() < peers.len() {
            ports.push(listener.accept().await.expect("connected").peer().expect("TCP").port());
        }
        ports
    });
    let mut expected: Vec<_> = peers.iter().map(|peer| peer.local_addr().expect("bound").port()).collect();
    ports.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ports, expected);
    drop(listener);
    executor.assert_idle();
}

#[test]
fn connections_that_nobody_took_are_closed_with_the_listener() {
    use std::io::Read;
    let before = descriptors();
    let executor = Executor::new();
    let (fd, address) = listening(64);
    let mut listener = Listener::new(&executor.ring, fd);
    assert!(poll_once(&mut Box::pin(listener.accept())).is_pending());
    let mut peers: Vec<_> = (0..20).map(|_| connect(&address)).collect();
    executor.settle();
    peers.extend((0..20).map(|_| connect(&address)));
    drop(listener);
    executor.assert_idle();
    for peer in &mut peers {
        // An end where the connection was accepted, a reset where it was not.
        assert!(matches!(peer.read(&mut [0]), Ok(0) | Err(_)));
    }
    drop((peers, executor));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_listener_that_nobody_asks_accepts_a_bounded_number_and_resumes() {
    let before = descriptors();
    let executor = Executor::new();
    let (fd, address) = listening(1024);
    let mut listener = Listener::new(&executor.ring, fd);
    let mut peers = vec![connect(&address)];
    drop(executor.run(listener.accept()).expect("connected"));
    let mut accepted = 0;
    for _ in 0..8 {
        peers.extend((0..100).map(|_| connect(&address)));
        executor.settle();
        // What is open beyond the peers: what was accepted ahead, the ring's three, the listener, and the directory that is being read.
        accepted = descriptors().len() - before.len() - peers.len();
    }
    assert!(accepted < operation::ACCEPTED_AHEAD + 120, "{accepted} accepted ahead");
    executor.run(async {
        for _ in 0..800 {
            listener.accept().await.expect("those that waited are accepted, too");
        }
        assert!(poll_once(&mut Box::pin(listener.accept())).is_pending());
    });
    drop(listener);
    executor.assert_idle();
}

#[test]
fn accepting_resumes_after_descriptors_ran_out() {
    descriptors();
    let executor = Executor::new();
    let (fd, address) = listening(64);
    let mut listener = Listener::new(&executor.ring, fd);
    let spare = std::fs::File::open("/dev/null").expect("a device");
    let peer = connect(&address);
    let mut hoard = Vec::new();
    while let Ok(file) = spare.try_clone() {
        hoard.push(file);
    }
    for _ in 0..3 {
        let error = executor.run(listener.accept()).err().expect("no descriptor is left");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }
    drop(hoard);
    let stream = executor.run(listener.accept()).expect("descriptors are left");
    assert_eq!(stream.peer(), peer.local_addr().ok());
    drop((stream, listener));
    executor.assert_idle();
}

/// The kernel ends a multishot accept that finds the completion queue full: the connection is good, and no error is to be seen.
#[test]
fn accepting_goes_on_after_the_completion_queue_was_full() {
    let executor = Executor::on(Ring::with_queues(config(4, 1), 4, 8).expect("a ring"));
    let (fd, address) = listening(256);
    let mut listener = Listener::new(&executor.ring, fd);
    for _ in 0..5 {
        let peers: Vec<_> = (0..100).map(|_| connect(&address)).collect();
        executor.run(async {
            for _ in &peers {
                listener.accept().await.expect("no fault of the connection");
            }
        });
    }
    drop(listener);
    executor.assert_idle();
}
