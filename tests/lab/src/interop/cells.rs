//! What is tried, each on a session of its own.

use std::net::IpAddr;

use super::{DUT, MIDDLE, OUR_AS, PASSWORD, ROUTER, THEIR_AS};
use crate::{
    Network,
    routers::{Bfd, Make, Session},
};

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone, over IPv6.
    Ipv6,
    /// Both families on one session.
    Both,
    /// IPv4 prefixes over an IPv6 session (RFC 8950).
    ExtendedNextHop,
    /// TCP MD5 (RFC 2385).
    Md5,
    /// GTSM (RFC 5082).
    Gtsm,
    /// More than one hop away.
    Multihop,
    /// Several paths of a prefix (RFC 7911).
    AddPath,
    /// Communities, large and extended communities.
    Communities,
    /// Messages of more than 4,096 octets (RFC 8654).
    ExtendedMessages,
    /// BFD (RFC 5880).
    Bfd,
    /// We know the router only by its prefix.
    Dynamic,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Graceful restart (RFC 4724), the router restarts.
    TheirRestart,
    /// Graceful restart, we restart.
    OurRestart,
    /// TCP MD5 over IPv6.
    Md5OverIpv6,
    /// GTSM over IPv6.
    GtsmOverIpv6,
}

/// So many communities do not fit into 4,096 octets.
const MANY: u32 = 1100;

/// What a router lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lacking {
    pub(super) why: &'static str,
    pub(super) evidence: Evidence,
}

/// Where it shows that a router lacks something. Where it can, the session is made all the same, to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Its configuration has no word for it, or its program no command.
    Manual,
    /// Its OPEN does not have this capability, in `gobgp`'s words.
    Unsaid(&'static str),
    /// It ends the session when it is asked for its routes again.
    Ends,
}

/// The direction of a feature that can be tried, where the other cannot; with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OneWay {
    /// What we send, ask for, or do.
    Ours(&'static str),
    /// What the router does.
    Theirs(&'static str),
}

impl OneWay {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Ours(why) | Self::Theirs(why) => why,
        }
    }
}

impl Cell {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 17] = [
        Self::Ipv4,
        Self::Ipv6,
        Self::Both,
        Self::ExtendedNextHop,
        Self::Md5,
        Self::Md5OverIpv6,
        Self::Gtsm,
        Self::GtsmOverIpv6,
        Self::Multihop,
        Self::AddPath,
        Self::Communities,
        Self::ExtendedMessages,
        Self::Bfd,
        Self::Dynamic,
        Self::RouteRefresh,
        Self::TheirRestart,
        Self::OurRestart,
    ];

    /// Its name among BgpPeers, unique.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Both => "both",
            Self::ExtendedNextHop => "extendednexthop",
            Self::Md5 => "md5",
            Self::Gtsm => "gtsm",
            Self::Multihop => "multihop",
            Self::AddPath => "addpath",
            Self::Communities => "communities",
            Self::ExtendedMessages => "extendedmessages",
            Self::Bfd => "bfd",
            Self::Dynamic => "dynamic",
            Self::RouteRefresh => "refresh",
            Self::TheirRestart => "theirrestart",
            Self::OurRestart => "ourrestart",
            Self::Md5OverIpv6 => "md5overipv6",
            Self::GtsmOverIpv6 => "gtsmoveripv6",
        }
    }

    /// What a reader calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6 over IPv6",
            Self::Both => "both families on one session",
            Self::ExtendedNextHop => "IPv4 over an IPv6 session (RFC 8950)",
            Self::Md5 => "TCP MD5 (RFC 2385)",
            Self::Gtsm => "GTSM (RFC 5082)",
            Self::Multihop => "multihop",
            Self::AddPath => "add-path (RFC 7911)",
            Self::Communities => "communities, large and extended ones",
            Self::ExtendedMessages => "extended messages (RFC 8654)",
            Self::Bfd => "BFD (RFC 5880)",
            Self::Dynamic => "dynamic neighbour",
            Self::RouteRefresh => "route refresh (RFC 2918)",
            Self::TheirRestart => "graceful restart, the router restarts",
            Self::OurRestart => "graceful restart (RFC 4724), we restart",
            Self::Md5OverIpv6 => "TCP MD5 over IPv6",
            Self::GtsmOverIpv6 => "GTSM over IPv6",
        }
    }

    /// Why it cannot be tried with this make.
    pub(super) const fn lacking(self, make: Make) -> Option<Lacking> {
        const EXTENDED_MESSAGES: Evidence = Evidence::Unsaid("UnknownCapability(6)");
        let (why, evidence) = match (make, self) {
            (Make::Gobgp, Self::ExtendedMessages) => ("GoBGP 3.10 does not offer them", EXTENDED_MESSAGES),
            (Make::Gobgp, Self::Bfd) => ("GoBGP 3.10 has no BFD", Evidence::Manual),
            (Make::Exabgp, Self::Bfd) => ("ExaBGP has no BFD", Evidence::Manual),
            (Make::Exabgp, Self::OurRestart) => ("ExaBGP keeps no routes", Evidence::Manual),
            (Make::Exabgp, Self::RouteRefresh) => (
                "ExaBGP has no command that makes a request, and 4.2.21 drops the session when it is to answer ours: where RFC \
                 7313 was agreed on, it fails on its own marker (`'RouteRefresh' object is not iterable`)",
                Evidence::Ends,
            ),
            (Make::Openbgpd, Self::Bfd) => ("OpenBGPD has no BFD", Evidence::Manual),
            (Make::Openbgpd, Self::ExtendedMessages) => {
                ("OpenBGPD 7.7 does not offer them", EXTENDED_MESSAGES)
            }
            (Make::Openbgpd, Self::ExtendedNextHop) => {
                ("OpenBGPD 7.7 does not offer it", Evidence::Unsaid("extended-nexthop"))
            }
            _ => return None,
        };
        Some(Lacking { why, evidence })
    }

    /// Which direction alone can be tried with this make, and why.
    pub(super) const fn one_way(self, make: Make) -> Option<OneWay> {
        Some(match (make, self) {
            (Make::Gobgp, Self::RouteRefresh) => OneWay::Ours(
                "it answers our request; GoBGP 3.10 has no command that makes one: its `softresetin` looks at what it has",
            ),
            (Make::Openbgpd, Self::RouteRefresh) => OneWay::Theirs(
                "we answer its request; OpenBGPD 7.7 counts ours, and sends nothing that it has sent before",
            ),
            (Make::Openbgpd, Self::AddPath) => OneWay::Ours(
                "it takes our paths; OpenBGPD 7.7 has one path of a network of its own, so it sends no second one",
            ),
            (Make::Openbgpd, Self::TheirRestart) => OneWay::Theirs(
                "it comes back and has everything again; OpenBGPD 7.7 asks nobody to keep its routes: its capability has no \
                 families, and when it dies it says goodbye",
            ),
            _ => return None,
        })
    }

    const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Our address and the router's.
    fn ends(self) -> (IpAddr, IpAddr) {
        let number = self.number();
        let pair = match self {
            Self::Multihop => ["10.8.0.1".to_owned(), "10.7.0.2".to_owned()],
            Self::Ipv6 | Self::ExtendedNextHop | Self::Md5OverIpv6 | Self::GtsmOverIpv6 => {
                [1, 2].map(|end| format!("fd00:9:{number}::{end}"))
            }
            _ => [1, 2].map(|end| format!("10.9.{number}.{end}")),
        };
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        let [ours, theirs] = pair.map(|text| text.parse().unwrap_or(unspecified));
        (ours, theirs)
    }

    /// What the router's prefixes of each family have to come with.
    fn next_hops(self) -> [IpAddr; 2] {
        let (_, theirs) = self.ends();
        let other = match self {
            Self::Multihop => "fd00:7::2".to_owned(),
            _ if theirs.is_ipv4() => format!("fd00:9:{}::2", self.number()),
            _ => format!("10.9.{}.2", self.number()),
        };
        let other = other.parse().unwrap_or(theirs);
        match self {
            Self::ExtendedNextHop => [theirs; 2],
            _ if theirs.is_ipv4() => [theirs, other],
            _ => [other, theirs],
        }
    }

    /// The router's side.
    pub(super) fn session(self) -> Session {
        let (ours, theirs) = self.ends();
        let plain = Session {
            announces: Some(self.next_hops()),
            ..Session::new(self.name(), theirs, THEIR_AS, ours, OUR_AS)
        };
        match self {
            Self::Ipv4 => Session { ipv6: false, ..plain },
            Self::Ipv6 => Session { ipv4: false, ..plain },
            Self::Both | Self::Communities | Self::Dynamic => plain,
            Self::ExtendedNextHop => Session { extended_next_hop: true, ..plain },
            Self::Md5 => Session { password: Some(PASSWORD.to_owned()), ..plain },
            Self::Md5OverIpv6 => Session { password: Some(PASSWORD.to_owned()), ipv4: false, ..plain },
            Self::Gtsm => Session { ttl_security: true, ..plain },
            Self::GtsmOverIpv6 => Session { ttl_security: true, ipv4: false, ..plain },
            Self::Multihop => Session { multihop: true, ..plain },
            Self::AddPath => Session { add_path: true, ..plain },
            Self::ExtendedMessages => Session { extended_messages: true, ipv6: false, ..plain },
            Self::Bfd => {
                let interval = std::time::Duration::from_millis(300);
                Session { bfd: Some(Bfd { interval, multiplier: 3, graceful: false }), ..plain }
            }
            Self::RouteRefresh => Session { ipv6: false, ..plain },
            Self::TheirRestart | Self::OurRestart => Session { graceful_restart: true, ..plain },
        }
    }

    /// Our side: a BgpPeer.
    pub(super) fn manifest(self) -> String {
        let (ours, theirs) = self.ends();
        let neighbor = match self {
            Self::Dynamic => format!("10.9.{}.0/24", self.number()),
            _ => theirs.to_string(),
        };
        // A dynamic neighbour connects to whichever address of ours it likes.
        let transport = match self {
            Self::Dynamic => String::new(),
            Self::Gtsm | Self::GtsmOverIpv6 => {
                format!("  transport:\n    localAddress: \"{ours}\"\n    ttlSecurity: {{hops: 1}}\n")
            }
            _ => format!("  transport:\n    localAddress: \"{ours}\"\n"),
        };
        let communities =
            (0..MANY).map(|number| format!("\"64501:{number}\"")).collect::<Vec<_>>().join(", ");
        let more = match self {
            Self::Md5 | Self::Md5OverIpv6 => "  passwordSecretRef: {name: lab, key: md5}\n".to_owned(),
            Self::Multihop => "  ebgpMultihop: {enabled: true, multihopTtl: 5}\n".to_owned(),
            Self::AddPath => {
                let family = |afi: &str| {
                    format!(
                        "    - config: {{family: {{afi: {afi}, safi: SAFI_UNICAST}}}}\n      addPaths: {{config: {{receive: true, \
                         sendMax: 10}}}}\n"
                    )
                };
                format!("  nextHopMode: AllNodes\n  afiSafis:\n{}{}", family("AFI_IP"), family("AFI_IP6"))
            }
            Self::Communities => {
                "  advertisements:\n    - communities: [\"64501:7\", no-export]\n      largeCommunities: \
                                  [\"64501:1:2\"]\n      extCommunities: [\"rt:64501:99\"]\n"
                    .to_owned()
            }
            Self::ExtendedMessages => format!("  advertisements:\n    - communities: [{communities}]\n"),
            Self::Bfd => "  bfd: {enabled: true}\n".to_owned(),
            _ => String::new(),
        };
        format!(
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata:\n  name: {}\nspec:\n  conf:\n    \
             neighborAddress: \"{neighbor}\"\n    peerAs: {THEIR_AS}\n  timers:\n    config:\n      holdTime: \"9\"\n      \
             keepaliveInterval: \"3\"\n      connectRetry: \"1\"\n  receivedRoutes: Keep\n{transport}{more}---\n",
            self.name()
        )
    }

    /// What must be in the router's words for a path: one form of each. Blanks after commas are not compared.
    pub(super) fn wanted(self) -> Vec<Vec<&'static str>> {
        match self {
            Self::Communities => vec![
                vec!["(64501,7)", "64501:7", "[64501,7]"],
                vec!["(64501,1,2)", "64501:1:2", "[64501,1,2]"],
                vec!["(rt,64501,99)", "RT:64501:99", "rt 64501:99", "[64501:99]", "target:64501:99"],
            ],
            Self::ExtendedMessages => vec![vec!["(64501,1099)", "64501:1099", "[64501,1099]"]],
            _ => Vec::new(),
        }
    }
}

/// The lab of all cells.
pub(super) fn network(network: &mut Network) {
    network.host(DUT).host(ROUTER).router(MIDDLE);
    let pairs: Vec<[String; 4]> = Cell::ALL
        .iter()
        .map(|cell| {
            let number = cell.number();
            [
                format!("10.9.{number}.1/24"),
                format!("10.9.{number}.2/24"),
                format!("fd00:9:{number}::1/64"),
                format!("fd00:9:{number}::2/64"),
            ]
        })
        .collect();
    let ours: Vec<&str> = pairs.iter().flat_map(|[v4, _, v6, _]| [v4.as_str(), v6.as_str()]).collect();
    let theirs: Vec<&str> = pairs.iter().flat_map(|[_, v4, _, v6]| [v4.as_str(), v6.as_str()]).collect();
    network.wire((DUT, "eth0", &ours), (ROUTER, "eth0", &theirs));
    network.wire((DUT, "mid0", &["10.8.0.1/24", "fd00:8::1/64"]), (MIDDLE, "west", &["10.8.0.254/24"]));
    network.wire((MIDDLE, "east", &["10.7.0.254/24"]), (ROUTER, "mid0", &["10.7.0.2/24", "fd00:7::2/64"]));
    network.route(DUT, "10.7.0.0/24 via 10.8.0.254").route(ROUTER, "10.8.0.0/24 via 10.7.0.254");
}
