//! Memberships of solicited-node groups (RFC 4291 section 2.7.1): the kernel sends the MLD reports (RFC 3810) and tells
//! the network card.

use std::{
    collections::HashMap,
    io,
    net::{Ipv6Addr, SocketAddr},
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::speaker::LinkIndex;

/// Groups per socket: the kernel's room for them (`net.core.optmem_max`) is per socket.
const PER_SOCKET: usize = 200;

/// The memberships of this process. The sockets are bound to no port that anybody sends to.
#[derive(Default)]
pub(super) struct Memberships {
    sockets: Vec<(Socket, usize)>,
    joined: HashMap<(LinkIndex, Ipv6Addr), usize>,
}

impl Memberships {
    /// Joins a group on a link; again is no error.
    pub(super) fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<()> {
        if self.joined.contains_key(&(link, group)) {
            return Ok(());
        }
        let full = |error: &io::Error| {
            let errno = error.raw_os_error().map(Errno::from_raw);
            matches!(errno, Some(Errno::ENOMEM | Errno::ENOBUFS))
        };
        for (index, (socket, count)) in self.sockets.iter_mut().enumerate() {
            if *count >= PER_SOCKET {
                continue;
            }
            match socket.join_multicast_v6(&group, link.0) {
                Ok(()) => {
                    *count += 1;
                    self.joined.insert((link, group), index);
                    return Ok(());
                }
                Err(error) if full(&error) => *count = PER_SOCKET,
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        // The loopback: nothing from outside is ever queued here.
        socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())?;
        socket.join_multicast_v6(&group, link.0)?;
        self.joined.insert((link, group), self.sockets.len());
        self.sockets.push((socket, 1));
        Ok(())
    }

    /// Leaves a group; the link may be gone.
    pub(super) fn leave(&mut self, link: LinkIndex, group: Ipv6Addr) {
        let Some(index) = self.joined.remove(&(link, group)) else { return };
        if let Some((socket, count)) = self.sockets.get_mut(index) {
            // A link that is gone took its memberships with it.
            let _ = socket.leave_multicast_v6(&group, link.0);
            *count = count.saturating_sub(1);
        }
    }
}
