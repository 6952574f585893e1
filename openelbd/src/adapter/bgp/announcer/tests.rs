//! The task and the speakers that it starts.

use openelb_bgp::{
    grpc::core::{NewRoute, path_id},
    speaker::Event,
    wire::Community,
};
use serde_json::{Value, json};

use super::{
    super::tests::{announced::world, peer, spec},
    *,
};

fn waited(conf: &Value, peers: &[Value]) -> Duration {
    let peers: Vec<Value> = peers
        .iter()
        .enumerate()
        .map(|(index, more)| {
            let mut all = more.clone();
            all["conf"] = json!({"neighborAddress": format!("192.0.2.{}", index + 1)});
            peer(&format!("tor-{index}"), spec(&all))
        })
        .collect();
    let desired = world(json!({"as": 65000, "gracefulRestart": conf}), peers, "a");
    patience(desired.bgp.as_ref().unwrap())
}

#[test]
fn what_was_known_before_waits_for_the_neighbour_that_waits_longest() {
    let time = |seconds: u32| json!({"gracefulRestart": {"restartTime": seconds}});
    let off = || json!({"gracefulRestart": {"enabled": false, "restartTime": 4000}});
    let cases = [
        // What the BgpConf says, the BgpPeers, and for how long it is waited.
        (json!({}), vec![], 50),
        (json!({}), vec![json!({})], 50),
        (json!({"restartTime": 100}), vec![json!({})], 90),
        (json!({}), vec![time(12)], 6),
        (json!({}), vec![time(20)], 10),
        (json!({}), vec![time(21)], 11),
        // The shorter one does not cut the longer one off, in whatever order; one without graceful restart is none.
        (json!({}), vec![time(12), time(300)], 290),
        (json!({}), vec![time(300), time(12)], 290),
        (json!({}), vec![time(30), off()], 20),
        (json!({}), vec![off()], 50),
    ];
    for (conf, peers, seconds) in cases {
        assert_eq!(waited(&conf, &peers), Duration::from_secs(seconds), "{conf} {peers:?}");
    }
}

fn passive() -> Value {
    peer("tor", spec(&json!({"transport": {"passiveMode": true}})))
}

/// Time stands still but where nothing is left to do.
#[tokio::test(start_paused = true)]
async fn a_speaker_that_ended_by_a_bug_is_started_again_after_a_pause_that_grows() {
    let (announcer, shown, _) =
        BgpAnnouncer::spawn_with(net::spawn_offline, &ApiOptions::default(), 1, Start::default());
    announcer.set_desired(world(json!({"as": 65000}), [passive()], "a"));
    let mut speaker = shown.speaker.subscribe();
    let mut status = announcer.status();
    // Each pause ends so long after the real time, which has all but stood still since then.
    let began = tokio::time::Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let running = speaker.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(running.query(|speaker| speaker.peers().peers.contains_key(&"tor".into())).await.unwrap());
        // As after a bug: its task has ended, and nobody has asked for that.
        running.shutdown(Shutdown::Quiet);
        drop(speaker.wait_for(Option::is_none).await.unwrap());
        let told = |status: &Arc<AnnouncerStatus>| {
            status.problems.iter().any(|problem| problem.reason == "SpeakerEnded")
        };
        drop(status.wait_for(told).await.unwrap());
        // What is wanted meanwhile starts none.
        announcer.set_desired(world(json!({"as": 65001}), [passive()], "a"));
        drop(speaker.wait_for(Option::is_some).await.unwrap());
        pauses.push(began.elapsed());
        drop(status.wait_for(|status| !told(status)).await.unwrap());
    }
    assert!(pauses[0] >= Duration::from_millis(700), "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0].mul_f64(1.3)), "{pauses:?}");
    announcer.stop(OnStop::Restart, Duration::from_secs(1)).await;
}

/// Time stands still but where nothing is left to do.
#[tokio::test(start_paused = true)]
async fn routes_of_clients_are_told_to_be_about_to_go_before_they_go() {
    let (announcer, shown, clients) =
        BgpAnnouncer::spawn_with(net::spawn_offline, &ApiOptions::default(), 1, Start::default());
    announcer.set_desired(world(json!({"as": 65000}), [passive()], "a"));
    let mut speaker = shown.speaker.subscribe();
    let running = speaker.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let of_client: IpNet = "198.51.100.1/32".parse().unwrap();
    let attributes = Arc::new(RouteAttributes { communities: vec![7], ..RouteAttributes::default() });
    let route = Route { path_id: path_id(0).unwrap(), attributes, ..Route::new(of_client) };
    clients.add_route(NewRoute { route: route.clone() }).unwrap();
    let mut events = running.subscribe(true, false).unwrap();
    assert!(running.query(move |speaker| speaker.rib_entry(of_client)).await.unwrap().is_some());
    announcer.stop(OnStop::Withdraw, Duration::from_secs(10)).await;
    assert!(clients.add_route(NewRoute { route }).is_err(), "it would be told to nobody");
    let mut told = Vec::new();
    while let Ok(event) = events.recv().await {
        if let Event::BestPath { prefix, path } = event
            && prefix == of_client
        {
            told.push(path.map(|path| path.attributes.attributes.communities.clone()));
        }
    }
    assert_eq!(told, [Some(vec![Community(7), Community(GRACEFUL_SHUTDOWN)]), None]);
}
