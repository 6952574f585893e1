//! Sockets with the options that BGP wants, set before the first packet leaves.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::speaker::PeerConfig;

/// Class selector 6, network control (RFC 4594 §3.1), as the octet of the IP header.
const NETWORK_CONTROL: u32 = 0xc0;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket from which to connect to this neighbour.
pub(super) fn connecting(config: &PeerConfig, ttl: u8) -> io::Result<TcpSocket> {
    let remote = config.socket_address();
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    set_ttl(&socket, remote, ttl)?;
    set_common(&socket, remote, config.hold_time)?;
    if let Some(interface) = &config.bind_interface {
        socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot bind to interface {interface}: {error}"))
        })?;
    }
    if let Some(local) = config.local_address {
        socket.bind(&with_scope(local, config.scope_id).into()).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot bind to local address {local}: {error}"))
        })?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Options of a connection that was accepted from this neighbour.
pub(super) fn accepted(stream: &TcpStream, config: &PeerConfig, ttl: u8) -> io::Result<()> {
    let remote = stream.peer_addr()?;
    let socket = SockRef::from(stream);
    set_ttl(&socket, remote, ttl)?;
    set_common(&socket, remote, config.hold_time)
}

/// A listening socket. IPv6 ones take IPv6 only, so that `0.0.0.0` and `::` can be listened on side by side.
pub(super) fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_class(&socket, address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the close a reset: nothing of a refused connection stays behind.
pub(super) fn refuse(stream: TcpStream) {
    // If it fails, the connection is closed in the usual way.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

fn with_scope(address: IpAddr, scope_id: u32) -> SocketAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
        IpAddr::V6(address) => std::net::SocketAddrV6::new(address, 0, 0, scope_id).into(),
    }
}

fn set_ttl(socket: &Socket, remote: SocketAddr, ttl: u8) -> io::Result<()> {
    if remote.is_ipv4() { socket.set_ttl_v4(ttl.into()) } else { socket.set_unicast_hops_v6(ttl.into()) }
}

fn set_class(socket: &Socket, remote: SocketAddr) -> io::Result<()> {
    if remote.is_ipv4() { socket.set_tos_v4(NETWORK_CONTROL) } else { socket.set_tclass_v6(NETWORK_CONTROL) }
}

fn set_common(socket: &Socket, remote: SocketAddr, hold_time: Duration) -> io::Result<()> {
    set_class(socket, remote)?;
    socket.set_tcp_nodelay(true)?;
    // What the neighbour does not acknowledge within its hold time will not be read in time either.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout((!hold_time.is_zero()).then_some(hold_time))?;
    #[cfg(not(target_os = "linux"))]
    let _ = hold_time;
    Ok(())
}
