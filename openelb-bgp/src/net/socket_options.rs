//! Sockets with the options that BGP wants, set before the first packet leaves.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    time::Duration,
};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{protection::Protection, sys};
use crate::speaker::{PeerConfig, Secret};

/// Class selector 6, network control (RFC 4594 §3.1), as the octet of the IP header.
pub(super) const NETWORK_CONTROL: u32 = 0xc0;
/// The TTL of Linux where nobody asks for another one.
pub(super) const DEFAULT_TTL: u8 = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The lowest TTL with which packets of a neighbour arrive that is at most so many hops away (RFC 5082 §3).
pub(super) const fn minimum_ttl(hops: u8) -> u8 {
    if hops == 0 { 255 } else { 255 - (hops - 1) }
}

/// A socket from which to connect to this neighbour, and where to.
pub(super) fn connecting(config: &PeerConfig, ttl: u8) -> io::Result<(TcpSocket, SocketAddr)> {
    let remote = remote(config)?;
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    protect(&socket, remote, config, ttl)?;
    set_common(&socket, remote, config.hold_time)?;
    if let Some(interface) = &config.bind_interface {
        socket.bind_device(Some(interface.as_bytes())).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot bind to interface {interface}: {error}"))
        })?;
    }
    if let Some(local) = config.local_address {
        let scope = if let SocketAddr::V6(remote) = remote { remote.scope_id() } else { 0 };
        socket.bind(&with_scope(local, scope).into()).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot bind to local address {local}: {error}"))
        })?;
    }
    Ok((TcpSocket::from_std_stream(socket.into()), remote))
}

/// Where to connect to. A link-local address without a scope is on the interface that the peer is bound to.
fn remote(config: &PeerConfig) -> io::Result<SocketAddr> {
    let address = config.socket_address();
    let SocketAddr::V6(mut remote) = address else { return Ok(address) };
    if remote.ip().is_unicast_link_local() && remote.scope_id() == 0 {
        remote.set_scope_id(scope(config)?);
    }
    Ok(remote.into())
}

/// The index of the interface that a link-local neighbour is on.
pub(super) fn scope(config: &PeerConfig) -> io::Result<u32> {
    if config.scope_id != 0 {
        return Ok(config.scope_id);
    }
    let Some(name) = &config.bind_interface else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a link-local address is one of many: say which interface it is on",
        ));
    };
    nix::net::if_::if_nametoindex(name.as_str())
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))
}

/// Options of a connection that was accepted from this neighbour.
///
/// # Errors
/// If it must not be used: it came through another interface, or is not protected as the neighbour is to be.
pub(super) fn accepted(stream: &TcpStream, config: &PeerConfig, ttl: u8) -> io::Result<()> {
    let remote = stream.peer_addr()?;
    if let SocketAddr::V6(remote) = remote
        && remote.ip().is_unicast_link_local()
        && config.bind_interface.is_some()
        && scope(config)? != remote.scope_id()
    {
        let name = config.bind_interface.as_deref().unwrap_or_default();
        return Err(io::Error::other(format!("it did not come through interface {name}")));
    }
    let socket = SockRef::from(stream);
    // Also what the listener has: a key that came too late for the handshake counts from here on.
    protect(&socket, remote, config, ttl)?;
    set_common(&socket, remote, config.hold_time)
}

/// A listening socket. IPv6 ones take IPv6 only, so that `0.0.0.0` and `::` can be listened on side by side. Gives
/// what could not be protected, too.
pub(super) fn listening(
    address: SocketAddr,
    protection: &Protection,
) -> io::Result<(TcpListener, Vec<String>)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_class(&socket, address.is_ipv4())?;
    socket.bind(&address.into())?;
    // Before the first SYN can come.
    let failures = protection.apply(&socket, address.is_ipv4(), &Protection::default());
    socket.listen(BACKLOG)?;
    Ok((TcpListener::from_std(socket.into())?, failures))
}

/// Makes the close a reset: nothing of a refused connection stays behind.
pub(super) fn refuse(stream: TcpStream) {
    // If it fails, the connection is closed in the usual way.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// TCP MD5 (RFC 2385) with whoever has these addresses.
pub(super) fn set_password(socket: &impl AsFd, prefix: IpNet, password: &Secret) -> io::Result<()> {
    sys::set_md5(socket, prefix, password.expose().as_bytes()).map_err(|error| {
        let cause = match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => "this kernel has no TCP MD5 (CONFIG_TCP_MD5SIG)".to_owned(),
            Some(libc::ENOMEM) => format!("{error}: raise net.core.optmem_max for so many passwords"),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("cannot use the TCP MD5 password: {cause}"))
    })
}

fn with_scope(address: IpAddr, scope_id: u32) -> SocketAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
        IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, scope_id).into(),
    }
}

/// TTL security (RFC 5082) and the password.
fn protect(socket: &Socket, remote: SocketAddr, config: &PeerConfig, ttl: u8) -> io::Result<()> {
    let ttl = if config.ttl_security.is_some() { 255 } else { ttl };
    set_ttl(socket, remote.is_ipv4(), ttl)?;
    if let Some(hops) = config.ttl_security {
        sys::set_minimum_ttl(socket, remote.is_ipv4(), minimum_ttl(hops))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot have TTL security: {error}")))?;
    }
    match &config.password {
        Some(password) => set_password(socket, remote.ip().to_canonical().into(), password),
        None => Ok(()),
    }
}

/// The TTL or hop limit of what is sent.
pub(super) fn set_ttl(socket: &impl AsFd, ipv4: bool, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if ipv4 { socket.set_ttl_v4(ttl.into()) } else { socket.set_unicast_hops_v6(ttl.into()) }
}

fn set_class(socket: &Socket, ipv4: bool) -> io::Result<()> {
    if ipv4 { socket.set_tos_v4(NETWORK_CONTROL) } else { socket.set_tclass_v6(NETWORK_CONTROL) }
}

fn set_common(socket: &Socket, remote: SocketAddr, hold_time: Duration) -> io::Result<()> {
    set_class(socket, remote.is_ipv4())?;
    socket.set_tcp_nodelay(true)?;
    // Until the neighbour says something: one that does not even acknowledge our OPEN for so long is not there.
    give_up_after(socket, (!hold_time.is_zero()).then_some(hold_time))
}

/// The connection ends if what was sent is not acknowledged, or not let out by a closed window, for so long; `None`: as
/// the kernel has it, which never ends one for a closed window.
pub(super) fn give_up_after(socket: &impl AsFd, time: Option<Duration>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(socket).set_tcp_user_timeout(time)?;
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, time);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hop_means_ttl_255() {
        assert_eq!([1, 2, 254].map(minimum_ttl), [255, 254, 2]);
    }

    #[test]
    fn a_link_local_neighbour_needs_an_interface() {
        let mut peer = PeerConfig::new("router", "fe80::1".parse().unwrap(), 65001);
        assert!(remote(&peer).unwrap_err().to_string().contains("which interface"));
        peer.bind_interface = Some("openelb-none".to_owned());
        assert!(remote(&peer).unwrap_err().to_string().contains("openelb-none"));
        peer.bind_interface = Some("lo".to_owned());
        assert_eq!(remote(&peer).unwrap().to_string(), "[fe80::1%1]:179");
        peer.scope_id = 7;
        assert_eq!(remote(&peer).unwrap().to_string(), "[fe80::1%7]:179");
    }
}
