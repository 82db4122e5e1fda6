//! One file by HTTP(S), on from where it broke off, until its hash is right.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fedtt_wire::digest::Hashing;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::{FetchError, refused};
use crate::files::open_or_make;

/// Longest wait for a connection, for an answer to begin, and for its next bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many attempts in a row may bring nothing.
const FRUITLESS: u32 = 4;
/// Wait before the second attempt; it doubles with each that brings nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// A file has this long, and a second more for each of so many bytes.
const GRACE: Duration = Duration::from_secs(300);
const SLOWEST: u64 = 1000;

/// A client for files.
pub struct Http {
    authorities: Option<std::path::PathBuf>,
    rate: Option<u64>,
    pause: Duration,
    plain: Agent,
    /// Made with the first address that needs it: the system's authorities take memory.
    secure: OnceLock<Agent>,
}

/// A file to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: &'a str,
}

/// An answer with bytes from `start` on.
struct Answer {
    start: u64,
    /// Size of the whole file, where the server tells.
    total: Option<u64>,
    body: Body,
}

impl Http {
    /// A client that trusts the authorities in the PEM file `ca`, or those of the system, and takes in at most `rate` bytes a
    /// second.
    pub fn new(ca: Option<&Path>, rate: Option<u64>) -> Self {
        let plain = agent(TlsConfig::default());
        Http {
            authorities: ca.map(Path::to_path_buf),
            rate: rate.filter(|&rate| rate > 0),
            pause: PAUSE,
            plain,
            secure: OnceLock::new(),
        }
    }

    /// The same without waits between attempts.
    #[cfg(test)]
    pub(super) fn hasty(self) -> Self {
        Http { pause: Duration::ZERO, ..self }
    }

    fn agent(&self, url: &str) -> Result<&Agent, FetchError> {
        if !url.starts_with("https://") {
            return match url.starts_with("http://") {
                true => Ok(&self.plain),
                false => Err(FetchError::Request(format!("`{url}` is no address beginning with http:// or https://"))),
            };
        }
        if let Some(agent) = self.secure.get() {
            return Ok(agent);
        }
        let ring = tokio_rustls::rustls::crypto::ring::default_provider();
        let roots = authorities(self.authorities.as_deref())?;
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring)).root_certs(roots).build();
        Ok(self.secure.get_or_init(|| agent(tls)))
    }

    fn ask(&self, url: &str, from: u64) -> Result<Answer, FetchError> {
        let mut request = self.agent(url)?.get(url).header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let answer = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                FetchError::Request(format!("`{url}` is no address: {error}"))
            }
            error => FetchError::Unreached { url: url.into(), reason: error.to_string() },
        })?;
        read(url, from, answer)
    }

    /// What is at `url`, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// When it has more, or is not to be had.
    pub fn small(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut fruitless = 0;
        loop {
            let got = self.ask(url, 0).and_then(|answer| {
                let mut bytes = Vec::new();
                let mut body = answer.body.into_with_config().limit(u64::MAX).reader().take(limit + 1);
                body.read_to_end(&mut bytes).map_err(|e| broken(url, &e))?;
                match answer.total {
                    Some(total) if total <= limit && bytes.len() as u64 != total => {
                        Err(FetchError::Unreached { url: url.into(), reason: "the connection broke".into() })
                    }
                    _ => Ok(bytes),
                }
            });
            match got {
                Ok(bytes) if bytes.len() as u64 > limit => {
                    let reason = format!("more than the {limit} bytes there may be");
                    return Err(FetchError::Answer { url: url.into(), reason });
                }
                Err(error) if error.is_passing() && fruitless + 1 < FRUITLESS => {
                    std::thread::sleep(self.pause * 2u32.pow(fruitless));
                    fruitless += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// How many bytes there are at `url`, as the server says.
    ///
    /// # Errors
    /// When it does not say, or is not reached.
    pub fn size(&self, url: &str) -> Result<u64, FetchError> {
        let total = self.ask(url, 0)?.total;
        total.ok_or_else(|| FetchError::Answer { url: url.into(), reason: "does not say how large it is".into() })
    }

    /// Makes the file `to` what is wanted: what is there of it is kept and added to. `told` hears how many bytes are there.
    ///
    /// # Errors
    /// When the server is not reached for a while, answers with something else, or is too slow; when the disk is full; when
    /// `stop` says so. What had come by then stays.
    pub fn download(
        &self,
        wanted: &Wanted<'_>,
        to: &Path,
        stop: &dyn Fn() -> bool,
        told: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let deadline = Instant::now() + GRACE + Duration::from_secs(wanted.bytes / SLOWEST);
        let (mut fruitless, mut damaged) = (0, false);
        loop {
            let mut have = fs::metadata(to).map_or(0, |file| file.len());
            if have > wanted.bytes {
                fs::remove_file(to).map_err(refused("remove", to))?;
                have = 0;
            }
            if have < wanted.bytes {
                match self.go_on(wanted, to, have, deadline, stop, told) {
                    Ok(()) => {}
                    Err(error) if error.is_passing() && Instant::now() < deadline => {
                        let more = fs::metadata(to).map_or(0, |file| file.len()) > have;
                        fruitless = if more { 0 } else { fruitless + 1 };
                        if fruitless >= FRUITLESS {
                            return Err(error);
                        }
                        wait(self.pause * 2u32.pow(fruitless), stop)?;
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            if !to.exists() {
                open_or_make(to, File::options().write(true)).map_err(refused("create", to))?;
            }
            let found = sha256(to)?;
            if found == wanted.sha256 {
                return File::open(to).and_then(|file| file.sync_all()).map_err(refused("write", to));
            }
            // What lay there may be another file's beginning, or damaged by a loss of power: once from the start.
            fs::remove_file(to).map_err(refused("remove", to))?;
            if std::mem::replace(&mut damaged, true) {
                return Err(FetchError::Hash { url: wanted.url.into(), wanted: wanted.sha256.into(), found });
            }
        }
    }

    /// Adds to the file from `have` on, until it is whole or the connection breaks.
    fn go_on(
        &self,
        wanted: &Wanted<'_>,
        to: &Path,
        have: u64,
        deadline: Instant,
        stop: &dyn Fn() -> bool,
        told: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let url = wanted.url;
        let answer = self.ask(url, have)?;
        if let Some(total) = answer.total.filter(|&total| total != wanted.bytes) {
            let reason = format!("has {total} bytes where {} belong", wanted.bytes);
            return Err(FetchError::Answer { url: url.into(), reason });
        }
        let mut file = open_or_make(to, File::options().append(true)).map_err(refused("write", to))?;
        // From the start, if the server does not do parts.
        file.set_len(answer.start).map_err(refused("write", to))?;
        let (began, from, mut have) = (Instant::now(), answer.start, answer.start);
        let left = wanted.bytes - answer.start;
        let mut body = answer.body.into_with_config().limit(u64::MAX).reader().take(left);
        let mut buffer = vec![0; 64 << 10];
        while have < wanted.bytes {
            if stop() {
                return Err(FetchError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(FetchError::Answer { url: url.into(), reason: "is given up: it comes too slowly".into() });
            }
            let read = body.read(&mut buffer).map_err(|e| broken(url, &e))?;
            if read == 0 {
                return Err(FetchError::Unreached { url: url.into(), reason: "the connection broke".into() });
            }
            file.write_all(&buffer[..read]).map_err(refused("write", to))?;
            have += read as u64;
            told(have);
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64((have - from) as f64 / rate as f64);
                wait(due.saturating_sub(began.elapsed()), stop)?;
            }
        }
        Ok(())
    }
}

fn agent(tls: TlsConfig) -> Agent {
    // A server is the one that was named: nobody is sent elsewhere.
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("fedtt-edge/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_send_request(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .max_idle_connections(1)
        .build()
        .new_agent()
}

fn authorities(file: Option<&Path>) -> Result<RootCerts, FetchError> {
    let refuse = |what: String| FetchError::Authorities(what);
    let certificates: Vec<Certificate<'static>> = match file {
        Some(path) => {
            let pem = fs::read(path).map_err(refused("read", path))?;
            let items: Result<Vec<PemItem<'static>>, _> = parse_pem(&pem).collect();
            let items = items.map_err(|e| refuse(format!("{}: {e}", path.display())))?;
            let certificate = |item| if let PemItem::Certificate(c) = item { Some(c) } else { None };
            items.into_iter().filter_map(certificate).collect()
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
        }
    };
    if certificates.is_empty() {
        let place = file.map_or_else(|| "the system".into(), |path| path.display().to_string());
        return Err(refuse(format!("{place}: there are none; name a file at `fetch.ca`")));
    }
    Ok(RootCerts::from(certificates))
}

/// What an answer says of the file.
fn read(url: &str, from: u64, answer: Response<Body>) -> Result<Answer, FetchError> {
    let refuse = |reason: String| Err(FetchError::Answer { url: url.into(), reason });
    let status = answer.status();
    match status {
        StatusCode::OK => {
            let (parts, body) = answer.into_parts();
            let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
            Ok(Answer { start: 0, total: length, body })
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = answer.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
            match range.and_then(content_range) {
                Some((start, total)) if start == from => Ok(Answer { start, total, body: answer.into_body() }),
                _ => refuse(format!("answers with {range:?}, not with the bytes from {from} on")),
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => refuse(format!("has no bytes from {from} on")),
        StatusCode::TOO_MANY_REQUESTS => Err(FetchError::Unreached { url: url.into(), reason: status.to_string() }),
        _ if status.is_server_error() => Err(FetchError::Unreached { url: url.into(), reason: status.to_string() }),
        _ if status.is_redirection() => refuse(format!("answers {status}; it is not followed elsewhere")),
        _ => refuse(format!("answers {status}")),
    }
}

/// Start and whole size in `bytes 10-99/100`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn broken(url: &str, error: &io::Error) -> FetchError {
    FetchError::Unreached { url: url.into(), reason: format!("the connection broke: {error}") }
}

fn wait(time: Duration, stop: &dyn Fn() -> bool) -> Result<(), FetchError> {
    let until = Instant::now() + time;
    loop {
        if stop() {
            return Err(FetchError::Stopped);
        }
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => std::thread::sleep(left.min(Duration::from_millis(100))),
        }
    }
}

/// SHA-256 of a file in lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub(super) fn sha256(path: &Path) -> Result<String, FetchError> {
    let digest = File::open(path).and_then(|file| Hashing::new(file).finish());
    Ok(digest.map_err(refused("read", path))?.to_string())
}
