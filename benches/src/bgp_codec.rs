//! Reading and writing UPDATE messages, beside `rustbgpd-wire`.
//!
//! The work is the same for both. Decoding goes from the bytes of one whole message to the attributes as values and to
//! each prefix visited once. Encoding goes from attributes and prefixes as values to the bytes of one whole message.
//! The bytes of both are compared before anything is measured.

use std::{hint::black_box, net::Ipv4Addr};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use openelb_bgp::wire::{
    AsPath, Attributes, Community, LargeCommunity, Message, Nlri, Origin, Prefix, SessionContext,
    SessionKind, UpdateBuilder,
};
use rustbgpd_wire as peer;

use crate::{Options, Report, Row, Target};

const PEER: &str = "rustbgpd-wire 0.27.0";
/// Prefixes of the big message: those of a /23.
const MANY: u32 = 500;

/// Measures one message of 500 host routes, and one of a single host route.
///
/// # Errors
/// If the two libraries do not agree about a message.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    // A round is long enough that the clock's grain and a single interrupt are small in it.
    let repeats: u32 = options.scaled(4_000);
    for count in [MANY, 1] {
        let targets = (count == MANY).then_some((Target::RatioAtMost(0.70), Target::RatioAtMost(0.50)));
        let case = Case::new(count)?;
        let per = u64::from(repeats);
        let time =
            |work: &mut dyn FnMut()| options.best_of(|| (), |()| (0..repeats).for_each(|_| work())).per(per);
        let name = if count == 1 { "1 /32".to_owned() } else { format!("{count} /32") };

        let ours = time(&mut || {
            black_box(case.decode(&case.message));
        });
        let peers = time(&mut || {
            black_box(case.peer_decode(&case.message));
        });
        report.push(row(format!("decode UPDATE, {name}"), ours, peers, targets.map(|(decode, _)| decode)));

        let mut out = BytesMut::with_capacity(8192);
        let ours = time(&mut || {
            out.clear();
            black_box(case.encode(&mut out).is_ok());
        });
        let mut out = BytesMut::with_capacity(8192);
        let peers = time(&mut || {
            out.clear();
            black_box(case.peer_encode(&mut out).is_ok());
        });
        report.push(row(format!("encode UPDATE, {name}"), ours, peers, targets.map(|(_, encode)| encode)));

        // What a speaker does: the set is encoded once, for all messages and sessions that carry it.
        let set = case.attributes.encode(&case.session)?;
        let mut out = BytesMut::with_capacity(8192);
        let ours = time(&mut || {
            out.clear();
            black_box(case.builder.announce_ipv4(&set, case.prefixes.iter().copied(), &mut out).is_ok());
        });
        report.push(row(format!("encode UPDATE, {name}, attributes encoded before"), ours, peers, None));
    }
    Ok(report)
}

fn row(name: String, ours: f64, peers: f64, target: Option<Target>) -> Row {
    let row = Row::new(name, "ns/message", ours).beside(PEER, peers);
    match target {
        Some(target) => row.target(target),
        None => row,
    }
}

/// One message, as both libraries see it.
struct Case {
    session: SessionContext,
    builder: UpdateBuilder,
    attributes: Attributes,
    prefixes: Vec<Nlri>,
    peer_attributes: Vec<peer::PathAttribute>,
    peer_prefixes: Vec<peer::Ipv4NlriEntry>,
    message: Bytes,
}

impl Case {
    fn new(count: u32) -> anyhow::Result<Self> {
        let session = SessionContext { kind: SessionKind::Internal, ..SessionContext::default() };
        let asns = [64_512, 4_200_000_001, 65_001];
        let next_hop = Ipv4Addr::new(192, 0, 2, 1);
        let communities: [u32; 4] = [0xfc00_0001, 0xfc00_0002, 0xfc00_0003, 0xffff_ff01];
        let large = [(64_512, 1, 2), (64_512, 3, 4)];
        let addresses = || (0..count).map(|index| Ipv4Addr::from_bits(0xcb00_7000 + index));
        let attributes = Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence(asns)),
            next_hop: Some(next_hop),
            med: Some(100),
            local_pref: Some(200),
            communities: communities.map(Community).to_vec(),
            large_communities: large.map(|(a, b, c)| LargeCommunity::new(a, b, c)).to_vec(),
            ..Attributes::default()
        };
        let peer_path = peer::AsPath { segments: vec![peer::AsPathSegment::AsSequence(asns.to_vec())] };
        let peer_attributes = vec![
            peer::PathAttribute::Origin(peer::Origin::Igp),
            peer::PathAttribute::AsPath(peer_path),
            peer::PathAttribute::NextHop(next_hop),
            peer::PathAttribute::Med(100),
            peer::PathAttribute::LocalPref(200),
            peer::PathAttribute::Communities(communities.to_vec()),
            peer::PathAttribute::LargeCommunities(
                large.map(|(a, b, c)| peer::LargeCommunity::new(a, b, c)).to_vec(),
            ),
        ];
        let mut case = Self {
            builder: UpdateBuilder::new(&session),
            session,
            attributes,
            prefixes: addresses().map(Nlri::from).collect(),
            peer_attributes,
            peer_prefixes: addresses()
                .map(|address| peer::Ipv4NlriEntry { path_id: 0, prefix: peer::Ipv4Prefix::new(address, 32) })
                .collect(),
            message: Bytes::new(),
        };
        let mut ours = BytesMut::new();
        case.encode(&mut ours)?;
        let mut peers = BytesMut::new();
        case.peer_encode(&mut peers)?;
        ensure!(ours == peers, "the two libraries write different messages");
        case.message = ours.freeze();
        let (sum, prefixes) = case.decode(&case.message).context("we do not read the message")?;
        let (peer_sum, peer_count) =
            case.peer_decode(&case.message).context("rustbgpd-wire does not read the message")?;
        ensure!((sum, prefixes) == (peer_sum, peer_count), "the two libraries read different messages");
        ensure!(prefixes == count as usize, "{prefixes} prefixes instead of {count}");
        Ok(case)
    }

    fn encode(&self, out: &mut BytesMut) -> anyhow::Result<()> {
        let set = self.attributes.encode(&self.session)?;
        let written = self.builder.announce_ipv4(&set, self.prefixes.iter().copied(), out)?;
        ensure!(written == self.prefixes.len(), "the prefixes do not fit one message");
        Ok(())
    }

    fn peer_encode(&self, out: &mut BytesMut) -> anyhow::Result<()> {
        let update = peer::UpdateMessage::try_build(
            &self.peer_prefixes,
            &[],
            &self.peer_attributes,
            true,
            false,
            peer::Ipv4UnicastMode::Body,
        )?;
        update.encode(out)?;
        Ok(())
    }

    /// The sum of the addresses and how many there are.
    fn decode(&self, message: &Bytes) -> Option<(u64, usize)> {
        let Ok(Message::Update(update)) = Message::decode(message, &self.session) else { return None };
        if !update.errors.is_empty() {
            return None;
        }
        let sum = update.announced.iter().map(|nlri| match nlri.prefix {
            Prefix::V4(prefix) => u64::from(prefix.address().to_bits()),
            Prefix::V6(_) => 0,
        });
        let result = (sum.sum(), update.announced.len());
        black_box(update);
        Some(result)
    }

    fn peer_decode(&self, message: &Bytes) -> Option<(u64, usize)> {
        let mut bytes = message.clone();
        let Ok(peer::Message::Update(update)) = peer::decode_message(&mut bytes, 4096) else { return None };
        let parsed = update.parse_revised(true, true, false, &[]).ok()?;
        if !parsed.malformed.is_empty() {
            return None;
        }
        let sum = parsed.update.announced.iter().map(|entry| u64::from(entry.prefix.addr.to_bits()));
        let result = (sum.sum(), parsed.update.announced.len());
        black_box(parsed);
        Some(result)
    }
}
