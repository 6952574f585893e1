//! An OPEN: never a panic; what was read and fits the short form is written and read again as the same; and whatever both
//! ends are configured with, they agree on no more than what both offer, or the neighbour is told why there is no session.
//!
//! The first 28 octets are our configuration, the rest is the body of the neighbour's OPEN.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::{
    fsm::{ConnectionInfo, Direction, FamilyOffer, Fsm, FsmConfig, Negotiated, Output, State},
    wire::{
        AddPathMode, Capability, Family, GracefulRestart, GracefulRestartFamily, Message, Notification, Open,
        SessionContext, SessionKind,
    },
};

#[derive(Debug, Arbitrary)]
enum Expected {
    Any,
    External,
    Theirs,
    Another(u32),
}

#[derive(Debug, Arbitrary)]
struct Offer {
    wanted: bool,
    send: bool,
    receive: bool,
}

/// What we are configured with.
#[derive(Debug, Arbitrary)]
struct Local {
    incoming: bool,
    expected: Expected,
    asn: u32,
    /// Our AS number is the neighbour's.
    internal: bool,
    router_id: u32,
    /// So is our identifier.
    twin: bool,
    hold_time: u16,
    keepalive: u8,
    ipv4: Offer,
    ipv6: Offer,
    restart: bool,
    notification: bool,
    extended_messages: bool,
    extended_next_hop: bool,
}

impl Local {
    fn config(&self, open: &Open) -> FsmConfig {
        let theirs = open.four_octet_asn();
        let asn = if self.internal { theirs } else { self.asn.max(1) };
        let router_id = if self.twin { open.router_id } else { Ipv4Addr::from_bits(self.router_id.max(1)) };
        let mut config = FsmConfig::new(asn, router_id);
        match self.expected {
            Expected::Any => {}
            Expected::External => config.external_only = true,
            Expected::Theirs => config.peer_asn = Some(theirs),
            Expected::Another(asn) => config.peer_asn = Some(asn),
        }
        config.passive = self.incoming;
        config.hold_time = if matches!(self.hold_time, 1 | 2) { 0 } else { self.hold_time };
        config.keepalive = Duration::from_secs(self.keepalive.into());
        let offers = [(Family::IPV4_UNICAST, &self.ipv4), (Family::IPV6_UNICAST, &self.ipv6)];
        config.families = offers
            .into_iter()
            .filter(|(_, offer)| offer.wanted)
            .map(|(family, offer)| FamilyOffer {
                family,
                add_path_send: offer.send,
                add_path_receive: offer.receive,
            })
            .collect();
        let row = |offer: &FamilyOffer| GracefulRestartFamily { family: offer.family, forwarding: true };
        config.graceful_restart = self.restart.then(|| GracefulRestart {
            restarted: false,
            notification: self.notification,
            time: 60,
            families: config.families.iter().map(row).collect(),
        });
        config.extended_messages = self.extended_messages;
        config.extended_next_hop = self.extended_next_hop;
        config
    }
}

/// Why there can be no session.
fn refusal(config: &FsmConfig, open: &Open) -> Option<Notification> {
    let asn = open.four_octet_asn();
    let wrong = match config.peer_asn {
        Some(expected) => asn != expected,
        None => config.external_only && asn == config.local_asn,
    };
    let families = open.families();
    if wrong {
        Some(Notification::bad_peer_as())
    } else if asn == config.local_asn && open.router_id == config.router_id {
        Some(Notification::bad_router_id())
    } else if config.families.iter().all(|offer| !families.contains(&offer.family)) {
        let required: Vec<_> =
            config.families.iter().map(|offer| Capability::Multiprotocol(offer.family)).collect();
        Some(Notification::unsupported_capability(&required))
    } else {
        None
    }
}

/// What both ends agree on follows from what both offer.
fn check(config: &FsmConfig, open: &Open, agreed: &Negotiated) {
    let hold = config.hold_time.min(open.hold_time);
    assert_eq!(agreed.hold_time, Duration::from_secs(hold.into()));
    assert!(hold == 0 || hold >= 3, "a hold time of {hold} s");
    // No interval of our own is a third of the hold time.
    assert!(agreed.keepalive * 3 <= agreed.hold_time);
    assert!(config.keepalive.is_zero() || agreed.keepalive <= config.keepalive);
    let theirs = open.families();
    let both = |offer: &&FamilyOffer| theirs.contains(&offer.family);
    let common: Vec<Family> = config.families.iter().filter(both).map(|offer| offer.family).collect();
    assert!(!common.is_empty());
    assert_eq!(agreed.families, common);
    let context = &agreed.context;
    for family in &agreed.families {
        let ours = config.families.iter().find(|offer| offer.family == *family).expect("we offer it");
        let mode = open.add_path(*family);
        let (sends, receives) = (
            matches!(mode, Some(AddPathMode::Send | AddPathMode::Both)),
            matches!(mode, Some(AddPathMode::Receive | AddPathMode::Both)),
        );
        assert_eq!(context.add_path_receive.contains(family), ours.add_path_receive && sends);
        assert_eq!(context.add_path_send.contains(family), ours.add_path_send && receives);
    }
    let add_path = context.add_path_receive.iter().chain(&context.add_path_send);
    assert!(add_path.into_iter().all(|family| common.contains(family)));
    let internal = open.four_octet_asn() == config.local_asn;
    assert_eq!(context.kind, if internal { SessionKind::Internal } else { SessionKind::External });
    assert_eq!(context.four_octet_as, open.has_four_octet_as());
    assert_eq!(context.extended_messages, config.extended_messages && open.has(&Capability::ExtendedMessage));
    let extended = open.has_extended_next_hop(Family::IPV4_UNICAST, Family::IPV6_UNICAST.afi);
    let possible = config.extended_next_hop && extended && common.contains(&Family::IPV4_UNICAST);
    assert_eq!(context.extended_next_hop, possible);
    assert_eq!(agreed.route_refresh, open.has(&Capability::RouteRefresh));
    let enhanced = agreed.route_refresh && open.has(&Capability::EnhancedRouteRefresh);
    assert_eq!(agreed.enhanced_route_refresh, enhanced);
    let notification = |restart: Option<&GracefulRestart>| restart.is_some_and(|known| known.notification);
    assert_eq!(
        agreed.notification_restart,
        notification(config.graceful_restart.as_ref()) && notification(open.graceful_restart())
    );
    assert_eq!(agreed.remote_open, *open);
}

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The messages that a machine has sent, and the session if one came up.
fn outputs(fsm: &mut Fsm) -> (Vec<Message>, Option<Negotiated>) {
    let (mut sent, mut agreed) = (Vec::new(), None);
    while let Some(output) = fsm.poll_output() {
        match output {
            Output::Send { bytes, .. } => {
                let read = Message::decode(&bytes, &SessionContext::default());
                sent.push(read.expect("what we send is sound"));
            }
            Output::Established(negotiated) => agreed = Some(*negotiated),
            _ => {}
        }
    }
    (sent, agreed)
}

/// The neighbour sends this OPEN and, if it is accepted, confirms ours.
fn negotiate(local: &Local, open: &Open, bytes: &[u8]) {
    let config = local.config(open);
    if config.families.is_empty() {
        return; // no such configuration is valid
    }
    let now = origin();
    let address = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 179));
    let direction = if local.incoming { Direction::Incoming } else { Direction::Outgoing };
    let mut fsm = Fsm::new(config.clone(), 1);
    fsm.start(now);
    fsm.handle_connected(direction, ConnectionInfo { local: address(1), remote: address(2) }, now);
    fsm.handle_bytes(direction, bytes, now);
    let (sent, early) = outputs(&mut fsm);
    assert_eq!(early, None, "established without a KEEPALIVE");
    let [Message::Open(ours), answer] = sent.as_slice() else { panic!("{sent:?}") };
    if let Some(expected) = refusal(&config, open) {
        assert_eq!((answer, fsm.state()), (&Message::Notification(expected), State::Idle));
        return;
    }
    assert_eq!((answer, fsm.state()), (&Message::Keepalive, State::OpenConfirm));
    let mut confirmation = BytesMut::new();
    Message::Keepalive.encode(&SessionContext::default(), &mut confirmation).expect("it fits");
    fsm.handle_bytes(direction, &confirmation, now);
    let (_, agreed) = outputs(&mut fsm);
    let agreed = agreed.expect("both have confirmed");
    assert_eq!((&agreed.local_open, agreed.direction, fsm.state()), (ours, direction, State::Established));
    check(&config, open, &agreed);
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(local) = Local::arbitrary(&mut input) else { return };
    let body = input.take_rest();
    let session = SessionContext::default();
    let Ok(length) = u16::try_from(19 + body.len()) else { return };
    let mut bytes = vec![0xff; 16];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(1);
    bytes.extend_from_slice(body);
    let message = match Message::decode(&bytes, &session) {
        Ok(message) => message,
        Err(error) => {
            let _ = (error.to_string(), error.notification().to_string());
            return;
        }
    };
    let Message::Open(open) = &message else { panic!("an OPEN was read as {message:?}") };
    assert!(
        open.four_octet_asn() != 0 && !open.router_id.is_unspecified() && !matches!(open.hold_time, 1 | 2)
    );
    assert!(!open.families().is_empty());
    let mut out = BytesMut::new();
    if message.encode(&session, &mut out).is_ok() {
        assert_eq!(Message::decode(&out, &session).as_ref(), Ok(&message));
    }
    negotiate(&local, open, &bytes);
});
