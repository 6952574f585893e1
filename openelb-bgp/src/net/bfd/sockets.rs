//! BFD's sockets: one for each port and IP version to receive, one for each session to send.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::super::socket_options::NETWORK_CONTROL;
use crate::bfd::{Arrival, MULTIHOP_PORT, SINGLE_HOP_PORT, SOURCE_PORTS};

/// Octets of a datagram that are looked at: a control packet with the longest authentication has fewer.
const DATAGRAM: usize = 128;
/// Source ports that are tried.
const PORTS_TRIED: u16 = 64;

/// Which packets a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) multihop: bool,
    pub(super) ipv4: bool,
}

impl Kind {
    fn address(self) -> SocketAddr {
        let port = if self.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        if self.ipv4 { (Ipv4Addr::UNSPECIFIED, port).into() } else { (Ipv6Addr::UNSPECIFIED, port).into() }
    }
}

/// A socket that receives.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: UdpSocket,
    kind: Kind,
    /// The kernel drops packets with a TTL below 255.
    filtered: bool,
    control: Vec<u8>,
}

impl Receiver {
    pub(super) fn open(kind: Kind) -> io::Result<Self> {
        let address = kind.address();
        let explain = |error: io::Error| {
            let cause = match error.kind() {
                io::ErrorKind::AddrInUse => ": another program does BFD on this host",
                _ => "",
            };
            io::Error::new(error.kind(), format!("cannot receive on UDP {address}: {error}{cause}"))
        };
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if kind.ipv4 {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&address.into()).map_err(explain)?;
        let control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, kind, filtered: false, control })
    }

    /// Has the kernel drop what did not come from a directly connected sender, or not (RFC 5881 §5): strangers that are
    /// far away cannot crowd out neighbours then.
    pub(super) fn filter(&mut self, wanted: bool) {
        if wanted == self.filtered {
            return;
        }
        // Relative to the IP header (`SKF_NET_OFF`): the octet with the TTL, or the hop limit.
        let ttl = if self.kind.ipv4 { 0xfff0_0008 } else { 0xfff0_0007 };
        let program = [
            SockFilter::new(0x30, 0, 0, ttl),    // load this octet
            SockFilter::new(0x15, 0, 1, 255),    // if it is 255
            SockFilter::new(0x06, 0, 0, 0xffff), // take the packet
            SockFilter::new(0x06, 0, 0, 0),      // else drop it
        ];
        let socket = SockRef::from(&self.socket);
        match if wanted { socket.attach_filter(&program) } else { socket.detach_filter() } {
            Ok(()) => self.filtered = wanted,
            // What is not filtered here is discarded later.
            Err(error) => tracing::debug!(%error, "no filter for BFD packets"),
        }
    }

    pub(super) fn poll_readable(&self, context: &mut std::task::Context<'_>) -> bool {
        self.socket.poll_recv_ready(context).is_ready()
    }

    /// The next packet, if there is one: its octets in `buffer`.
    pub(super) fn receive<'a>(&mut self, buffer: &'a mut Buffer) -> Option<(&'a [u8], Arrival)> {
        let Self { socket, kind, control, .. } = self;
        loop {
            let received =
                socket.try_io(Interest::READABLE, || receive(socket, *kind, &mut buffer.0, control));
            match received {
                Ok(Some((len, arrival))) => return Some((buffer.0.get(..len)?, arrival)),
                Ok(None) => {} // without the addresses nothing can be told of it
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::debug!(%error, "a BFD packet cannot be read");
                    return None;
                }
            }
        }
    }
}

/// Room for a datagram.
#[derive(Debug)]
pub(super) struct Buffer([u8; DATAGRAM]);

impl Buffer {
    pub(super) const fn new() -> Self {
        Self([0; DATAGRAM])
    }
}

fn receive(
    socket: &UdpSocket,
    kind: Kind,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<Option<(usize, Arrival)>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(control), flags) {
        Err(Errno::EINTR) => return Ok(None),
        result => result?,
    };
    let remote: Option<IpAddr> = message.address.as_ref().and_then(|address| {
        let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
        ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    });
    let (mut ttl, mut place) = (None, None);
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                ttl = u8::try_from(value).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let local = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                place = Some((local.into(), u32::try_from(info.ipi_ifindex).unwrap_or_default()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                place = Some((Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), info.ipi6_ifindex));
            }
            _ => {}
        }
    }
    let (Some(remote), Some(ttl), Some((local, interface))) = (remote, ttl, place) else { return Ok(None) };
    Ok(Some((message.bytes, Arrival { remote, local, interface, ttl, multihop: kind.multihop })))
}

/// Where and how a session's packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) remote: IpAddr,
    pub(super) local: Option<IpAddr>,
    /// Of a link-local neighbour.
    pub(super) scope_id: u32,
    pub(super) bind_interface: Option<String>,
    pub(super) multihop: bool,
}

/// A socket that sends.
#[derive(Debug)]
pub(super) struct Sender {
    path: Path,
    socket: Option<Socket>,
    /// The same as long as the session lives (RFC 5881 §4).
    port: u16,
    /// Why the last packet did not leave.
    pub(super) error: Option<String>,
}

impl Sender {
    /// `random` decides where the search for a port begins.
    pub(super) fn new(path: Path, random: u64) -> Self {
        let span = u64::from(SOURCE_PORTS.end() - SOURCE_PORTS.start()) + 1;
        let port = SOURCE_PORTS.start() + u16::try_from(random % span).unwrap_or_default();
        Self { path, socket: None, port, error: None }
    }

    /// The path may have changed.
    pub(super) fn set_path(&mut self, path: Path) {
        if path != self.path {
            (self.path, self.socket) = (path, None);
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        let result = self.open().and_then(|(socket, remote)| socket.send_to(bytes, &remote.into()));
        match result {
            Ok(_) => self.error = None,
            Err(error) => {
                // Its interface may be another one by now.
                self.socket = None;
                self.error = Some(format!("cannot send to {}: {error}", self.path.remote));
            }
        }
    }

    fn open(&mut self) -> io::Result<(&Socket, SocketAddr)> {
        let port = if self.path.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        let place = |address: IpAddr, port: u16| match address.to_canonical() {
            IpAddr::V4(address) => SocketAddr::from((address, port)),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.path.scope_id).into(),
        };
        let remote = place(self.path.remote, port);
        let any: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if self.socket.is_none() {
            let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            if remote.is_ipv4() {
                socket.set_ttl_v4(255)?;
                socket.set_tos_v4(NETWORK_CONTROL)?;
            } else {
                socket.set_only_v6(true)?;
                socket.set_unicast_hops_v6(255)?;
                socket.set_tclass_v6(NETWORK_CONTROL)?;
            }
            // Nothing is read from it; the kernel keeps it at its minimum.
            socket.set_recv_buffer_size(0)?;
            if let Some(interface) = &self.path.bind_interface {
                socket.bind_device(Some(interface.as_bytes()))?;
            }
            let local = self.path.local.unwrap_or(any);
            let mut tried = 0;
            loop {
                match socket.bind(&place(local, self.port).into()) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED => {
                        tried += 1;
                        self.port = self.port.checked_add(1).unwrap_or(*SOURCE_PORTS.start());
                    }
                    Err(error) => return Err(error),
                }
            }
            self.socket = Some(socket);
        }
        let socket = self.socket.as_ref().ok_or_else(|| io::Error::other("no socket"))?;
        Ok((socket, remote))
    }
}
