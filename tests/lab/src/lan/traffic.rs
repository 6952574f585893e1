//! Datagrams to every address, and which came back.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Socket, Type};

use super::{CLIENT, Lan, PORT, capture::outage, socket};

/// What comes back later has waited for somebody.
const LATE: Duration = Duration::from_millis(100);

/// By address: when each was sent, and when it came back.
type Datagrams = HashMap<IpAddr, Vec<(u64, Option<u64>)>>;
type Sent = Arc<Mutex<Datagrams>>;

/// A client that sends a datagram to every address, every 10 ms unless the plan says otherwise, always from the same
/// port.
#[derive(Debug)]
pub struct Traffic {
    sent: Sent,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn lock(sent: &Sent) -> MutexGuard<'_, Datagrams> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(domain: Domain, any: IpAddr) -> anyhow::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    socket::stamped(&socket)?;
    Ok(socket)
}

fn from(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

impl Traffic {
    /// Starts sending.
    ///
    /// # Errors
    /// The sockets cannot be opened.
    pub fn start(lan: &Lan) -> anyhow::Result<Self> {
        let (four, six) = lan.lab.within(CLIENT, || {
            anyhow::Ok((
                open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into())?,
                open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())?,
            ))
        })??;
        let (four, six) = (Arc::new(four), Arc::new(six));
        let sent: Sent = Arc::default();
        let end: Arc<AtomicBool> = Arc::default();
        let mut threads = Vec::new();
        for socket in [Arc::clone(&four), Arc::clone(&six)] {
            let (sent, end) = (Arc::clone(&sent), Arc::clone(&end));
            threads.push(std::thread::spawn(move || {
                socket::hurry();
                let mut octets = [0; 8];
                while !end.load(Ordering::Relaxed) {
                    let Ok((8, at, address)) = socket::datagram(&socket, &mut octets) else { continue };
                    let Some(address) = from(&address) else { continue };
                    let index = usize::try_from(u64::from_be_bytes(octets)).unwrap_or(usize::MAX);
                    if let Some(one) = lock(&sent).get_mut(&address).and_then(|all| all.get_mut(index)) {
                        one.1.get_or_insert(at);
                    }
                }
            }));
        }
        let (all, to, over) = (Arc::clone(&sent), lan.addresses.clone(), Arc::clone(&end));
        let interval = lan.plan.interval;
        threads.push(std::thread::spawn(move || {
            socket::hurry();
            let mut due = Instant::now();
            while !over.load(Ordering::Relaxed) {
                for address in &to {
                    let index = {
                        let mut all = lock(&all);
                        let one = all.entry(*address).or_default();
                        one.push((socket::now(), None));
                        one.len() as u64 - 1
                    };
                    let socket = if address.is_ipv4() { &four } else { &six };
                    let _ = socket.send_to(&index.to_be_bytes(), &SocketAddr::new(*address, PORT).into());
                }
                due = (due + interval).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }));
        Ok(Self { sent, end, threads })
    }

    /// How many datagrams were sent to an address so far.
    pub fn sent(&self, address: IpAddr) -> usize {
        lock(&self.sent).get(&address).map_or(0, Vec::len)
    }

    /// The longest time without an answer since then: from the first datagram that did not come back within 100 ms to
    /// the next one that did.
    pub fn outage_since(&self, address: IpAddr, since: u64) -> Duration {
        let late = socket::nanoseconds(LATE);
        let now = socket::now();
        let sent = lock(&self.sent).get(&address).cloned().unwrap_or_default();
        let sent = sent
            .into_iter()
            .filter(|(at, _)| *at >= since)
            .map(|(at, back)| (at, back.is_some_and(|back| back.saturating_sub(at) < late)));
        outage(sent.filter(|(at, good)| *good || now.saturating_sub(*at) > late), since, now, late)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
