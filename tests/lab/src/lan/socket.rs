//! Sockets with the kernel's time stamps.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            ControlMessageOwned, LinkAddr, MsgFlags, SockaddrLike, SockaddrStorage, bind, recvmsg,
            setsockopt, sockopt::ReceiveTimestampns,
        },
        time::TimeSpec,
    },
};
use openelb_l2::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Nanoseconds since the epoch.
pub(super) fn now() -> u64 {
    nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long one call waits for something to come, so that a thread sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Puts this thread before what compiles on the same machine.
pub(super) fn hurry() {
    let _ = rustix::process::setpriority_process(None, -5);
}

/// A socket whose datagrams or frames come with the time when the kernel got them.
pub(super) fn stamped(socket: &Socket) -> anyhow::Result<()> {
    setsockopt(socket, ReceiveTimestampns, &true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let _ = socket.set_recv_buffer_size(4 << 20);
    Ok(())
}

fn receive<S: SockaddrLike>(socket: &Socket, octets: &mut [u8]) -> io::Result<(usize, u64, Option<S>)> {
    let mut control = [0; 128];
    let mut slices = [IoSliceMut::new(octets)];
    let message = recvmsg::<S>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::ScmTimestampns(time) => Some(time),
        _ => None,
    });
    let at = stamp.map_or_else(now, |time: TimeSpec| nanoseconds(time.into()));
    Ok((message.bytes, at, message.address))
}

/// A datagram: its length, when it came, and from where.
pub(super) fn datagram(socket: &Socket, octets: &mut [u8]) -> io::Result<(usize, u64, SockaddrStorage)> {
    let (length, at, from) = receive(socket, octets)?;
    Ok((length, at, from.ok_or(io::ErrorKind::InvalidData)?))
}

/// A frame: its length, when it came, and on which interface.
pub(super) fn frame(socket: &Socket, octets: &mut [u8]) -> io::Result<(usize, u64, LinkAddr)> {
    let (length, at, from) = receive(socket, octets)?;
    Ok((length, at, from.ok_or(io::ErrorKind::InvalidData)?))
}

/// Hears ARP and neighbour discovery that comes in on any interface of this host.
pub(super) fn sniffer() -> anyhow::Result<Socket> {
    const ALL: u16 = 0x0003;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ALL.to_be()))))
        .context("cannot open a packet socket")?;
    // Not outgoing (type 4, at the kernel's negative offset); ARP, or ICMPv6 of type 135 or 136.
    let program = [
        SockFilter::new(0x20, 0, 0, 0xffff_f004),
        SockFilter::new(0x15, 9, 0, 4),
        SockFilter::new(0x28, 0, 0, 12),
        SockFilter::new(0x15, 6, 0, 0x0806),
        SockFilter::new(0x15, 0, 6, 0x86dd),
        SockFilter::new(0x30, 0, 0, 20),
        SockFilter::new(0x15, 0, 4, 58),
        SockFilter::new(0x30, 0, 0, 54),
        SockFilter::new(0x35, 0, 2, 135),
        SockFilter::new(0x25, 1, 0, 136),
        SockFilter::new(0x06, 0, 0, 0x4_0000),
        SockFilter::new(0x06, 0, 0, 0),
    ];
    socket.attach_filter(&program)?;
    stamped(&socket)?;
    Ok(socket)
}

/// Sends frames on an interface of this host; with its MAC address.
pub(super) fn sender(interface: &str) -> anyhow::Result<(Socket, MacAddr)> {
    let link = getifaddrs()?
        .filter(|one| one.interface_name == interface)
        .find_map(|one| one.address?.as_link_addr().copied())
        .with_context(|| format!("there is no {interface}"))?;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    bind(socket.as_raw_fd(), &link)?;
    Ok((socket, MacAddr::new(link.addr().context("no MAC address")?)))
}
