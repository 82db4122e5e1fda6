//! Reaching a broker: TCP, TLS and its greeting.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore, crypto::ring};

use crate::packet::{self, Incoming};
use crate::traffic::{Counted, Counters};
use crate::{LinkConfig, LinkError, TlsFiles};

/// A stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections.
pub(crate) struct Dialer {
    /// What the broker's certificate is to be for, where there is TLS.
    tls: Option<ServerName<'static>>,
    counters: Arc<Counters>,
}

/// A connection the broker has welcomed.
pub(crate) struct Connection {
    pub(crate) stream: Box<dyn Stream>,
    /// Read beyond the greeting.
    pub(crate) input: BytesMut,
    pub(crate) session_present: bool,
    /// The broker's certificate in DER, where there is TLS.
    pub(crate) peer: Option<Arc<[u8]>>,
}

impl Dialer {
    /// Tries whether the TLS files, if any, can be used.
    pub(crate) fn new(config: &LinkConfig, counters: Arc<Counters>) -> Result<Self, LinkError> {
        let tls = match config.broker.is_tls() {
            false => None,
            true => {
                client_config(config)?;
                let name = ServerName::try_from(config.broker.host().to_owned())
                    .map_err(|error| LinkError::Tls(format!("{}: {error}", config.broker.host())))?;
                Some(name)
            }
        };
        Ok(Self { tls, counters })
    }

    /// Connects and is welcomed, or says why not.
    pub(crate) async fn dial(&self, config: &LinkConfig) -> Result<Connection, String> {
        let attempt = async {
            let tcp = TcpStream::connect((config.broker.host(), config.broker.port())).await;
            let tcp = tcp.map_err(|error| format!("cannot connect to {}: {error}", config.broker))?;
            tcp.set_nodelay(true).map_err(|error| format!("cannot set TCP_NODELAY: {error}"))?;
            let counted = Counted { stream: tcp, counters: self.counters.clone() };
            let (stream, peer): (Box<dyn Stream>, _) = match &self.tls {
                None => (Box::new(counted), None),
                Some(name) => {
                    // Anew for each connection: the files may have been replaced. Nor is an earlier session resumed, which
                    // would go on with the certificate of then.
                    let client = client_config(config).map_err(|error| error.to_string())?;
                    let encrypted = TlsConnector::from(Arc::new(client)).connect(name.clone(), counted).await;
                    let encrypted =
                        encrypted.map_err(|e| format!("no TLS with {}: {}", config.broker, explained(&e)))?;
                    let peer = encrypted.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let peer = peer.map(|certificate| Arc::from(certificate.as_ref()));
                    (Box::new(encrypted), peer)
                }
            };
            let connection = greet(stream, config).await?;
            Ok(Connection { peer, ..connection })
        };
        match tokio::time::timeout(config.connect_timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(format!("{} does not answer within {:?}", config.broker, config.connect_timeout)),
        }
    }
}

async fn greet(mut stream: Box<dyn Stream>, config: &LinkConfig) -> Result<Connection, String> {
    let failed = |error: std::io::Error| format!("{} ends the connection: {}", config.broker, explained(&error));
    let mut output = BytesMut::new();
    packet::connect(config, &mut output);
    stream.write_all(&output).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut input = BytesMut::with_capacity(64 << 10);
    loop {
        // Told by the first byte: what another protocol means by the rest may never be complete as a packet.
        if input.first().is_some_and(|kind| *kind != packet::CONNACK) {
            return Err(format!("{} does not greet: it is no MQTT 3.1.1 broker", config.broker));
        }
        match packet::decode(&mut input, config.max_packet)? {
            Some(Incoming::Welcome { session_present }) => {
                return Ok(Connection { stream, input, session_present, peer: None });
            }
            Some(Incoming::Refused(reason)) => return Err(format!("{} refuses us: {reason}", config.broker)),
            Some(_) | None => {}
        }
        if stream.read_buf(&mut input).await.map_err(failed)? == 0 {
            return Err(format!("{} ends the connection without a word", config.broker));
        }
    }
}

/// An error of TLS, with what to do about it.
fn explained(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "; the broker's certificate is newer than this machine's clock: check the clock"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "; renew the broker's certificate, or check this machine's clock"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "; reach the broker at a name its certificate is for, or give it a certificate for this one"
            }
            CertificateError::UnknownIssuer => "; the CA file is not that of the broker's certificate",
            _ => "",
        },
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateExpired => "; our certificate has expired: renew it, or check both clocks",
            AlertDescription::CertificateRevoked => "; our certificate was revoked: enrol anew",
            AlertDescription::CertificateRequired => "; the broker wants a certificate: enrol, or give one",
            AlertDescription::UnknownCA => "; the broker does not know who signed our certificate",
            _ => "",
        },
        _ => "",
    };
    format!("{error}{advice}")
}

fn client_config(config: &LinkConfig) -> Result<ClientConfig, LinkError> {
    let none = TlsFiles::default();
    let files = config.tls.as_ref().unwrap_or(&none);
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| of_file(path, error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(LinkError::Tls("the system has no certificate authorities; give a CA file".into()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| LinkError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    match (&files.cert, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, error))?;
            builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| of_file(cert, error))
        }
        _ => Err(LinkError::Tls("a certificate and its private key go together: give both, or neither".into())),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(of_file(path, "it has no certificate in PEM")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(of_file(path, error)),
    }
}

fn of_file(path: &Path, problem: impl ToString) -> LinkError {
    LinkError::TlsFile { path: path.into(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_certificates_comes_with_what_to_do() {
        let told = |error: rustls::Error| explained(&std::io::Error::other(error));
        let ours = |problem| told(rustls::Error::InvalidCertificate(problem));
        let theirs = |alert| told(rustls::Error::AlertReceived(alert));
        for (text, part) in [
            (ours(CertificateError::NotValidYet), "check the clock"),
            (ours(CertificateError::Expired), "or check this machine's clock"),
            (ours(CertificateError::UnknownIssuer), "the CA file is not that"),
            (ours(CertificateError::NotValidForName), "a name its certificate is for"),
            (theirs(AlertDescription::CertificateExpired), "renew it"),
            (theirs(AlertDescription::CertificateRevoked), "enrol anew"),
            (theirs(AlertDescription::CertificateRequired), "enrol, or give one"),
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(explained(&std::io::Error::other("cut off")), "cut off");
    }
}
