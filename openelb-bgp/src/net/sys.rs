//! The system calls that no crate has a safe function for: three socket options and a scheduling class.
//!
//! The only `unsafe` code of the workspace. Each function takes a borrowed descriptor and whole values, and hands the
//! kernel a pointer that it reads from during the call only.

#![expect(
    unsafe_code,
    reason = "socket2, nix and rustix have no function for these calls; each use is argued for"
)]

use std::{
    ffi::c_int,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use ipnet::IpNet;

/// `TCP_MD5SIG_EXT` of `linux/tcp.h`, which the libc crate lacks.
const TCP_MD5SIG_EXT: c_int = 32;
/// `TCP_MD5SIG_FLAG_PREFIX`: the prefix length counts.
const FLAG_PREFIX: u8 = 1;
/// `TCP_MD5SIG_MAXKEYLEN`.
pub(super) const MD5_KEY_MAX: usize = 80;

/// `struct tcp_md5sig` of `linux/tcp.h`. Every octet is part of a field: nothing of it is ever uninitialised.
#[repr(C, align(8))]
struct TcpMd5Sig {
    /// A `struct sockaddr_storage`.
    address: [u8; 128],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: c_int,
    key: [u8; MD5_KEY_MAX],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216, "the size that the kernel asks for");

/// Sets a socket option. `T` must be what the kernel expects of this option, without padding.
fn set<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let descriptor = socket.as_fd();
    // SAFETY: `value` is a reference to `length` octets, valid during the call; setsockopt(2) only reads them and keeps
    // no pointer. The descriptor is borrowed, hence open.
    let result = unsafe {
        libc::setsockopt(descriptor.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The TCP MD5 key (RFC 2385) of segments to and from these addresses; the longest prefix counts. An empty key takes
/// the one before away.
///
/// # Errors
/// Also if the key has more than [`MD5_KEY_MAX`] octets, or if there is none to take away.
pub(super) fn set_md5(socket: impl AsFd, prefix: IpNet, key: &[u8]) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a TCP MD5 password has 1 to 80 octets");
    let mut value = TcpMd5Sig {
        address: [0; 128],
        flags: 0,
        prefix_len: 0,
        key_len: u16::try_from(key.len()).map_err(|_| too_long())?,
        interface: 0,
        key: [0; MD5_KEY_MAX],
    };
    value.key.get_mut(..key.len()).ok_or_else(too_long)?.copy_from_slice(key);
    let prefix = prefix.trunc();
    let mut put = |offset: usize, octets: &[u8]| {
        if let Some(place) = value.address.get_mut(offset..offset + octets.len()) {
            place.copy_from_slice(octets);
        }
    };
    // The family in host order, a port (not looked at), and then the address where its family has it.
    match prefix.addr() {
        IpAddr::V4(address) => {
            put(0, &u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes());
            put(4, &address.octets());
        }
        IpAddr::V6(address) => {
            put(0, &u16::try_from(libc::AF_INET6).unwrap_or_default().to_ne_bytes());
            put(8, &address.octets());
        }
    }
    let option = if prefix.prefix_len() == prefix.max_prefix_len() {
        libc::TCP_MD5SIG
    } else {
        (value.flags, value.prefix_len) = (FLAG_PREFIX, prefix.prefix_len());
        TCP_MD5SIG_EXT
    };
    set(socket, libc::IPPROTO_TCP, option, &value)
}

/// Segments with a lower TTL or hop limit are dropped (RFC 5082); 0: none are.
pub(super) fn set_minimum_ttl(socket: impl AsFd, ipv4: bool, ttl: u8) -> io::Result<()> {
    let (level, name) =
        if ipv4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) };
    set(socket, level, name, &c_int::from(ttl))
}

/// Lets the calling thread go before all that is not realtime (`SCHED_RR`, the lowest priority of it; see `sched(7)`).
///
/// # Errors
/// Without `CAP_SYS_NICE`, mostly.
#[cfg(feature = "bfd")]
pub(super) fn become_realtime() -> io::Result<()> {
    // `struct sched_param` as the kernel has it; that of some C libraries has more fields.
    let priority: c_int = 1;
    // SAFETY: 0 is the calling thread, and the kernel reads one int through the pointer, which is valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_RR | libc::SCHED_RESET_ON_FORK,
            std::ptr::from_ref(&priority),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
