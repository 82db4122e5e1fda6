//! Links over TLS: the embedded broker behind a TLS front that asks for a client's certificate. The certificates in
//! `tests/tls/` are valid for a hundred years and for nothing but these tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedtt_link::broker::{BrokerConfig, EmbeddedBroker};
use fedtt_link::testing::FaultProxy;
use fedtt_link::{Delivery, Inbox, Link, LinkConfig, LinkError, Publication, TlsFiles};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Ends TLS before `broker`.
async fn front(broker: SocketAddr) -> SocketAddr {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("broker.pem")).unwrap()];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(file("broker.key")).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inner) = acceptor.accept(socket).await else { return };
                let mut plain = TcpStream::connect(broker).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut plain).await;
            });
        }
    });
    address
}

fn config(address: SocketAddr, tls: Option<TlsFiles>) -> LinkConfig {
    let broker = format!("mqtts://localhost:{}", address.port()).parse().unwrap();
    LinkConfig { tls, ..LinkConfig::new(broker, "device") }
}

fn files() -> TlsFiles {
    TlsFiles { ca: Some(file("ca.pem")), cert: Some(file("device.pem")), key: Some(file("device.key")) }
}

async fn first(inbox: &mut Inbox) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn messages_pass_and_bytes_are_counted_as_encrypted() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let proxy = FaultProxy::start(front(broker.address()).await, 1).await.unwrap();
    let (link, mut inbox) = Link::connect(config(proxy.address(), Some(files()))).await.unwrap();
    assert_eq!(first(&mut inbox).await, Delivery::Connected { session_present: false });
    link.subscribe("t").await.unwrap();
    let publication = Publication { topic: "t".into(), payload: vec![3; 500_000].into(), retain: false };
    link.publish(publication.clone()).await.unwrap();
    let message = Delivery::Message { topic: "t".into(), payload: publication.payload, retain: false };
    assert_eq!(first(&mut inbox).await, message);
    link.clone().shutdown().await;
    let traffic = link.traffic();
    let all_read = async {
        while proxy.counts().bytes_up < traffic.sent {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_read).await.expect("the proxy to read all that was sent");
    assert_eq!(traffic.sent, proxy.counts().bytes_up);
    assert!(traffic.sent > 501_000 && traffic.received > 501_000, "{traffic:?}");
}

#[tokio::test]
async fn a_stranger_is_not_trusted_and_a_missing_certificate_is_noticed() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let address = front(broker.address()).await;
    for tls in [TlsFiles { ca: Some(file("device.pem")), ..files() }, TlsFiles { cert: None, key: None, ..files() }] {
        let (_link, mut inbox) = Link::connect(config(address, Some(tls))).await.unwrap();
        let Delivery::Disconnected { reason, .. } = first(&mut inbox).await else { panic!("connected") };
        assert!(reason.contains("mqtts://localhost:"), "{reason}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let missing = TlsFiles { ca: Some(file("none.pem")), ..files() };
    let error = Link::connect(config(address, Some(missing))).await.unwrap_err();
    assert!(error.to_string().contains("none.pem"), "{error}");
    let no_certificate = TlsFiles { ca: Some(file("device.key")), ..files() };
    let error = Link::connect(config(address, Some(no_certificate))).await.unwrap_err();
    assert!(matches!(&error, LinkError::TlsFile { path, .. } if path.ends_with("device.key")), "{error}");
    let half = TlsFiles { key: None, ..files() };
    let error = Link::connect(config(address, Some(half))).await.unwrap_err();
    assert!(error.to_string().contains("go together"), "{error}");
}

#[tokio::test]
async fn replaced_files_are_used_at_the_next_connection() {
    let broker = EmbeddedBroker::start(BrokerConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::copy(file("device.pem"), &ca).unwrap();
    let tls = TlsFiles { ca: Some(ca.clone()), ..files() };
    let retry = fedtt_link::Retry { min: Duration::from_millis(1), max: Duration::from_millis(1) };
    let config = LinkConfig { retry, ..config(front(broker.address()).await, Some(tls)) };
    let (link, mut inbox) = Link::connect(config).await.unwrap();
    let Delivery::Disconnected { reason, .. } = first(&mut inbox).await else { panic!("trusted a stranger") };
    assert!(reason.contains("the CA file"), "{reason}");
    let fresh = folder.path().join("fresh.pem");
    std::fs::copy(file("ca.pem"), &fresh).unwrap();
    std::fs::rename(fresh, ca).unwrap();
    while first(&mut inbox).await != (Delivery::Connected { session_present: false }) {}
    link.reconnect();
    assert!(matches!(first(&mut inbox).await, Delivery::Disconnected { .. }));
    assert_eq!(first(&mut inbox).await, Delivery::Connected { session_present: false });
}
