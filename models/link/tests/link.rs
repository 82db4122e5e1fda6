//! Links over the embedded broker, through a proxy where the connection has to suffer.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::testing::{Direction, FaultProxy, Faults};
use fedtt_link::{BrokerUrl, Delivery, Inbox, Link, LinkConfig, LinkError, Publication, Retry, Will};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn broker() -> EmbeddedBroker {
    EmbeddedBroker::start(BrokerConfig::default()).await.unwrap()
}

fn config(broker: BrokerUrl, id: &str) -> LinkConfig {
    let retry = Retry { min: Duration::from_millis(10), max: Duration::from_millis(100) };
    LinkConfig { retry, ..LinkConfig::new(broker, id) }
}

async fn next(inbox: &mut Inbox) -> Delivery {
    timeout(PATIENCE, inbox.recv()).await.expect("a delivery in time").expect("the link to be alive")
}

async fn connected(inbox: &mut Inbox) -> bool {
    loop {
        if let Delivery::Connected { session_present } = next(inbox).await {
            return session_present;
        }
    }
}

/// The next message; connections may come and go before it.
async fn message(inbox: &mut Inbox) -> (String, Bytes, bool) {
    loop {
        if let Delivery::Message { topic, payload, retain } = next(inbox).await {
            return (topic, payload, retain);
        }
    }
}

async fn disconnected(inbox: &mut Inbox) -> String {
    loop {
        if let Delivery::Disconnected { reason, .. } = next(inbox).await {
            return reason;
        }
    }
}

async fn open(config: LinkConfig) -> (Link, Inbox) {
    let (link, mut inbox) = Link::connect(config).await.unwrap();
    connected(&mut inbox).await;
    (link, inbox)
}

/// A link whose subscription the broker has granted.
async fn listening(config: LinkConfig, filter: &str) -> (Link, Inbox) {
    let (link, inbox) = open(config).await;
    link.subscribe(filter).await.unwrap();
    link.flush().await.unwrap();
    (link, inbox)
}

fn publication(topic: &str, payload: impl Into<Bytes>) -> Publication {
    Publication { topic: topic.into(), payload: payload.into(), retain: false }
}

#[tokio::test]
async fn messages_large_and_small_arrive_as_they_were() {
    let broker = broker().await;
    let (sender, _inbox) = open(config(broker.url(), "sender")).await;
    let (_receiver, mut inbox) = listening(config(broker.url(), "receiver"), "a/+/c").await;
    let large: Vec<u8> = (0..3_000_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    sender.publish(publication("a/b/c", "small")).await.unwrap();
    sender.publish(publication("a/b/d", "not asked for")).await.unwrap();
    sender.publish(publication("a/x/c", large.clone())).await.unwrap();
    assert_eq!(message(&mut inbox).await, ("a/b/c".into(), Bytes::from("small"), false));
    assert_eq!(message(&mut inbox).await, ("a/x/c".into(), Bytes::from(large), false));
    sender.shutdown().await;
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_the_reason() {
    let broker = broker().await;
    let (link, _inbox) = open(LinkConfig { max_packet: 1000, ..config(broker.url(), "link") }).await;
    let error = link.publish(publication("a", vec![0; 1000])).await.unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { bytes: 1008, limit: 1000, .. }), "{error}");
    assert!(matches!(link.publish(publication("a/#", "x")).await.unwrap_err(), LinkError::Topic { .. }));
    assert!(matches!(link.subscribe("a/b+").await.unwrap_err(), LinkError::Topic { .. }));
    let clone = link.clone();
    link.shutdown().await;
    assert!(matches!(clone.publish(publication("a", "x")).await.unwrap_err(), LinkError::Closed));
}

#[tokio::test]
async fn what_is_published_and_subscribed_while_the_broker_is_away_is_made_up_for() {
    let first = broker().await;
    let mut proxy = FaultProxy::start(first.address(), 1).await.unwrap();
    let (link, mut inbox) = listening(config(proxy.url(), "link"), "before").await;
    proxy.stop().await;
    first.shutdown().await.unwrap();
    disconnected(&mut inbox).await;
    link.subscribe("during").await.unwrap();
    for n in 0..50u8 {
        link.publish(publication("before", vec![n])).await.unwrap();
    }
    link.publish(publication("during", "x")).await.unwrap();
    let refused = disconnected(&mut inbox).await;
    assert!(refused.contains("cannot connect to mqtt://127.0.0.1:"), "{refused}");

    let second = broker().await;
    proxy.set_broker(second.address());
    proxy.restart().await.unwrap();
    assert!(!connected(&mut inbox).await, "the second broker knows no session of ours");
    for n in 0..50u8 {
        assert_eq!(message(&mut inbox).await, ("before".into(), vec![n].into(), false));
    }
    assert_eq!(message(&mut inbox).await.0, "during");
}

#[tokio::test]
async fn a_broker_at_the_same_address_is_found_again() {
    let first = broker().await;
    let address = first.address();
    let (_link, mut inbox) = listening(config(first.url(), "link"), "t").await;
    first.shutdown().await.unwrap();
    disconnected(&mut inbox).await;
    let second = EmbeddedBroker::start(BrokerConfig { bind: address, ..BrokerConfig::default() }).await.unwrap();
    connected(&mut inbox).await;
    let (other, _other_inbox) = open(config(second.url(), "other")).await;
    // The subscription may not be made yet: what is retained waits for it.
    other.publish(Publication { topic: "t".into(), payload: "x".into(), retain: true }).await.unwrap();
    assert_eq!(message(&mut inbox).await.1, "x");
}

#[tokio::test]
async fn every_publication_survives_cuts_in_its_order() {
    let broker = broker().await;
    let proxy = FaultProxy::start(broker.address(), 2).await.unwrap();
    let (_receiver, mut inbox) = listening(config(broker.url(), "receiver"), "n").await;
    let (sender, _sender_inbox) = open(config(proxy.url(), "sender")).await;
    let sending = tokio::spawn(async move {
        for n in 0..2000u32 {
            sender.publish(publication("n", [&n.to_le_bytes()[..], &[0; 2000]].concat())).await.unwrap();
        }
        sender.flush().await.unwrap();
        sender
    });
    let mut seen = 0;
    let mut repeated = 0;
    let mut cuts = 0;
    while seen < 2000 {
        let (_, payload, _) = message(&mut inbox).await;
        let n = u32::from_le_bytes(payload[..4].try_into().unwrap());
        match n.cmp(&seen) {
            std::cmp::Ordering::Equal => seen += 1,
            std::cmp::Ordering::Less => repeated += 1,
            std::cmp::Ordering::Greater => panic!("{seen} is missing before {n}"),
        }
        if n % 400 == 150 && n / 400 == cuts {
            proxy.cut();
            cuts += 1;
        }
    }
    assert!(repeated < cuts * 128, "only what was on its way is repeated");
    assert_eq!(cuts, 5);
    let sender = sending.await.unwrap();
    assert!(sender.traffic().messages_sent >= proxy.counts().publications);
    assert!(proxy.counts().publications >= 2000 && proxy.counts().connections == 6);
}

#[tokio::test]
async fn the_will_is_published_for_those_who_vanish_and_not_for_those_who_take_leave() {
    let broker = broker().await;
    let (_watcher, mut inbox) = listening(config(broker.url(), "watcher"), "presence/+").await;
    let will = |id: &str| {
        let (topic, made) = (format!("presence/{id}"), std::sync::atomic::AtomicU32::new(0));
        Some(Will::new(move || {
            // Once to be looked at, then for each connection.
            let payload = format!("gone {}", made.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).into();
            Publication { topic: topic.clone(), payload, retain: true }
        }))
    };
    let (polite, _polite_inbox) = open(LinkConfig { will: will("polite"), ..config(broker.url(), "polite") }).await;
    let (lost, lost_inbox) = open(LinkConfig { will: will("lost"), ..config(broker.url(), "lost") }).await;
    polite.shutdown().await;
    drop((lost, lost_inbox));
    assert_eq!(message(&mut inbox).await, ("presence/lost".into(), "gone 1".into(), false));
    let (_late, mut late_inbox) = listening(config(broker.url(), "late"), "presence/+").await;
    assert_eq!(message(&mut late_inbox).await, ("presence/lost".into(), "gone 1".into(), true));
    assert!(late_inbox.try_recv().is_none() && inbox.try_recv().is_none());
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_given_up_and_one_that_speaks_again_is_used() {
    let broker = broker().await;
    let proxy = FaultProxy::start(broker.address(), 3).await.unwrap();
    let keep_alive = Duration::from_secs(1);
    let settings = LinkConfig { keep_alive, connect_timeout: keep_alive, ..config(proxy.url(), "link") };
    let (link, mut inbox) = listening(settings, "t").await;
    proxy.hold();
    let reason = disconnected(&mut inbox).await;
    assert!(reason.contains("nothing from the broker"), "{reason}");
    let reason = disconnected(&mut inbox).await;
    assert!(reason.contains("does not answer within 1s"), "{reason}");
    proxy.release();
    connected(&mut inbox).await;
    link.publish(publication("t", "x")).await.unwrap();
    assert_eq!(message(&mut inbox).await.1, "x");
}

#[tokio::test]
async fn an_idle_connection_stays() {
    let broker = broker().await;
    let keep_alive = Duration::from_secs(1);
    let (link, mut inbox) = open(LinkConfig { keep_alive, ..config(broker.url(), "link") }).await;
    assert!(timeout(Duration::from_millis(3300), inbox.recv()).await.is_err(), "nothing happens");
    // Beyond the broker's greeting of 4 bytes, answers of 2 to pings.
    let pings = (link.traffic().received - 4) / 2;
    assert!((2..=4).contains(&pings), "{pings} pings");
}

#[tokio::test]
async fn traffic_is_what_the_socket_sees() {
    let broker = broker().await;
    let proxy = FaultProxy::start(broker.address(), 4).await.unwrap();
    let (link, mut inbox) = listening(config(proxy.url(), "link"), "t/#").await;
    for size in [0, 1, 127, 128, 16_383, 16_384, 100_000, 2_000_000] {
        link.publish(publication("t/x", vec![1; size])).await.unwrap();
        assert_eq!(message(&mut inbox).await.1.len(), size);
    }
    link.flush().await.unwrap();
    let before = link.traffic();
    assert_eq!((before.messages_sent, before.messages_received), (8, 8));
    assert!(before.sent > 2_100_000 && before.sent < 2_140_000, "{before:?}");
    link.clone().shutdown().await;
    let traffic = link.traffic();
    assert_eq!(traffic.sent - before.sent, 2, "taking leave is counted");
    timeout(PATIENCE, async {
        while proxy.counts().bytes_up < traffic.sent {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the proxy to read all that was sent");
    assert_eq!((traffic.sent, traffic.received), (proxy.counts().bytes_up, proxy.counts().bytes_down));
}

#[tokio::test]
async fn a_full_inbox_stops_the_socket_and_not_the_sender_of_the_same_link() {
    let broker = broker().await;
    let settings = LinkConfig { incoming_bytes: 200_000, outgoing_bytes: 50_000, ..config(broker.url(), "slow") };
    let (slow, mut inbox) = listening(settings, "in").await;
    let (fast, _fast_inbox) = open(config(broker.url(), "fast")).await;
    for n in 0..200u8 {
        fast.publish(publication("in", [&[n][..], &[0; 100_000]].concat())).await.unwrap();
    }
    fast.flush().await.unwrap();
    let unread = slow.traffic().received;
    assert!(unread < 20_000_000, "{unread} of 20 MB read with room for 0.2 MB");
    slow.publish(publication("out", "small enough to be queued at once")).await.unwrap();
    timeout(PATIENCE, slow.flush()).await.expect("acknowledged behind what is unread").unwrap();
    // A consumer that publishes more than fits between two messages, as an aggregator does.
    for n in 0..200u8 {
        let (_, payload, _) = message(&mut inbox).await;
        assert_eq!(payload[0], n);
        timeout(PATIENCE, slow.publish(publication("out", vec![0; 40_000]))).await.expect("no deadlock").unwrap();
    }
    timeout(PATIENCE, slow.flush()).await.unwrap().unwrap();
}

#[tokio::test]
async fn two_links_that_push_at_each_other_do_not_stall() {
    let broker = broker().await;
    let (a, mut a_inbox) = listening(config(broker.url(), "a"), "to/a").await;
    let (b, mut b_inbox) = listening(config(broker.url(), "b"), "to/b").await;
    let push = |link: Link, topic: &'static str| async move {
        for _ in 0..200 {
            link.publish(publication(topic, vec![5; 96_000])).await.unwrap();
        }
    };
    let pull = async |inbox: &mut Inbox| {
        for _ in 0..200 {
            message(inbox).await;
        }
    };
    let all = async { tokio::join!(push(a, "to/b"), push(b, "to/a"), pull(&mut a_inbox), pull(&mut b_inbox)) };
    timeout(PATIENCE, all).await.expect("38 MB pass in time");
}

#[tokio::test]
async fn a_persistent_session_keeps_messages_for_a_link_that_is_away() {
    let broker = broker().await;
    let settings = LinkConfig { persistent: true, ..config(broker.url(), "device") };
    let (device, _inbox) = listening(settings.clone(), "t").await;
    device.shutdown().await;
    let (other, _other_inbox) = open(config(broker.url(), "other")).await;
    for n in 0..20u8 {
        other.publish(publication("t", vec![n])).await.unwrap();
    }
    other.flush().await.unwrap();
    let (_device, mut inbox) = Link::connect(settings).await.unwrap();
    assert!(connected(&mut inbox).await, "the session is present");
    for n in 0..20u8 {
        assert_eq!(message(&mut inbox).await.1, vec![n]);
    }
}

#[tokio::test]
async fn a_server_that_is_no_broker_is_named_as_such() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BrokerUrl::tcp(server.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            use tokio::io::AsyncWriteExt;
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let (_link, mut inbox) = Link::connect(config(url, "link")).await.unwrap();
    let reason = disconnected(&mut inbox).await;
    assert!(reason.contains("it is no MQTT 3.1.1 broker"), "{reason}");
}

#[tokio::test]
async fn faults_strike_as_often_as_told_and_the_same_for_the_same_seed() {
    let broker = broker().await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let proxy = FaultProxy::start(broker.address(), 5).await.unwrap();
        let (_receiver, mut inbox) = listening(config(broker.url(), "receiver"), "#").await;
        let (sender, _sender_inbox) = open(config(proxy.url(), "sender")).await;
        let longest_delay = Duration::from_millis(20);
        let faults = Faults { drop: 0.1, duplicate: 0.1, corrupt: 0.1, delay: 0.3, longest_delay };
        proxy.set_faults(Direction::Up, faults);
        for n in 0..1000u32 {
            sender.publish(publication(&format!("n/{n}"), vec![0; 20])).await.unwrap();
        }
        timeout(PATIENCE, sender.flush()).await.expect("dropped publications are acknowledged too").unwrap();
        proxy.set_faults(Direction::Up, Faults::default());
        sender.publish(publication("end", "")).await.unwrap();
        let mut topics = Vec::new();
        let mut corrupted = 0;
        loop {
            let (topic, payload, _) = message(&mut inbox).await;
            if topic == "end" {
                break;
            }
            corrupted += u64::from(payload.iter().any(|byte| *byte != 0));
            topics.push(topic);
        }
        let counts = proxy.counts();
        for struck in [counts.dropped, counts.duplicated, counts.corrupted] {
            assert!((60..140).contains(&struck), "{counts:?}");
        }
        assert_eq!(topics.len() as u64, 1000 - counts.dropped + counts.duplicated);
        assert!(corrupted >= counts.corrupted, "{corrupted}: a corrupted copy is corrupted twice");
        assert!(!topics.is_sorted_by_key(|topic| topic[2..].parse::<u32>().unwrap()), "delays change the order");
        topics.sort();
        runs.push((counts.dropped, counts.duplicated, counts.corrupted, counts.delayed, topics));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn latency_is_added_both_ways() {
    let broker = broker().await;
    let proxy = FaultProxy::start(broker.address(), 6).await.unwrap();
    let (link, _inbox) = open(config(proxy.url(), "link")).await;
    proxy.set_latency(Duration::from_millis(40));
    let begun = std::time::Instant::now();
    link.publish(publication("t", "x")).await.unwrap();
    link.flush().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
}
