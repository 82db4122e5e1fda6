//! A mosquitto of our own on loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::BrokerUrl;

/// A running mosquitto. Dropped, it is killed.
#[derive(Debug)]
pub struct Mosquitto {
    address: SocketAddr,
    settings: PathBuf,
    /// Holds its settings, where they are its own.
    _folder: Option<tempfile::TempDir>,
    child: Option<Child>,
}

/// Debian keeps it out of the path of users.
const PLACES: [&str; 3] = ["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];

impl Mosquitto {
    /// Starts a mosquitto at a free port, anonymous and in memory; none where it is not installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub fn start() -> io::Result<Option<Self>> {
        // Bound and let go: mosquitto cannot tell which port it was given. Another may take it in between.
        let mut attempt = 0;
        loop {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let folder = tempfile::tempdir()?;
            let settings = format!(
                "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000\nset_tcp_nodelay true\n",
                address.port()
            );
            let file = folder.path().join("mosquitto.conf");
            std::fs::write(&file, settings)?;
            let mut mosquitto = Self { address, settings: file, _folder: Some(folder), child: None };
            attempt += 1;
            match mosquitto.restart() {
                Ok(()) => return Ok(Some(mosquitto)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if attempt == 5 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Starts a mosquitto with settings in which it listens at `address`; none where it is not installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub fn configured(settings: &Path, address: SocketAddr) -> io::Result<Option<Self>> {
        let mut mosquitto = Self { address, settings: settings.into(), _folder: None, child: None };
        match mosquitto.restart() {
            Ok(()) => Ok(Some(mosquitto)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens.
    pub fn url(&self) -> BrokerUrl {
        BrokerUrl::tcp(self.address)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it (SIGKILL): what it held is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors: it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it anew at the same address, killing it first if it runs.
    ///
    /// # Errors
    /// If it does not listen within ten seconds; of the kind `NotFound` where it is not installed.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let settings = self.settings.clone();
        let started = PLACES.iter().find_map(|place| {
            let mut command = Command::new(place);
            command.arg("-c").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                result => Some(result),
            }
        });
        let mut child =
            started.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "mosquitto is not installed"))??;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("mosquitto ended with {status}")));
            }
            if TcpStream::connect(self.address).is_ok() {
                self.child = Some(child);
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(10) {
                self.child = Some(child);
                self.kill();
                return Err(io::Error::other(format!("mosquitto does not listen at {}", self.address)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
