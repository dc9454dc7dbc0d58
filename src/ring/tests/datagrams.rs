use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use super::*;

fn bind(executor: &Executor) -> (Datagram, SocketAddr) {
    let socket = Datagram::bind(&executor.ring, (Ipv4Addr::LOCALHOST, 0).into(), 4 << 20).expect("a free port");
    let address = socket.local().expect("bound");
    (socket, address)
}

/// Receives until `count` datagrams have come; returns them apart.
async fn receive(socket: &mut Datagram, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        let mut batch = Vec::new();
        socket.receive(&mut batch).await.expect("datagrams");
        assert!(!batch.is_empty());
        for Received { bytes, segment, .. } in batch {
            if bytes.is_empty() {
                datagrams.push(Vec::new());
            }
            datagrams.extend(bytes.chunks(segment).map(<[u8]>::to_vec));
        }
    }
    datagrams
}

#[test]
fn datagrams_of_every_length_arrive_whole() {
    // 65,507 is the most that IPv4 can carry: 65,535 less 20 and 8 bytes of headers.
    let lengths = [0, 1, 2, 11, 107, 108, 1200, 1472, 1473, 9000, 65_492, 65_493, 65_507];
    let executor = Executor::new();
    let (mut socket, to) = bind(&executor);
    let (peer, from) = bind(&executor);
    executor.run(async {
        for length in lengths {
            let packet = Packet { bytes: pattern(4, 0, length), to, segment: None };
            let (sent, packet) = peer.send(packet).await;
            sent.expect("short enough");
            let mut batch = Vec::new();
            socket.receive(&mut batch).await.expect("a datagram");
            let [received] = &batch[..] else { panic!("{length}: {batch:?}") };
            assert!(received.bytes[..] == packet.bytes[..], "{length} became {}", received.bytes.len());
            assert_eq!(received.from, from);
            assert_eq!(received.segment, length.max(1));
        }
    });
    drop((socket, peer));
    executor.assert_idle();
}

#[test]
fn the_longest_datagram_of_ipv6_arrives_whole() {
    let executor = Executor::new();
    let Ok(mut socket) = Datagram::bind(&executor.ring, (Ipv6Addr::LOCALHOST, 0).into(), 4 << 20) else {
        return; // No IPv6 here.
    };
    let to = socket.local().expect("bound");
    executor.run(async {
        // 65,535 less 8 bytes of UDP's header; IPv6 does not count its own.
        let (sent, packet) = socket.send(Packet { bytes: pattern(5, 0, 65_527), to, segment: None }).await;
        sent.expect("short enough");
        let mut batch = Vec::new();
        socket.receive(&mut batch).await.expect("a datagram");
        assert!(batch[0].bytes[..] == packet.bytes[..]);
        assert_eq!(batch[0].from, to);
    });
}

#[test]
fn a_datagram_that_is_too_long_is_refused_and_given_back() {
    let executor = Executor::new();
    let (socket, to) = bind(&executor);
    let (sent, packet) = executor.run(socket.send(Packet { bytes: vec![0; 65_508], to, segment: None }));
    assert_eq!(sent.expect_err("too long").raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(packet.bytes.len(), 65_508);
}

#[test]
fn what_arrived_in_one_turn_is_one_batch() {
    let executor = Executor::new();
    let (mut socket, to) = bind(&executor);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for index in 0..10u8 {
        peer.send_to(&[index; 3], to).expect("room");
    }
    executor.run(async {
        let mut batch = Vec::new();
        socket.receive(&mut batch).await.expect("datagrams");
        let bytes: Vec<_> = batch.iter().map(|received| received.bytes.to_vec()).collect();
        assert_eq!(bytes, (0..10u8).map(|index| vec![index; 3]).collect::<Vec<_>>());
    });
}

#[test]
fn one_send_is_cut_into_segments_and_arrives_as_datagrams() {
    let executor = Executor::new();
    let (mut socket, to) = bind(&executor);
    let (peer, _) = bind(&executor);
    for (segment, length) in [(1, 3), (100, 1000), (1200, 1201), (1200, 50_000), (1400, 1400), (1400, 13)] {
        executor.run(async {
            let bytes = pattern(6, 0, length);
            let (sent, packet) = peer.send(Packet { bytes, to, segment: Some(segment) }).await;
            sent.expect("a kernel with segmentation offload");
            let expected: Vec<_> = packet.bytes.chunks(usize::from(segment)).map(<[u8]>::to_vec).collect();
            assert!(receive(&mut socket, expected.len()).await == expected, "{segment} {length}");
        });
    }
    drop((socket, peer));
    executor.assert_idle();
}

/// Joined by the kernel, whole as a datagram of its own, and cut again: what a plain receiver sees of a segmented send.
#[test]
fn segments_reach_a_plain_receiver_one_by_one() {
    let executor = Executor::new();
    let (socket, _) = bind(&executor);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let to = peer.local_addr().expect("bound");
    executor.run(socket.send(Packet { bytes: pattern(7, 0, 250), to, segment: Some(100) })).0.expect("sent");
    let lengths: Vec<_> = (0..3).map(|_| peer.recv(&mut [0; 2000]).expect("a datagram")).collect();
    assert_eq!(lengths, [100, 100, 50]);
}

#[test]
fn a_socket_that_nobody_reads_holds_a_bounded_number_of_buffers_and_resumes() {
    const SENT: u32 = 400;
    let executor = Executor::with_buffers(4, 200);
    let (mut socket, to) = bind(&executor);
    let (mut batch, peer) = (Vec::new(), UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    peer.send_to(b"first", to).expect("room");
    executor.run(socket.receive(&mut batch)).expect("a datagram");
    batch.clear();
    for index in 0..SENT {
        peer.send_to(&index.to_le_bytes(), to).expect("room");
        if index % 10 == 0 {
            executor.settle();
        }
    }
    executor.settle();
    let held = executor.ring.usage().buffers;
    assert!(held <= 2 * operation::DATAGRAMS_AHEAD, "{held} buffers");
    let received = executor.run(receive(&mut socket, SENT as usize));
    assert!(received == (0..SENT).map(|index| index.to_le_bytes().to_vec()).collect::<Vec<_>>());
    drop(socket);
    executor.assert_idle();
}

#[test]
fn datagrams_that_nobody_took_give_their_buffers_back() {
    let executor = Executor::with_buffers(4, 8);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for turns in 0..4 {
        let (mut socket, to) = bind(&executor);
        let mut batch = Vec::new();
        assert!(poll_once(&mut Box::pin(socket.receive(&mut batch))).is_pending());
        // An empty one ends the multishot receive, so that some of these find it done and others still running.
        for bytes in [&b"one"[..], b"two", b"", b"three"] {
            for _ in 0..turns {
                executor.turn(Wait::No);
            }
            peer.send_to(bytes, to).expect("room");
        }
        for _ in 0..turns {
            executor.turn(Wait::No);
        }
        drop(socket);
        executor.assert_idle();
    }
}

#[test]
fn receiving_resumes_when_buffers_come_back() {
    let executor = Executor::with_buffers(1, 2);
    let (mut socket, to) = bind(&executor);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for index in 0..10u8 {
        peer.send_to(&[index], to).expect("room");
    }
    let received = executor.run(receive(&mut socket, 10));
    assert_eq!(received, (0..10u8).map(|index| vec![index]).collect::<Vec<_>>());
    assert!(executor.ring.usage().parked_total > 0);
    drop(socket);
    executor.assert_idle();
}

#[test]
fn the_kernel_grants_a_receive_buffer() {
    let executor = Executor::new();
    let (socket, _) = bind(&executor);
    assert!(socket.receive_buffer().expect("a socket") > 0);
}
