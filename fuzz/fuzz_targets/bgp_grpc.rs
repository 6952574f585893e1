//! Requests of the gRPC interface, from bytes to a speaker without sockets: no panic, no hang, and every error says
//! something.
//!
//! An input is requests one after the other, each of three parts: an octet that says which call, one that says how many
//! octets follow (times four), and those octets: the message as it is on the wire.
#![no_main]

use std::{sync::Arc, time::Duration};

use libfuzzer_sys::fuzz_target;
use openelb_bgp::{
    grpc::{
        apipb::{self, gobgp_api_server::GobgpApi},
        core::{Access, Core, Embedded},
        v3::Api,
    },
    net,
    speaker::{PeerConfig, Route, SpeakerConfig},
};
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// A request that cannot be decoded never comes to the service.
fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<Request<M>> {
    M::decode(bytes).ok().map(Request::new)
}

fn judge<T>(outcome: Result<T, Status>) {
    if let Err(status) = outcome {
        assert!(!status.message().is_empty(), "an error without a word: {status:?}");
    }
}

/// Reads a stream of answers, and encodes them, as a server would.
async fn read<M: Message, S: Stream<Item = Result<M, Status>> + Unpin>(outcome: Result<Response<S>, Status>) {
    match outcome {
        Ok(stream) => {
            let mut stream = stream.into_inner();
            while let Some(answer) = stream.next().await {
                judge(answer.map(|answer| answer.encode_to_vec()));
            }
        }
        Err(status) => judge::<()>(Err(status)),
    }
}

async fn call(api: &Api, kind: u8, bytes: &[u8]) {
    macro_rules! unary {
        ($call:ident, $request:ident) => {
            if let Some(request) = decoded::<apipb::$request>(bytes) {
                judge(api.$call(request).await);
            }
        };
    }
    macro_rules! list {
        ($call:ident, $request:ident) => {
            if let Some(request) = decoded::<apipb::$request>(bytes) {
                read(api.$call(request).await).await;
            }
        };
    }
    match kind % 16 {
        0 => unary!(add_path, AddPathRequest),
        1 => unary!(delete_path, DeletePathRequest),
        2 => list!(list_path, ListPathRequest),
        3 => unary!(add_peer, AddPeerRequest),
        4 => unary!(update_peer, UpdatePeerRequest),
        5 => unary!(delete_peer, DeletePeerRequest),
        6 => list!(list_peer, ListPeerRequest),
        7 => unary!(reset_peer, ResetPeerRequest),
        8 => unary!(disable_peer, DisablePeerRequest),
        9 => unary!(enable_peer, EnablePeerRequest),
        10 => unary!(shutdown_peer, ShutdownPeerRequest),
        11 => unary!(get_table, GetTableRequest),
        12 => unary!(start_bgp, StartBgpRequest),
        13 => list!(list_policy_assignment, ListPolicyAssignmentRequest),
        14 => {
            // A watcher goes on for ever: what is there already is enough.
            if let Some(request) = decoded::<apipb::WatchEventRequest>(bytes) {
                judge(api.watch_event(request).await.map(drop));
            }
        }
        _ => {
            if let Ok(request) = apipb::AddPathStreamRequest::decode(bytes) {
                judge(api.change_paths(&request).map_err(|error| Status::unknown(error.to_string())));
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let own = "192.0.2.10".parse().expect("an address");
        let (speaker, task) = net::spawn_offline(SpeakerConfig::new(65000, own)).expect("a speaker");
        let neighbor = "192.0.2.1".parse().expect("an address");
        speaker.set_peers(vec![PeerConfig::new("router", neighbor, 65001)]).expect("a valid neighbour");
        let prefix: std::net::Ipv4Addr = "198.51.100.7".parse().expect("an address");
        let route = Route::new(std::net::IpAddr::from(prefix));
        speaker.set_routes("services", [route]);
        let api = Api::new(Core::new(Arc::new(Embedded::new(speaker.clone()))), Access::Write);
        let mut rest = input;
        while let Some((&[kind, length], tail)) = rest.split_first_chunk::<2>() {
            let (bytes, tail) = tail.split_at(tail.len().min(usize::from(length) * 4));
            let done = tokio::time::timeout(Duration::from_secs(5), call(&api, kind, bytes)).await;
            done.expect("every call but watching ends");
            rest = tail;
        }
        // What the embedder said is as it was.
        let owned = speaker.rib(openelb_bgp::wire::Family::IPV4_UNICAST).await;
        assert!(owned.iter().any(|entry| entry.prefix.addr() == std::net::IpAddr::from(prefix)));
        task.abort();
    });
});
