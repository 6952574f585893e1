//! Calls against a speaker without sockets.

use std::{net::IpAddr, sync::Arc, time::Duration};

use prost_types::Any;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

use super::{Api, any::pack};
use crate::{
    grpc::{
        apipb::{self, gobgp_api_server::GobgpApi, watch_event_request, watch_event_response::Event},
        core::{Access, Core, Embedded, ErrorKind, Table},
    },
    net::{self, SpeakerHandle},
    speaker::{PeerConfig, Route, RouteAttributes, SpeakerConfig},
    wire::Family,
};

const NEIGHBOR: &str = "192.0.2.1";
const FAMILY: Family = Family::IPV4_UNICAST;

struct Bench {
    api: Api,
    speaker: SpeakerHandle,
}

fn bench() -> Bench {
    let config = SpeakerConfig::new(65000, "192.0.2.10".parse().unwrap());
    let (speaker, _) = net::spawn_offline(config).unwrap();
    let core = Core::new(Arc::new(Embedded::new(speaker.clone())));
    Bench { api: Api::new(core, Access::Write), speaker }
}

fn prefix(text: &str) -> Any {
    let (address, length) = text.split_once('/').unwrap();
    pack(&apipb::IpAddressPrefix { prefix_len: length.parse().unwrap(), prefix: address.to_owned() })
}

fn next_hop(text: &str) -> Any {
    pack(&apipb::NextHopAttribute { next_hop: text.to_owned() })
}

fn path(nlri: &str, pattrs: Vec<Any>) -> apipb::Path {
    let afi = if nlri.contains(':') { 2 } else { 1 };
    apipb::Path {
        nlri: Some(prefix(nlri)),
        pattrs,
        family: Some(apipb::Family { afi, safi: 1 }),
        ..apipb::Path::default()
    }
}

impl Bench {
    async fn add(&self, path: apipb::Path) -> Result<Vec<u8>, Status> {
        let request = apipb::AddPathRequest { path: Some(path), ..apipb::AddPathRequest::default() };
        Ok(GobgpApi::add_path(&self.api, Request::new(request)).await?.into_inner().uuid)
    }

    async fn rib(&self, afi: i32, lookups: &[(&str, i32)]) -> Vec<apipb::Destination> {
        let prefixes = lookups
            .iter()
            .map(|(prefix, kind)| apipb::TableLookupPrefix { prefix: (*prefix).to_owned(), r#type: *kind })
            .collect();
        let request = apipb::ListPathRequest {
            family: Some(apipb::Family { afi, safi: 1 }),
            prefixes,
            ..apipb::ListPathRequest::default()
        };
        let stream = GobgpApi::list_path(&self.api, Request::new(request)).await.unwrap().into_inner();
        stream.map(|answer| answer.unwrap().destination.unwrap()).collect().await
    }

    async fn prefixes(&self, afi: i32, lookups: &[(&str, i32)]) -> Vec<String> {
        self.rib(afi, lookups).await.into_iter().map(|destination| destination.prefix).collect()
    }

    async fn peers(&self) -> Vec<apipb::Peer> {
        let stream =
            GobgpApi::list_peer(&self.api, Request::new(apipb::ListPeerRequest::default())).await.unwrap();
        stream.into_inner().map(|answer| answer.unwrap().peer.unwrap()).collect().await
    }

    async fn add_peer(&self, peer: apipb::Peer) -> Result<(), Status> {
        GobgpApi::add_peer(&self.api, Request::new(apipb::AddPeerRequest { peer: Some(peer) }))
            .await
            .map(|_| ())
    }

    async fn delete_peer(&self, address: &str) -> Result<(), Status> {
        let request = apipb::DeletePeerRequest { address: address.to_owned(), interface: String::new() };
        GobgpApi::delete_peer(&self.api, Request::new(request)).await.map(|_| ())
    }
}

fn peer(address: &str, asn: u32) -> apipb::Peer {
    let conf =
        apipb::PeerConf { neighbor_address: address.to_owned(), peer_asn: asn, ..apipb::PeerConf::default() };
    apipb::Peer { conf: Some(conf), ..apipb::Peer::default() }
}

#[tokio::test]
async fn routes_of_clients_are_added_shown_and_deleted_and_others_stay() {
    let bench = bench();
    let own: ipnet::IpNet = "198.51.100.7/32".parse().unwrap();
    bench.speaker.set_routes("services", [Route::new(own)]);
    let attributes = vec![
        pack(&apipb::OriginAttribute { origin: 2 }),
        pack(&apipb::AsPathAttribute {
            segments: vec![apipb::AsSegment { r#type: 2, numbers: vec![65001, 65002] }],
        }),
        next_hop("192.0.2.77"),
        pack(&apipb::MultiExitDiscAttribute { med: 7 }),
        pack(&apipb::LocalPrefAttribute { local_pref: 200 }),
        pack(&apipb::CommunitiesAttribute { communities: vec![0xfde8_0001] }),
        pack(&apipb::ExtendedCommunitiesAttribute {
            communities: vec![pack(&apipb::TwoOctetAsSpecificExtended {
                is_transitive: true,
                sub_type: 2,
                asn: 65000,
                local_admin: 100,
            })],
        }),
        pack(&apipb::LargeCommunitiesAttribute {
            communities: vec![apipb::LargeCommunity { global_admin: 1, local_data1: 2, local_data2: 3 }],
        }),
    ];
    let id = bench.add(path("203.0.113.0/24", attributes.clone())).await.unwrap();
    assert_eq!(id.len(), 16);
    let shown = bench.rib(1, &[("203.0.113.0/24", 0)]).await;
    let [apipb::Destination { prefix, paths }] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((prefix.as_str(), paths.len()), ("203.0.113.0/24", 1));
    assert_eq!((&paths[0].pattrs, &paths[0].uuid, paths[0].identifier), (&attributes, &id, 0));
    assert!(paths[0].best && paths[0].age.is_some());

    // IPv6 has its next hop in MP_REACH_NLRI; the unspecified one is this speaker.
    let reach = |next_hops: &str, nlri: &str| {
        pack(&apipb::MpReachNlriAttribute {
            family: Some(apipb::Family { afi: 2, safi: 1 }),
            next_hops: vec![next_hops.to_owned()],
            nlris: vec![super::tests::prefix(nlri)],
        })
    };
    bench.add(path("2001:db8::/32", vec![reach("::", "2001:db8::/32")])).await.unwrap();
    bench.add(path("2001:db8:1::/48", vec![reach("2001:db8::1", "2001:db8:1::/48")])).await.unwrap();
    let six = bench.rib(2, &[]).await;
    let hops: Vec<String> = six
        .iter()
        .map(|destination| {
            let any =
                destination.paths[0].pattrs.iter().find(|any| any.type_url.ends_with("MpReachNLRIAttribute"));
            let reach: apipb::MpReachNlriAttribute = any.unwrap().to_msg().unwrap();
            format!("{} via {}", destination.prefix, reach.next_hops.join(","))
        })
        .collect();
    assert_eq!(hops, ["2001:db8::/32 via ::", "2001:db8:1::/48 via 2001:db8::1"]);

    // What is looked for.
    bench.add(path("203.0.113.128/25", vec![next_hop("0.0.0.0")])).await.unwrap();
    assert_eq!(bench.prefixes(1, &[]).await, ["198.51.100.7/32", "203.0.113.0/24", "203.0.113.128/25"]);
    assert_eq!(bench.prefixes(1, &[("203.0.113.200", 0)]).await, ["203.0.113.128/25"]);
    assert_eq!(bench.prefixes(1, &[("203.0.113.0/24", 1)]).await, ["203.0.113.0/24", "203.0.113.128/25"]);
    assert_eq!(bench.prefixes(1, &[("203.0.113.129/32", 2)]).await, ["203.0.113.0/24", "203.0.113.128/25"]);
    assert_eq!(bench.prefixes(1, &[("203.0.113.0/25", 0)]).await, Vec::<String>::new());
    assert_eq!(bench.prefixes(2, &[("203.0.113.0/24", 0)]).await, Vec::<String>::new());
    let table = apipb::GetTableRequest::default();
    let table = GobgpApi::get_table(&bench.api, Request::new(table)).await.unwrap().into_inner();
    assert_eq!((table.num_destination, table.num_path), (3, 3));

    // Deleted by name, by prefix, by family; never what is not the clients'.
    let delete = async |request: apipb::DeletePathRequest| {
        GobgpApi::delete_path(&bench.api, Request::new(request)).await
    };
    delete(apipb::DeletePathRequest { uuid: id.clone(), ..Default::default() }).await.unwrap();
    let again = delete(apipb::DeletePathRequest { uuid: id, ..Default::default() }).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let by_prefix =
        |text: &str| apipb::DeletePathRequest { path: Some(path(text, vec![])), ..Default::default() };
    delete(by_prefix("203.0.113.128/25")).await.unwrap();
    assert_eq!(delete(by_prefix("198.51.100.7/32")).await.unwrap_err().code(), Code::NotFound);
    let six =
        apipb::DeletePathRequest { family: Some(apipb::Family { afi: 2, safi: 1 }), ..Default::default() };
    delete(six).await.unwrap();
    assert_eq!(bench.prefixes(2, &[]).await, Vec::<String>::new());
    delete(apipb::DeletePathRequest::default()).await.unwrap();
    assert_eq!(bench.prefixes(1, &[]).await, ["198.51.100.7/32"]);
}

#[tokio::test]
async fn a_clients_route_is_beside_the_embedders_of_the_same_prefix_and_is_not_better() {
    let bench = bench();
    let own: ipnet::IpNet = "198.51.100.7/32".parse().unwrap();
    let med = Arc::new(RouteAttributes { med: Some(1), ..RouteAttributes::default() });
    bench.speaker.set_routes("services", [Route { attributes: med, ..Route::new(own) }]);
    bench.add(path("198.51.100.7/32", vec![next_hop("0.0.0.0")])).await.unwrap();
    let shown = bench.rib(1, &[]).await;
    let uuids: Vec<bool> = shown[0].paths.iter().map(|path| path.uuid.is_empty()).collect();
    assert_eq!((shown.len(), uuids), (1, vec![true, false]), "the embedder's comes first");
    bench.speaker.set_routes("services", []);
    assert_eq!(bench.rib(1, &[]).await[0].paths.len(), 1, "the client's stays");
}

#[tokio::test]
async fn hostile_routes_are_refused() {
    let bench = bench();
    let raw = |name: &str, value: &[u8]| Any {
        type_url: format!("type.googleapis.com/apipb.{name}"),
        value: value.to_vec(),
    };
    let plain = |nlri: Any| apipb::Path { nlri: Some(nlri), ..apipb::Path::default() };
    let with = |any: Any| path("203.0.113.0/24", vec![any]);
    let extended = |any: Any| with(pack(&apipb::ExtendedCommunitiesAttribute { communities: vec![any] }));
    let segment = |kind, numbers| {
        with(pack(&apipb::AsPathAttribute { segments: vec![apipb::AsSegment { r#type: kind, numbers }] }))
    };
    for (what, path, code) in [
        ("no nlri", apipb::Path::default(), Code::InvalidArgument),
        ("garbage", plain(raw("IPAddressPrefix", &[0xff; 9])), Code::InvalidArgument),
        ("no type", plain(Any::default()), Code::Unimplemented),
        ("another nlri", plain(raw("EVPNIPPrefixRoute", &[])), Code::Unimplemented),
        ("no address", plain(pack(&apipb::IpAddressPrefix::default())), Code::InvalidArgument),
        ("too long", plain(prefix("203.0.113.0/33")), Code::InvalidArgument),
        ("far too long", plain(prefix("2001:db8::/4294967295")), Code::InvalidArgument),
        (
            "another family",
            apipb::Path { family: Some(apipb::Family { afi: 2, safi: 1 }), ..plain(prefix("10.0.0.0/8")) },
            Code::InvalidArgument,
        ),
        (
            "a family of others",
            apipb::Path { family: Some(apipb::Family { afi: 25, safi: 70 }), ..plain(prefix("10.0.0.0/8")) },
            Code::Unimplemented,
        ),
        (
            "binary",
            apipb::Path { nlri_binary: vec![8, 10], ..path("10.0.0.0/8", vec![]) },
            Code::Unimplemented,
        ),
        (
            "identifier",
            apipb::Path { identifier: 1 << 31, ..path("10.0.0.0/8", vec![]) },
            Code::InvalidArgument,
        ),
        ("origin", with(pack(&apipb::OriginAttribute { origin: 3 })), Code::InvalidArgument),
        ("no next hop", with(next_hop("router")), Code::InvalidArgument),
        ("multicast", with(next_hop("224.0.0.1")), Code::InvalidArgument),
        ("next hop of IPv6", path("2001:db8::/32", vec![next_hop("192.0.2.1")]), Code::InvalidArgument),
        ("AS 0", segment(2, vec![0]), Code::InvalidArgument),
        ("an empty segment", segment(2, vec![]), Code::InvalidArgument),
        ("a confederation", segment(3, vec![1]), Code::InvalidArgument),
        ("a long path", segment(2, vec![1; 5000]), Code::InvalidArgument),
        (
            "communities",
            with(pack(&apipb::CommunitiesAttribute { communities: vec![1; 5000] })),
            Code::InvalidArgument,
        ),
        ("twice", path("10.0.0.0/8", vec![next_hop("0.0.0.0"); 2]), Code::InvalidArgument),
        ("unknown", with(raw("AigpAttribute", &[])), Code::Unimplemented),
        ("garbage attribute", with(raw("CommunitiesAttribute", &[0x0a, 0xff])), Code::InvalidArgument),
        ("short community", extended(raw("UnknownExtended", &[])), Code::InvalidArgument),
        (
            "wide AS",
            extended(pack(&apipb::TwoOctetAsSpecificExtended { asn: 70_000, ..Default::default() })),
            Code::InvalidArgument,
        ),
        (
            "another prefix in MP_REACH_NLRI",
            with(pack(&apipb::MpReachNlriAttribute {
                nlris: vec![prefix("10.0.0.0/8")],
                ..Default::default()
            })),
            Code::InvalidArgument,
        ),
    ] {
        let error = bench.add(path).await.expect_err(what);
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(!error.message().is_empty() && error.message().len() < 400, "{what}: {error}");
    }
    assert_eq!(bench.prefixes(1, &[]).await, Vec::<String>::new(), "nothing was added");
    for request in [
        apipb::ListPathRequest { table_type: 9, ..Default::default() },
        apipb::ListPathRequest { table_type: 2, name: "x".into(), ..Default::default() },
        apipb::ListPathRequest {
            prefixes: vec![apipb::TableLookupPrefix { prefix: "x".into(), r#type: 1 }],
            ..Default::default()
        },
    ] {
        let error = GobgpApi::list_path(&bench.api, Request::new(request)).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn neighbors_of_clients_are_beside_those_of_the_embedder() {
    let bench = bench();
    let address: IpAddr = NEIGHBOR.parse().unwrap();
    bench.speaker.set_peers(vec![PeerConfig::new("router", address, 65001)]).unwrap();
    let mut new = peer("192.0.2.2", 65002);
    new.ebgp_multihop = Some(apipb::EbgpMultihop { enabled: true, multihop_ttl: 0 });
    if let Some(conf) = &mut new.conf {
        conf.auth_password = "secret".to_owned();
        conf.description = "a second one".to_owned();
    }
    bench.add_peer(new).await.unwrap();
    let peers = bench.peers().await;
    let shown: Vec<(String, u32, String)> = peers
        .iter()
        .map(|peer| {
            let conf = peer.conf.clone().unwrap();
            (conf.neighbor_address, conf.peer_asn, conf.description)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("192.0.2.2".to_owned(), 65002, "a second one".to_owned()),
            (NEIGHBOR.to_owned(), 65001, "peer router of this program".to_owned()),
        ]
    );
    assert!(!format!("{peers:?}").contains("secret"), "a password is never shown");
    let added = &peers[0];
    assert_eq!(added.ebgp_multihop.unwrap().multihop_ttl, 255);
    let state = added.state.as_ref().unwrap();
    assert!(!state.local_cap.is_empty() && state.messages.is_some() && state.queues.is_some());
    assert_eq!(added.afi_safis.len(), 1, "the family of its address, as in GoBGP");

    // An update takes what was shown.
    let mut changed = added.clone();
    changed.conf.as_mut().unwrap().peer_asn = 65003;
    let update = apipb::UpdatePeerRequest { peer: Some(changed), do_soft_reset_in: false };
    GobgpApi::update_peer(&bench.api, Request::new(update)).await.unwrap();
    assert_eq!(bench.peers().await[0].conf.as_ref().unwrap().peer_asn, 65003);

    // Whose is it?
    for (error, code, word) in [
        (bench.add_peer(peer(NEIGHBOR, 1)).await, Code::AlreadyExists, "peer router"),
        (bench.add_peer(peer("192.0.2.2", 1)).await, Code::AlreadyExists, "update it"),
        (bench.delete_peer(NEIGHBOR).await, Code::FailedPrecondition, "peer router"),
        (bench.delete_peer("192.0.2.9").await, Code::NotFound, "192.0.2.9"),
        (bench.delete_peer("").await, Code::InvalidArgument, "no IPv4"),
        (bench.add_peer(peer("0.0.0.0", 1)).await, Code::InvalidArgument, "0.0.0.0"),
        (bench.add_peer(apipb::Peer::default()).await, Code::InvalidArgument, "neighbour"),
    ] {
        let error = error.unwrap_err();
        assert!(error.code() == code && error.message().contains(word), "{error}");
    }
    let mut reflector = peer("192.0.2.3", 65003);
    reflector.route_reflector =
        Some(apipb::RouteReflector { route_reflector_client: true, ..Default::default() });
    assert_eq!(bench.add_peer(reflector).await.unwrap_err().code(), Code::Unimplemented);

    // Down and up again, whosever it is; and the sets stay apart.
    let down = apipb::DisablePeerRequest { address: NEIGHBOR.to_owned(), communication: "tea".to_owned() };
    GobgpApi::disable_peer(&bench.api, Request::new(down)).await.unwrap();
    let admin = async || bench.peers().await[1].state.as_ref().unwrap().admin_state;
    assert_eq!(admin().await, 1);
    let up = apipb::EnablePeerRequest { address: NEIGHBOR.to_owned() };
    GobgpApi::enable_peer(&bench.api, Request::new(up)).await.unwrap();
    assert_eq!(admin().await, 0);
    bench.speaker.set_peers(Vec::new()).unwrap();
    assert_eq!(bench.peers().await.len(), 1, "the embedder's set is not the clients'");
    bench.delete_peer("192.0.2.2").await.unwrap();
    assert!(bench.peers().await.is_empty());
}

#[tokio::test]
async fn limits_that_differ_by_family_are_refused() {
    let bench = bench();
    let limited = |limits: [u32; 2]| {
        let afi_safis = (1..).zip(limits).map(|(afi, max_prefixes)| apipb::AfiSafi {
            config: Some(apipb::AfiSafiConfig {
                family: Some(apipb::Family { afi, safi: 1 }),
                enabled: true,
            }),
            prefix_limits: Some(apipb::PrefixLimit { max_prefixes, ..Default::default() }),
            ..Default::default()
        });
        apipb::Peer { afi_safis: afi_safis.collect(), ..peer("192.0.2.2", 65002) }
    };
    for limits in [[10, 20], [20, 10]] {
        let error = bench.add_peer(limited(limits)).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains("the same"), "{error}");
        assert!(bench.peers().await.is_empty());
    }
    // One for both, and one for one of them, which is for both.
    for (limits, limit) in [([10, 10], 10), ([0, 20], 20), ([0, 0], 1_500_000)] {
        bench.add_peer(limited(limits)).await.unwrap();
        let families = bench.peers().await[0].afi_safis.clone();
        let shown = families.iter().map(|family| family.prefix_limits.unwrap().max_prefixes);
        assert!(shown.eq([limit; 2]), "{limits:?}: {families:?}");
        bench.delete_peer("192.0.2.2").await.unwrap();
    }
}

/// The rule of BgpPeers: only together with BFD.
#[tokio::test]
async fn the_n_bit_of_graceful_restart_is_refused_without_bfd() {
    let bench = bench();
    let restart = |notification_enabled| apipb::GracefulRestart {
        enabled: true,
        notification_enabled,
        ..Default::default()
    };
    let with = |notification| apipb::Peer {
        graceful_restart: Some(restart(notification)),
        ..peer("192.0.2.2", 65002)
    };
    let error = bench.add_peer(with(true)).await.unwrap_err();
    assert!(error.code() == Code::Unimplemented && error.message().contains("BFD"), "{error}");
    assert!(bench.peers().await.is_empty());
    bench.add_peer(with(false)).await.unwrap();
    let shown = bench.peers().await.remove(0);
    assert!(shown.graceful_restart.as_ref().unwrap().enabled);
    let update = |notification| apipb::UpdatePeerRequest {
        peer: Some(apipb::Peer { graceful_restart: Some(restart(notification)), ..shown.clone() }),
        do_soft_reset_in: false,
    };
    let error = GobgpApi::update_peer(&bench.api, Request::new(update(true))).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    GobgpApi::update_peer(&bench.api, Request::new(update(false))).await.unwrap();
    let offered = bench.speaker.query(|speaker| speaker.peer_details()).await.unwrap();
    assert!(!offered[0].config.graceful_restart.unwrap().notification);
}

#[tokio::test]
async fn a_reader_may_change_nothing_and_is_told_how_to() {
    let bench = bench();
    let api = Api { access: Access::Read { remedy: "give --write".to_owned() }, ..bench.api.clone() };
    macro_rules! denied {
        ($($call:ident $request:ident),* $(,)?) => { $(
            let error = GobgpApi::$call(&api, Request::new(apipb::$request::default())).await.err().unwrap();
            assert_eq!(error.code(), Code::PermissionDenied, "{}: {error}", stringify!($call));
            assert!(error.message().contains("give --write"), "{error}");
        )* };
    }
    denied![
        start_bgp StartBgpRequest, stop_bgp StopBgpRequest, add_peer AddPeerRequest,
        delete_peer DeletePeerRequest, update_peer UpdatePeerRequest, reset_peer ResetPeerRequest,
        shutdown_peer ShutdownPeerRequest, enable_peer EnablePeerRequest, disable_peer DisablePeerRequest,
        add_peer_group AddPeerGroupRequest, delete_peer_group DeletePeerGroupRequest,
        update_peer_group UpdatePeerGroupRequest, add_dynamic_neighbor AddDynamicNeighborRequest,
        delete_dynamic_neighbor DeleteDynamicNeighborRequest, add_path AddPathRequest,
        delete_path DeletePathRequest, add_vrf AddVrfRequest, delete_vrf DeleteVrfRequest,
        add_policy AddPolicyRequest, delete_policy DeletePolicyRequest, set_policies SetPoliciesRequest,
        add_defined_set AddDefinedSetRequest, delete_defined_set DeleteDefinedSetRequest,
        add_statement AddStatementRequest, delete_statement DeleteStatementRequest,
        add_policy_assignment AddPolicyAssignmentRequest,
        delete_policy_assignment DeletePolicyAssignmentRequest,
        set_policy_assignment SetPolicyAssignmentRequest, add_rpki AddRpkiRequest,
        delete_rpki DeleteRpkiRequest, enable_rpki EnableRpkiRequest, disable_rpki DisableRpkiRequest,
        reset_rpki ResetRpkiRequest, enable_zebra EnableZebraRequest, enable_mrt EnableMrtRequest,
        disable_mrt DisableMrtRequest, add_bmp AddBmpRequest, delete_bmp DeleteBmpRequest,
        set_log_level SetLogLevelRequest,
    ];
    // Looking is free.
    let global =
        GobgpApi::get_bgp(&api, Request::new(apipb::GetBgpRequest {})).await.unwrap().into_inner().global;
    assert_eq!(global.map(|global| (global.asn, global.router_id)), Some((65000, "192.0.2.10".to_owned())));
}

#[tokio::test]
async fn what_is_not_there_is_an_empty_list_or_says_why() {
    let bench = bench();
    macro_rules! empty {
        ($($call:ident $request:ident),* $(,)?) => { $(
            let stream = GobgpApi::$call(&bench.api, Request::new(apipb::$request::default())).await.unwrap();
            let all: Vec<_> = stream.into_inner().collect().await;
            assert!(all.is_empty(), "{}: {all:?}", stringify!($call));
        )* };
    }
    empty![
        list_peer ListPeerRequest, list_peer_group ListPeerGroupRequest,
        list_dynamic_neighbor ListDynamicNeighborRequest, list_path ListPathRequest, list_vrf ListVrfRequest,
        list_policy ListPolicyRequest, list_defined_set ListDefinedSetRequest,
        list_statement ListStatementRequest, list_rpki ListRpkiRequest,
        list_rpki_table ListRpkiTableRequest, list_bmp ListBmpRequest,
    ];
    let error = GobgpApi::add_policy(&bench.api, Request::new(apipb::AddPolicyRequest {})).await.unwrap_err();
    assert!(error.code() == Code::Unimplemented && error.message().contains("no policies"), "{error}");
    let error = GobgpApi::stop_bgp(&bench.api, Request::new(apipb::StopBgpRequest {})).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("program"), "{error}");
}

#[tokio::test]
async fn a_watcher_hears_of_best_routes_and_one_that_does_not_read_is_dropped() {
    let bench = bench();
    let watch = async |init: bool| {
        let filter = watch_event_request::table::Filter { r#type: 0, init };
        let table = Some(watch_event_request::Table { filters: vec![filter] });
        let request = apipb::WatchEventRequest { peer: None, table };
        GobgpApi::watch_event(&bench.api, Request::new(request)).await.unwrap().into_inner()
    };
    bench.add(path("203.0.113.0/24", vec![])).await.unwrap();
    let mut events = watch(true).await;
    let mut next = async || {
        let event = timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap().event;
        let Some(Event::Table(table)) = event else { panic!("{event:?}") };
        let path = &table.paths[0];
        let nlri: apipb::IpAddressPrefix = path.nlri.as_ref().unwrap().to_msg().unwrap();
        (nlri.prefix, path.is_withdraw)
    };
    assert_eq!(next().await, ("203.0.113.0".to_owned(), false), "what is there already");
    bench.add(path("10.0.0.0/8", vec![])).await.unwrap();
    assert_eq!(next().await, ("10.0.0.0".to_owned(), false));
    let delete = apipb::DeletePathRequest { path: Some(path("10.0.0.0/8", vec![])), ..Default::default() };
    GobgpApi::delete_path(&bench.api, Request::new(delete)).await.unwrap();
    assert_eq!(next().await, ("10.0.0.0".to_owned(), true));

    // More at once than a watcher may be behind. The one that reads keeps up, the other is left behind after a second.
    const MANY: u32 = 20_000;
    let mut slow = watch(false).await;
    let routes = (0..MANY).map(|index| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + index);
        Route::new(ipnet::Ipv4Net::new(address, 32).unwrap())
    });
    bench.speaker.set_routes("many", routes);
    for _ in 0..MANY {
        next().await;
    }
    let error = loop {
        if let Err(error) = slow.next().await.unwrap() {
            break error;
        }
    };
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("too slow"), "{error}");
    assert!(slow.next().await.is_none());
}

/// A watcher with what is there already; `kind`: 0 are best routes, 1 received ones.
async fn watch_all(api: &Api, kind: i32) -> impl tokio_stream::Stream<Item = Result<Event, Status>> + use<> {
    let filter = watch_event_request::table::Filter { r#type: kind, init: true };
    let table = Some(watch_event_request::Table { filters: vec![filter] });
    let request = apipb::WatchEventRequest { peer: None, table };
    let events = GobgpApi::watch_event(api, Request::new(request)).await.unwrap().into_inner();
    events.map(|event| Ok(event?.event.unwrap()))
}

#[tokio::test]
async fn watchers_that_do_not_read_hold_no_more_tables_than_may_be_listed() {
    let bench = bench();
    // More than waits for one client.
    let routes = (0..6_000u32).map(|index| {
        Route::new(ipnet::Ipv4Net::new(std::net::Ipv4Addr::from(0x0a00_0000 + index), 32).unwrap())
    });
    bench.speaker.set_routes("many", routes);
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(Box::pin(watch_all(&bench.api, 0).await));
    }
    let listed = async || bench.api.core.list(Table::AdjOut(NEIGHBOR.parse().unwrap()), FAMILY, &[]).await;
    let refused = async || {
        while listed().await.unwrap_err().kind != ErrorKind::ResourceExhausted {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), refused()).await.expect("each holds one");
    let ninth = timeout(Duration::from_secs(10), Box::pin(watch_all(&bench.api, 0).await).next()).await;
    let error = ninth.unwrap().unwrap().unwrap_err();
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("8 tables"), "{error}");

    // One that has read what is there holds none.
    let mut paths = 0;
    while paths < 6_000 {
        let event = timeout(Duration::from_secs(10), watchers[0].next()).await.unwrap().unwrap().unwrap();
        let Event::Table(table) = event else { panic!("{event:?}") };
        paths += table.paths.len();
    }
    let free = async || {
        while listed().await.unwrap_err().kind == ErrorKind::ResourceExhausted {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), free()).await.expect("its place is free");
}

#[tokio::test]
async fn a_watcher_that_cannot_be_told_what_neighbours_have_sent_is_ended_and_hears_why() {
    let bench = bench();
    let address: IpAddr = NEIGHBOR.parse().unwrap();
    bench.speaker.set_peers(vec![PeerConfig::new("router", address, 65001)]).unwrap();
    assert_eq!(bench.peers().await.len(), 1);
    let mut snapshots = bench.speaker.watch_peers();
    drop(snapshots.wait_for(|known| !known.peers.is_empty()).await.unwrap());
    let mut held = Vec::new();
    while let Ok(listed) = bench.api.core.list(Table::Local, FAMILY, &[]).await {
        held.push(listed);
    }
    assert_eq!(held.len(), 8);
    let mut events = Box::pin(watch_all(&bench.api, 1).await);
    let error = timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.code() == Code::ResourceExhausted && error.message().contains("8 tables"), "{error}");
    assert!(events.next().await.is_none());
}
