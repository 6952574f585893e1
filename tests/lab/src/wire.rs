//! Frames on an interface as they are (`packet(7)`): to send what no program sends, and to see what really went by.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        LinkAddr, MsgFlags, MultiHeaders, bind, recvmmsg, sendmmsg, setsockopt,
        sockopt::{RcvBufForce, ReceiveTimeout},
    },
    sys::time::TimeVal,
};
use socket2::{Domain, Protocol, Socket, Type};

/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// Everything, that which this host sends included (`ETH_P_ALL`).
pub const EVERYTHING: u16 = 0x0003;

/// Frames with one system call.
pub const BATCH: usize = 64;
/// Octets of a frame that are kept.
pub const ROOM: usize = 256;

/// A packet socket of one interface.
pub struct Wire {
    socket: Socket,
    mac: [u8; 6],
    octets: Box<[[u8; ROOM]; BATCH]>,
    lengths: [usize; BATCH],
    receiving: MultiHeaders<()>,
    sending: MultiHeaders<()>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Wire {
    /// Opens an interface of the calling thread's network; see [`Lab::within`](crate::Lab::within).
    ///
    /// # Errors
    /// There is no such interface, or this is not root.
    pub fn open(interface: &str, ethertype: u16) -> anyhow::Result<Self> {
        let address = link_address(interface)?;
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(protocol))
            .context("no packet socket: only root may open one")?;
        setsockopt(&socket, RcvBufForce, &(8 << 20))?;
        bind(socket.as_raw_fd(), &address)?;
        let wire = Self {
            socket,
            mac: address.addr().context("an interface without a link-layer address")?,
            octets: Box::new([[0; ROOM]; BATCH]),
            lengths: [0; BATCH],
            receiving: MultiHeaders::preallocate(BATCH, None),
            sending: MultiHeaders::preallocate(BATCH, None),
        };
        wire.timeout(Duration::from_millis(20))?;
        Ok(wire)
    }

    /// The interface's link-layer address when it was opened.
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// How long [`receive_one`](Self::receive_one) waits; 20 ms unless told otherwise.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn timeout(&self, time: Duration) -> io::Result<()> {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Ok(setsockopt(&self.socket, ReceiveTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Sends up to [`BATCH`] frames with one system call; says how many the kernel took.
    pub fn send_batch<'a>(&mut self, frames: impl IntoIterator<Item = &'a [u8]>) -> usize {
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = [IoSlice::new(frame)];
            count += 1;
        }
        let addresses: [Option<()>; BATCH] = [None; BATCH];
        let (Some(slices), Some(addresses)) = (slices.get(..count), addresses.get(..count)) else { return 0 };
        let flags = MsgFlags::empty();
        sendmmsg(self.socket.as_raw_fd(), &mut self.sending, slices, addresses, [], flags)
            .map_or(0, Iterator::count)
    }

    /// Hands in what has come, at most [`BATCH`] frames, without waiting; says how many.
    pub fn receive_batch(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut slices = self.octets.each_mut().map(|octets| [IoSliceMut::new(octets)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let mut count = 0;
        if let Ok(received) = recvmmsg(fd, &mut self.receiving, slices.iter_mut(), flags, None) {
            for (length, message) in self.lengths.iter_mut().zip(received) {
                *length = message.bytes.min(ROOM);
                count += 1;
            }
        }
        for (octets, length) in self.octets.iter().zip(self.lengths).take(count) {
            each(octets.get(..length).unwrap_or_default());
        }
        count
    }

    /// Waits for one frame.
    ///
    /// # Errors
    /// None came in time (`WouldBlock`), or the interface went down.
    pub fn receive_one<'a>(&self, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = nix::unistd::read(&self.socket, room)?;
        Ok(room.get(..length).unwrap_or_default())
    }

    /// Collects the frames that `wanted` makes something of, until there are `count` or the time is over.
    ///
    /// # Errors
    /// The interface went down.
    pub fn collect<T>(
        &self,
        count: usize,
        deadline: Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> anyhow::Result<Vec<T>> {
        let start = Instant::now();
        let mut room = [0; ROOM];
        let mut found = Vec::new();
        while found.len() < count && start.elapsed() < deadline {
            match self.receive_one(&mut room) {
                Ok(frame) => found.extend(wanted(frame)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

fn link_address(interface: &str) -> anyhow::Result<LinkAddr> {
    getifaddrs()?
        .filter(|one| one.interface_name == interface)
        .find_map(|one| one.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))
}
