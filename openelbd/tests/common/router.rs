//! A scripted BGP router: accepts sessions, and remembers what each neighbour has announced.

use std::{
    collections::BTreeMap,
    io::{Read, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What the router knows of a neighbour, by its BGP identifier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbor {
    pub(crate) established: bool,
    pub(crate) sessions: usize,
    /// Prefix → next hop.
    pub(crate) routes: BTreeMap<String, String>,
    /// Communities that some announcement carried.
    pub(crate) communities: Vec<u32>,
    /// Prefixes that were withdrawn, in order.
    pub(crate) withdrawn: Vec<String>,
    /// Code and subcode of NOTIFICATIONs.
    pub(crate) notifications: Vec<(u8, u8)>,
}

#[derive(Clone)]
pub(crate) struct Router {
    address: SocketAddr,
    neighbors: Arc<Mutex<BTreeMap<Ipv4Addr, Neighbor>>>,
    stop: Arc<AtomicBool>,
}

impl Router {
    /// Listens on a free port of 127.0.0.2.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let router =
            Self { address: listener.local_addr().unwrap(), neighbors: Arc::default(), stop: Arc::default() };
        let this = router.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if this.stop.load(Ordering::Relaxed) {
                    return;
                }
                let this = this.clone();
                thread::spawn(move || this.session(stream));
            }
        });
        router
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn neighbors(&self) -> BTreeMap<Ipv4Addr, Neighbor> {
        self.neighbors.lock().unwrap().clone()
    }

    /// The prefixes of all neighbours, each with how many established neighbours announce it.
    pub(crate) fn routes(&self) -> BTreeMap<String, usize> {
        let mut routes = BTreeMap::new();
        for neighbor in self.neighbors().values().filter(|neighbor| neighbor.established) {
            for prefix in neighbor.routes.keys() {
                *routes.entry(prefix.clone()).or_default() += 1;
            }
        }
        routes
    }

    fn update(&self, id: Ipv4Addr, change: impl FnOnce(&mut Neighbor)) {
        change(self.neighbors.lock().unwrap().entry(id).or_default());
    }

    fn session(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let Some((1, open)) = message(&mut stream) else { return };
        let id = Ipv4Addr::new(open[5], open[6], open[7], open[8]);
        if stream.write_all(&open_message()).is_err() || stream.write_all(&keepalive()).is_err() {
            return;
        }
        while let Some((kind, body)) = message(&mut stream) {
            match kind {
                4 => {
                    self.update(id, |neighbor| {
                        if !neighbor.established {
                            neighbor.established = true;
                            neighbor.sessions += 1;
                            neighbor.routes.clear();
                        }
                    });
                    if stream.write_all(&keepalive()).is_err() {
                        break;
                    }
                }
                2 => self.update(id, |neighbor| update(&body, neighbor)),
                3 => {
                    self.update(id, |neighbor| neighbor.notifications.push((body[0], body[1])));
                    break;
                }
                _ => {}
            }
        }
        self.update(id, |neighbor| neighbor.established = false);
    }
}

/// Type and body of the next message.
fn message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).ok()?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length - 19];
    stream.read_exact(&mut body).ok()?;
    Some((header[18], body))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(body.len() + 19).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

fn keepalive() -> Vec<u8> {
    framed(4, &[])
}

/// AS 65001, identifier 192.0.2.254, hold time 90 s, IPv4 and IPv6 unicast, four-octet AS numbers.
fn open_message() -> Vec<u8> {
    let capabilities = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9];
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 254, 20, 2, 18];
    body.extend(capabilities);
    framed(1, &body)
}

fn update(body: &[u8], neighbor: &mut Neighbor) {
    let (withdrawn, rest) = counted(body);
    withdraw(prefixes(withdrawn, false), neighbor);
    let (mut attributes, announced) = counted(rest);
    let mut next_hop = String::new();
    while !attributes.is_empty() {
        let (flags, kind) = (attributes[0], attributes[1]);
        let (start, length) = if flags & 0x10 == 0 {
            (3, usize::from(attributes[2]))
        } else {
            (4, usize::from(u16::from_be_bytes([attributes[2], attributes[3]])))
        };
        let value = &attributes[start..start + length];
        match kind {
            3 => next_hop = Ipv4Addr::new(value[0], value[1], value[2], value[3]).to_string(),
            8 => {
                let found = value.chunks(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
                neighbor.communities.extend(found);
            }
            14 => {
                let size = usize::from(value[3]);
                let hop: [u8; 16] = value[4..20].try_into().unwrap();
                let hop = Ipv6Addr::from(hop).to_string();
                for prefix in prefixes(&value[5 + size..], true) {
                    neighbor.routes.insert(prefix, hop.clone());
                }
            }
            15 => withdraw(prefixes(&value[3..], true), neighbor),
            _ => {}
        }
        attributes = &attributes[start + length..];
    }
    for prefix in prefixes(announced, false) {
        neighbor.routes.insert(prefix, next_hop.clone());
    }
}

fn withdraw(prefixes: Vec<String>, neighbor: &mut Neighbor) {
    for prefix in prefixes {
        neighbor.routes.remove(&prefix);
        neighbor.withdrawn.push(prefix);
    }
}

fn counted(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes[2..].split_at(length)
}

fn prefixes(mut bytes: &[u8], v6: bool) -> Vec<String> {
    let mut prefixes = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let octets = usize::from(length.div_ceil(8));
        let mut address = [0; 16];
        address[..octets].copy_from_slice(&rest[..octets]);
        let text = if v6 {
            Ipv6Addr::from(address).to_string()
        } else {
            Ipv4Addr::new(address[0], address[1], address[2], address[3]).to_string()
        };
        prefixes.push(format!("{text}/{length}"));
        bytes = &rest[octets..];
    }
    prefixes
}
