//! Routers of several makes behind one face: a list of sessions goes in; what each session is and brings comes out.

mod bird;
mod exabgp;
mod frr;
pub(crate) mod gobgp;
mod openbgpd;

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;

use crate::{Lab, Process, eventually, lab::installed};

/// The makes of routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Make {
    /// BIRD 2.
    Bird,
    /// FRRouting: zebra, bgpd and bfdd.
    Frr,
    /// GoBGP.
    Gobgp,
    /// ExaBGP.
    Exabgp,
    /// OpenBGPD.
    Openbgpd,
}

impl Make {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Bird, Self::Frr, Self::Gobgp, Self::Exabgp, Self::Openbgpd];

    /// Its name, as its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
            Self::Exabgp => "ExaBGP",
            Self::Openbgpd => "OpenBGPD",
        }
    }

    /// A file of it, and the Debian package that has it.
    const fn requirement(self) -> (&'static str, &'static str) {
        match self {
            Self::Bird => ("/usr/sbin/bird", "bird2"),
            Self::Frr => ("/usr/lib/frr/bgpd", "frr"),
            Self::Gobgp => ("/usr/bin/gobgpd", "gobgpd"),
            Self::Exabgp => ("/usr/sbin/exabgp", "exabgp"),
            Self::Openbgpd => ("/usr/sbin/bgpctl", "openbgpd"),
        }
    }

    /// Name and version of what is installed.
    ///
    /// # Errors
    /// It is not; says which package has it.
    pub fn version(self) -> anyhow::Result<String> {
        let (file, package) = self.requirement();
        ensure!(
            std::path::Path::new(file).is_file(),
            "there is no {file}: as root, apt-get install {package}"
        );
        let output =
            std::process::Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output();
        let version =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let upstream = version.split(['-', '+']).next().unwrap_or_default();
        Ok(format!("{} {upstream}", self.name()).trim().to_owned())
    }

    /// Starts it on a host with these sessions, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed or does not start; the message has the end of its log.
    pub fn start<'a>(
        self,
        lab: &'a Lab,
        host: &str,
        sessions: &[Session],
    ) -> anyhow::Result<Box<dyn Router + 'a>> {
        self.version()?;
        ensure!(installed("ip"), "a lab needs ip: as root, apt-get install iproute2");
        Ok(match self {
            Self::Bird => Box::new(bird::Bird::start(lab, host, sessions)?),
            Self::Frr => Box::new(frr::Frr::start(lab, host, sessions)?),
            Self::Gobgp => Box::new(gobgp::Gobgp::start(lab, host, sessions)?),
            Self::Exabgp => Box::new(exabgp::Exabgp::start(lab, host, sessions)?),
            Self::Openbgpd => Box::new(openbgpd::Openbgpd::start(lab, host, sessions)?),
        })
    }
}

/// BFD with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// Both intervals.
    pub interval: Duration,
    /// After so many of them without a packet the neighbour is down.
    pub multiplier: u8,
    /// A neighbour that BFD loses may be one that restarts: BIRD's `bfd graceful`, FRR's `check-control-plane-failure`.
    pub graceful: bool,
}

/// A session, as the router is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name: letters and digits.
    pub name: String,
    /// The router's address.
    pub local: IpAddr,
    /// The router's AS number.
    pub asn: u32,
    /// The neighbour's address.
    pub remote: IpAddr,
    /// The neighbour's AS number.
    pub remote_asn: u32,
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
    /// Hold time in seconds.
    pub hold_time: u16,
    /// TCP MD5 (RFC 2385).
    pub password: Option<String>,
    /// GTSM (RFC 5082): the neighbour is one hop away.
    pub ttl_security: bool,
    /// The neighbour is more than one hop away.
    pub multihop: bool,
    /// Several paths of a prefix are taken (RFC 7911).
    pub add_path: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: bool,
    /// BFD.
    pub bfd: Option<Bfd>,
    /// [`ANNOUNCED`] and, before the router is restarted, [`LEAVING`] are announced, with these next hops where the router
    /// has to be told any: of IPv4 prefixes and of IPv6 ones. All carry [`COMMUNITY`], [`LARGE_COMMUNITY`] and
    /// [`ROUTE_TARGET`]; with add-path there is a second path of the first ones, with extended messages so many more
    /// communities that they do not fit into a shorter one.
    pub announces: Option<[IpAddr; 2]>,
}

/// What routers announce: a prefix of each family.
pub const ANNOUNCED: [&str; 2] = ["203.0.113.0/25", "2001:db8:77::/48"];
/// What they announce until they are restarted.
pub const LEAVING: [&str; 2] = ["203.0.113.128/25", "2001:db8:78::/48"];
/// A community (RFC 1997) of what they announce.
pub const COMMUNITY: [u16; 2] = [64512, 7];
/// A large community (RFC 8092) of it.
pub const LARGE_COMMUNITY: [u32; 3] = [64512, 1, 2];
/// An extended community (RFC 4360) of it, a route target.
pub const ROUTE_TARGET: [u16; 2] = [64512, 99];
/// Communities that do not fit into 4,096 octets: 64512:1000 and those that follow.
pub const MANY: std::ops::Range<u16> = 1000..2100;

/// What is announced, by family (4 and 6), now.
fn announced(restarted: bool) -> impl Iterator<Item = (u8, &'static str)> {
    let leaving = if restarted { [].as_slice() } else { LEAVING.as_slice() };
    ANNOUNCED.iter().chain(leaving).map(|prefix| (if prefix.contains(':') { 6 } else { 4 }, *prefix))
}

impl Session {
    /// A session with both families and nothing else.
    pub fn new(name: &str, local: IpAddr, asn: u32, remote: IpAddr, remote_asn: u32) -> Self {
        Self {
            name: name.to_owned(),
            local,
            asn,
            remote,
            remote_asn,
            ipv4: true,
            ipv6: true,
            hold_time: 9,
            password: None,
            ttl_security: false,
            multihop: false,
            add_path: false,
            extended_next_hop: false,
            extended_messages: false,
            graceful_restart: false,
            bfd: None,
            announces: None,
        }
    }
}

/// A path that a router has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its next hop.
    pub next_hop: IpAddr,
    /// Everything that the router says of it, in its own words.
    pub text: String,
}

/// A running router.
pub trait Router {
    /// Its processes; the first is the one that speaks BGP.
    fn processes(&self) -> &[Process];

    /// Whether a session is Established.
    ///
    /// # Errors
    /// The router does not answer.
    fn established(&self, session: &Session) -> anyhow::Result<bool>;

    /// The paths of exactly this host prefix that came over a session.
    ///
    /// # Errors
    /// The router does not answer.
    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>>;

    /// Asks the neighbour for all routes again (RFC 2918).
    ///
    /// # Errors
    /// The router does not answer, or cannot.
    fn refresh(&self, session: &Session) -> anyhow::Result<()>;

    /// How often the neighbour has asked for all routes again, as the router counts it.
    ///
    /// # Errors
    /// The router does not answer, or counts no such thing.
    fn requests(&self, session: &Session) -> anyhow::Result<u64> {
        anyhow::bail!("nobody counts what {} is asked for", session.local)
    }

    /// Whether BFD with the session's neighbour is Up.
    ///
    /// # Errors
    /// The router does not answer.
    fn bfd_up(&self, session: &Session) -> anyhow::Result<bool>;

    /// Starts again what was killed, with the same sessions and without [`LEAVING`]; a make with a switch for "I have just restarted" sets it.
    ///
    /// # Errors
    /// It does not start.
    fn restart(&mut self) -> anyhow::Result<()>;
}

/// Waits for the first answer of a router that was started just now.
fn await_answer<T>(process: &Process, ask: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let what = format!("an answer of {}", process.name);
    eventually(&what, Duration::from_secs(60), || ask().map(Some))
        .map(|_| ())
        .with_context(|| Lab::log_tail(process, 10))
}

/// `192.0.2.1/32` or `2001:db8::1/128`.
fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
