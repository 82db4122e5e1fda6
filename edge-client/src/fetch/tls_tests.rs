//! Bundles over https.

use std::io::Write as _;
use std::path::PathBuf;

use fedtt_identity::authority::Authority;
use fedtt_identity::request::{CheckedRequest, private_key, request};
use fedtt_wire::FleetName;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use super::*;

/// An authority, with its certificate in a file.
struct Ca {
    authority: Authority,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

fn now() -> u64 {
    crate::daemon::now() / 1000
}

impl Ca {
    fn new() -> Self {
        let (certificate, key) = Authority::generate(&FleetName::new("web").unwrap(), now()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, &certificate).unwrap();
        Ca { authority: Authority::new(&certificate, &key).unwrap(), file, _folder: folder }
    }

    /// What a server at `host` shows.
    fn server(&self, host: &str) -> Arc<ServerConfig> {
        let key = private_key().unwrap();
        let request = CheckedRequest::check(&request("web", &key, None).unwrap()).unwrap();
        let issued = self.authority.broker(&request, &[host.into()], now() + 3600).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
    }
}

/// A web server over TLS; its address.
fn site(config: Arc<ServerConfig>, files: Files) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the process of the tests.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            // An error: a client that does not trust it.
            if answer(&mut tls, &|path: &str, from| good(&files, path, from), &Asked::default()).is_ok() {
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    address
}

#[test]
fn a_server_has_to_show_a_certificate_of_an_authority_that_is_trusted() {
    let (hash, files) = made(9);
    let (own, other) = (Ca::new(), Ca::new());
    let fetch = |address: SocketAddr, ca: &Ca| {
        let settings = FetchSettings { bundles: Some(format!("https://{address}/b")), ..FetchSettings::default() };
        let device = Device { folder: tempfile::tempdir().unwrap(), settings };
        let http = Http::new(Some(&ca.file), None).hasty();
        let place = super::super::bundle(&http, &device.shelf(), &device.settings, &hash, &|| false, &mut |_| {});
        place.map(|place| read(&place)).map_err(|e| e.to_string())
    };
    let here = site(own.server("127.0.0.1"), files.clone());
    assert_eq!(fetch(here, &own).unwrap(), files);
    let error = fetch(here, &other).unwrap_err();
    assert!(error.contains("UnknownIssuer") || error.contains("certificate"), "{error}");
    let elsewhere = site(own.server("files.site"), files.clone());
    let error = fetch(elsewhere, &own).unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}
