//! The packet sockets of a link (`packet(7)`): one for ARP, one for IPv6, so that data traffic meets no filter.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    task::{Context, Poll},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        LinkAddr, MsgFlags, MultiHeaders, SockaddrLike, SockaddrStorage, bind, getsockname, recvmmsg,
        sendmmsg, setsockopt,
        sockopt::{RcvBufForce, SndBufForce},
    },
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::filter::{self, Instruction, MAX_INSTRUCTIONS, SNAP_LENGTH};
use crate::{
    speaker::LinkIndex,
    wire::{
        Frame,
        ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
    },
};

/// Frames that are received or sent with one system call.
pub(super) const BATCH: usize = 32;
/// Of them, on an idle link.
const LITTLE: usize = 4;
const SNAP: usize = SNAP_LENGTH as usize;
/// Octets that the kernel keeps for frames that wait: some 6,000 of them, which is what 100,000 requests a second are in
/// the 60 ms for which a hypervisor may take a processor away.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Octets that the kernel keeps for frames that leave: some 2,700 of them. More than that would be more than what queues of
/// links hold, and some of those drop without a word.
const SEND_BUFFER: usize = 1 << 20;
/// Errors that are read away before frames: more than a socket keeps.
const ERRORS: u32 = 8;
/// How long a filter may be, at the first try and at the next ones: hosts whose `net.core.optmem_max` is small refuse
/// long ones, and a shorter one only wakes the process more often.
const LIMITS: [usize; 4] = [MAX_INSTRUCTIONS, 2048, 512, 128];

/// Room for the frames of one system call.
pub(super) struct Batch {
    octets: Box<[[u8; SNAP]; BATCH]>,
    lengths: [usize; BATCH],
    count: usize,
    /// For how many frames the next system call makes room: few on an idle link, so that an answer waits for no more than
    /// it needs.
    room: usize,
    receive: MultiHeaders<()>,
    send: MultiHeaders<()>,
    /// Answers that wait for being sent.
    replies: Vec<Frame>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            octets: Box::new([[0; SNAP]; BATCH]),
            lengths: [0; BATCH],
            count: 0,
            room: LITTLE,
            receive: MultiHeaders::preallocate(BATCH, None),
            send: MultiHeaders::preallocate(BATCH, None),
            replies: Vec::with_capacity(BATCH),
        }
    }

    /// Hands every frame in and keeps the answers.
    pub(super) fn answer(&mut self, mut handle: impl FnMut(&[u8]) -> Option<Frame>) {
        for (octets, length) in self.octets.iter().zip(self.lengths).take(self.count) {
            self.replies.extend(octets.get(..length).and_then(&mut handle));
        }
        self.count = 0;
    }
}

/// The packet sockets of one link.
pub(super) struct PacketSockets {
    arp: UdpSocket,
    ipv6: UdpSocket,
}

impl PacketSockets {
    /// Opens the sockets; nothing comes in before [`set_addresses`](Self::set_addresses).
    ///
    /// # Errors
    ///
    /// Without the capability `CAP_NET_RAW`, or if the link is gone.
    pub(super) fn open(link: LinkIndex) -> io::Result<Self> {
        Ok(Self { arp: open(link, ETHERTYPE_ARP)?, ipv6: open(link, ETHERTYPE_IPV6)? })
    }

    /// Whether they still belong to the link. Those of a link that vanished hear nothing any more, also when one with the
    /// same index has come since.
    pub(super) fn are_bound(&self, link: LinkIndex) -> bool {
        [&self.arp, &self.ipv6].into_iter().all(|socket| {
            // The kernel gives no more octets than the link's address has, and so fewer than a `LinkAddr` wants.
            let Ok(address) = getsockname::<SockaddrStorage>(socket.as_raw_fd()) else { return false };
            let address = address.as_link_addr();
            address.is_some_and(|address| u32::try_from(address.ifindex()).is_ok_and(|index| index == link.0))
        })
    }

    /// From here on, lets in what concerns these addresses and nothing else.
    pub(super) fn set_addresses(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let v4 = || addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
        let v6 = || addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        attach(&self.arp, |limit| filter::arp(v4(), limit))?;
        attach(&self.ipv6, |limit| filter::ndp(v6(), limit))
    }

    /// Whether a frame may be waiting; else the task is woken when one comes.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let sockets = [&self.arp, &self.ipv6];
        // Both are asked, for both are to wake the task.
        let ready = sockets.map(|socket| socket.poll_recv_ready(context).is_ready());
        if ready.contains(&true) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Up to [`BATCH`] frames of each socket: `each` is called once per system call. Errors are counted.
    pub(super) fn receive(&self, batch: &mut Batch, mut each: impl FnMut(&mut Batch)) -> u64 {
        let mut errors = 0;
        for socket in [&self.arp, &self.ipv6] {
            let read = || {
                let room = batch.room;
                receive(socket, batch)?;
                // Less than there was room for: nothing waits. The next frame wakes the task, without asking for it in vain.
                if batch.count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            };
            match socket.try_io(Interest::READABLE, read) {
                Ok(()) => each(batch),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if batch.count > 0 {
                        each(batch);
                    }
                }
                // A link that goes down says so once.
                Err(_) => errors += 1,
            }
        }
        errors
    }

    /// Throws away what has queued up.
    pub(super) fn discard(&self, batch: &mut Batch) -> u64 {
        let mut discard =
            |socket| read_away(|| receive(socket, batch).map(|()| std::mem::take(&mut batch.count)));
        discard(&self.arp) + discard(&self.ipv6)
    }

    /// Sends the answers that wait. Returns how many the kernel had no room for.
    pub(super) fn send_replies(&self, batch: &mut Batch) -> u64 {
        let (mut sent, mut told) = (0, false);
        let replies = std::mem::take(&mut batch.replies);
        while let Some(rest) = replies.get(sent..).filter(|rest| !rest.is_empty()) {
            let count = rest.len().min(BATCH);
            let mut slices = [[IoSlice::new(&[])]; BATCH];
            for (slice, frame) in slices.iter_mut().zip(rest) {
                *slice = [IoSlice::new(frame.as_bytes())];
            }
            let addresses: [Option<()>; BATCH] = [None; BATCH];
            let (Some(slices), Some(addresses)) = (slices.get(..count), addresses.get(..count)) else {
                break;
            };
            let fd = self.arp.as_raw_fd();
            match sendmmsg(fd, &mut batch.send, slices, addresses, [], MsgFlags::MSG_DONTWAIT) {
                Ok(results) => sent += results.count().max(1),
                Err(Errno::EINTR) => {}
                Err(Errno::ENETDOWN) if !told => told = true,
                // Like a frame that is lost on the wire: whoever asked asks again.
                Err(_) => break,
            }
        }
        let lost = u64::try_from(replies.len().saturating_sub(sent)).unwrap_or(0);
        batch.replies = replies;
        batch.replies.clear();
        lost
    }

    /// Sends a frame. The protocol is in the frame; that of the socket is only for the kernel's accounts.
    pub(super) fn send(&self, frame: &Frame) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.arp);
        let send = || socket.send(frame.as_bytes()).map(|_| ());
        // A link that went down says so once, to whoever uses the socket next; it may be up again.
        send().or_else(|error| if is_down(&error) { send() } else { Err(error) })
    }
}

fn is_down(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENETDOWN)
}

fn receive(socket: &UdpSocket, batch: &mut Batch) -> io::Result<()> {
    batch.count = 0;
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| [IoSliceMut::new(&mut [])]);
    for (slice, octets) in slices.iter_mut().zip(batch.octets.iter_mut()).take(batch.room) {
        *slice = [IoSliceMut::new(octets)];
    }
    let flags = MsgFlags::MSG_DONTWAIT;
    let slices = slices.iter_mut().take(batch.room);
    let received = recvmmsg(socket.as_raw_fd(), &mut batch.receive, slices, flags, None)?;
    for (length, message) in batch.lengths.iter_mut().zip(received) {
        *length = message.bytes.min(SNAP);
        batch.count += 1;
    }
    batch.room = if batch.count < batch.room { batch.count.max(LITTLE) } else { BATCH };
    Ok(())
}

/// Reads until nothing waits. `read` says how many frames it has read; returns how many they were.
fn read_away(mut read: impl FnMut() -> io::Result<usize>) -> u64 {
    let (mut frames, mut errors) = (0, 0);
    loop {
        match read() {
            Ok(count) if count > 0 => frames += u64::try_from(count).unwrap_or(0),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // An error of the socket comes before what has queued up, and once.
            Err(_) if errors < ERRORS => errors += 1,
            Err(_) => break,
        }
    }
    frames
}

/// A packet socket of one link and one Ethernet type that lets nothing in yet.
fn open(link: LinkIndex, ethertype: u16) -> io::Result<UdpSocket> {
    // The kernel wants the type in network order.
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
    confine(socket, link)
}

/// Binds a packet socket to one link.
fn confine(socket: Socket, link: LinkIndex) -> io::Result<UdpSocket> {
    // Until it is bound it hears every link: let nothing in, and then throw away what came before that.
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    // With the capability CAP_NET_ADMIN also beyond the limit of `net.core.rmem_max`.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    // The same of `net.core.wmem_max`.
    if setsockopt(&socket, SndBufForce, &SEND_BUFFER).is_err() {
        socket.set_send_buffer_size(SEND_BUFFER)?;
    }
    bind(socket.as_raw_fd(), &address(link)?)?;
    let mut octets = [std::mem::MaybeUninit::uninit(); 1];
    // Binding to a link that is down leaves an error before them.
    read_away(|| socket.recv(&mut octets).map(|_| 1));
    // The type says UDP, and means a descriptor with which tokio waits; only `recvmmsg(2)`, `sendmmsg(2)` and `send(2)` are
    // used on it, which know no kind of socket. tokio's own wrapper of any descriptor is deprecated where it is safe.
    UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)))
}

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// The address of a link as the kernel gives it: protocol 0, with which binding keeps the socket's.
fn address(link: LinkIndex) -> io::Result<LinkAddr> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the interface is gone");
    let addresses = getifaddrs()?.filter_map(|interface| interface.address?.as_link_addr().copied());
    let same = |address: &LinkAddr| u32::try_from(address.ifindex()).is_ok_and(|index| index == link.0);
    let address = addresses.into_iter().find(same).ok_or_else(gone)?;
    debug_assert!(address.len() > 0);
    Ok(address)
}

fn attach(socket: &UdpSocket, program: impl Fn(usize) -> Vec<Instruction>) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    let mut refused = None;
    for limit in LIMITS {
        let program: Vec<_> =
            program(limit).into_iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect();
        match socket.attach_filter(&program) {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[tokio::test]
    async fn sockets_know_their_link() {
        let loopback = nix::net::if_::if_nametoindex("lo").expect("every host has lo");
        let sockets = PacketSockets::open(LinkIndex(loopback)).expect("needs the capability CAP_NET_RAW");
        assert!(sockets.are_bound(LinkIndex(loopback)));
        assert!(!sockets.are_bound(LinkIndex(loopback + 1)));
    }

    /// Held while there is a child: until it is another program it has all sockets of this process, too.
    pub(in crate::net) static CHILDREN: Mutex<()> = Mutex::new(());

    /// Runs a tool of iproute2.
    pub(in crate::net) fn run(tool: &str, arguments: &str) {
        let _alone = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let done = std::process::Command::new(tool).args(arguments.split(' ')).status();
        let why = "install iproute2, be root";
        assert!(done.is_ok_and(|status| status.success()), "{tool} {arguments}: {why}");
    }

    fn ip(arguments: &str) {
        run("ip", arguments);
    }

    /// The link of this name in the thread's network namespace.
    pub(in crate::net) fn link(name: &str) -> LinkIndex {
        LinkIndex(nix::net::if_::if_nametoindex(name).expect("it was made"))
    }

    /// A cable `near`-`far` in a network namespace of the thread's own.
    pub(in crate::net) fn with_a_cable(test: impl FnOnce(&tokio::runtime::Runtime) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs to be root");
            ip("link add near type veth peer name far");
            ip("link set near up");
            ip("link set far up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let _guard = runtime.enter();
            test(&runtime);
        });
        thread.join().expect("the test");
    }

    #[test]
    fn a_socket_keeps_thousands_of_frames_that_leave() {
        with_a_cable(|_| {
            let sockets = PacketSockets::open(link("near")).expect("near");
            let size = socket2::SockRef::from(&sockets.arp).send_buffer_size().expect("a socket");
            // The kernel counts its own in.
            assert_eq!(size, 2 * SEND_BUFFER);
        });
    }

    fn question() -> Frame {
        let client = crate::MacAddr::new([2, 0xc, 0, 0, 0, 1]);
        crate::announcer::probe("192.0.2.100".parse().expect("an address"), client)
    }

    #[test]
    fn a_frame_is_sent_over_a_link_that_was_down_before() {
        with_a_cable(|_| {
            let sockets = PacketSockets::open(link("near")).expect("near");
            ip("link set near down");
            assert!(is_down(&sockets.send(&question()).expect_err("it is down")));
            ip("link set near up");
            sockets.send(&question()).expect("it is up");
            ip("link set near down");
            ip("link set near up");
            // The socket says, once, that the link went down.
            sockets.send(&question()).expect("it is up");
            ip("link set near down");
            ip("link set near up");
            let mut batch = Batch::new();
            batch.replies.push(question());
            assert_eq!(sockets.send_replies(&mut batch), 0, "lost");
        });
    }

    #[test]
    fn a_question_with_options_as_long_as_the_link_takes_is_received_whole() {
        with_a_cable(|_| {
            let near = PacketSockets::open(link("near")).expect("near");
            near.set_addresses(&["2001:db8::100".parse().expect("an address")]).expect("a filter");
            let far = PacketSockets::open(link("far")).expect("far");
            let client = crate::MacAddr::new([2, 0xc, 0, 0, 0, 1]);
            let probe = crate::announcer::probe("2001:db8::100".parse().expect("an address"), client);
            let mut long = probe.as_bytes().to_vec();
            long.resize(1514, 0);
            socket2::SockRef::from(&far.arp).send(&long).expect("it is up");
            let mut batch = Batch::new();
            receive(&near.ipv6, &mut batch).expect("it is there");
            assert_eq!((batch.count, batch.lengths[0]), (1, long.len()));
        });
    }

    #[test]
    fn the_way_to_a_host_is_the_link_of_the_kernels_route() {
        with_a_cable(|_| {
            let towards = |text: &str| super::super::netlink::link_towards(text.parse().expect("an address"));
            assert!(towards("203.0.113.1").is_err() && towards("2001:db8:2::1").is_err(), "no route");
            ip("address add 192.0.2.11/24 dev near");
            ip("address add 198.51.100.11/24 dev far");
            ip("address add 2001:db8:1::1/64 dev far nodad");
            assert_eq!(towards("192.0.2.1").expect("a route"), link("near"));
            assert_eq!(towards("2001:db8:1::7").expect("a route"), link("far"));
            // The source is on another link than the one by which it leaves.
            ip("route add 203.0.113.0/24 via 198.51.100.1 dev far src 192.0.2.11");
            assert_eq!(towards("203.0.113.1").expect("a route"), link("far"));
            assert!(towards("fe80::7").is_err(), "it may be on each link");
            ip("route add unreachable 203.0.113.9");
            assert!(towards("203.0.113.9").is_err(), "unreachable");
        });
    }

    #[test]
    fn what_queued_up_is_thrown_away_behind_an_error_too() {
        with_a_cable(|_| {
            let sockets = PacketSockets::open(link("near")).expect("near");
            sockets.set_addresses(&["192.0.2.100".parse().expect("an address")]).expect("a filter");
            let other = PacketSockets::open(link("far")).expect("far");
            for _ in 0..3 {
                other.send(&question()).expect("it is up");
            }
            ip("link set near down");
            let mut batch = Batch::new();
            assert_eq!(sockets.discard(&mut batch), 3);
            assert_eq!(sockets.receive(&mut batch, |_| panic!("a frame is left")), 0);
        });
    }

    #[test]
    fn what_came_from_other_links_is_thrown_away_though_the_link_is_down() {
        with_a_cable(|_| {
            // As it is before it is bound.
            let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
            let all = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(protocol));
            let all = all.expect("needs the capability CAP_NET_RAW");
            let other = PacketSockets::open(link("far")).expect("far");
            for _ in 0..3 {
                other.send(&question()).expect("it is up");
            }
            ip("link set near down");
            let near = confine(all, link("near")).expect("near");
            let mut batch = Batch::new();
            assert_eq!(
                receive(&near, &mut batch).map_err(|error| error.kind()),
                Err(io::ErrorKind::WouldBlock)
            );
        });
    }

    #[test]
    fn every_frame_is_noticed_however_many_come_at_once() {
        with_a_cable(|runtime| {
            let addresses = ["192.0.2.100", "2001:db8::100"].map(|a| a.parse().expect("an address"));
            let near = PacketSockets::open(link("near")).expect("near");
            near.set_addresses(&addresses).expect("filters");
            let far = PacketSockets::open(link("far")).expect("far");
            let client = crate::MacAddr::new([2, 0xc, 0, 0, 0, 1]);
            let mut batch = Batch::new();
            let mut exchange = |count: usize| {
                for address in addresses {
                    let frame = crate::announcer::probe(address, client);
                    (0..count).for_each(|_| far.send(&frame).expect("it is up"));
                }
                let mut left = 2 * count;
                let all = async {
                    while left > 0 {
                        std::future::poll_fn(|context| near.poll_ready(context)).await;
                        let errors = near.receive(&mut batch, |batch| {
                            batch.answer(|_| {
                                left -= 1;
                                None
                            });
                        });
                        assert_eq!(errors, 0);
                    }
                };
                let deadline = std::time::Duration::from_secs(10);
                let done = runtime.block_on(async { tokio::time::timeout(deadline, all).await });
                assert!(done.is_ok(), "{left} of {count} frames on both sockets were not noticed");
            };
            for count in [1, 3, 4, 5, 31, 32, 33, 36, 37, 100] {
                exchange(count);
                exchange(1);
            }
        });
    }
}
