//! What the service manager is told (`sd_notify(3)`): that the device is up, what it does, and that it is alive.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use super::life::Life;
use super::telling::Told;
use crate::round::{Notice, What};

/// The service manager, where there is one: `NOTIFY_SOCKET` names its socket, `WATCHDOG_USEC` how often it wants a sign.
#[derive(Debug, Default)]
pub(super) struct Service {
    ready: AtomicBool,
    /// Whether the device takes part in nothing for now.
    unready: AtomicBool,
}

/// Tells the service manager, if there is one. One that does not listen, or not now, holds nothing up and stops nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let _ = send(&socket, message.as_bytes());
    }
}

/// Unlike `sd_notify::notify` without ever waiting for room in the manager's queue, which would hold up the connection.
fn send(socket: &OsStr, message: &[u8]) -> io::Result<usize> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message, &address)
}

impl Service {
    /// The device is up: the broker knows of it or, where that is away, it tries. Once is enough; a board without network
    /// is no failed service, which would be started again and again.
    pub(super) fn up(&self) {
        if !self.ready.swap(true, Ordering::Relaxed) {
            notify(&[NotifyState::Ready]);
        }
    }

    /// The device is about to end.
    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// What the device does, for `systemctl status`.
    pub(super) fn told(&self, told: &Told) {
        match told {
            Told::Unready { .. } => self.unready.store(true, Ordering::Relaxed),
            Told::Ready { .. } => self.unready.store(false, Ordering::Relaxed),
            // The broker is there: that is not what keeps it.
            Told::Notice(Notice { what: What::Connected, .. }) if self.unready.load(Ordering::Relaxed) => return,
            _ => {}
        }
        if let Some(status) = status(told) {
            notify(&[NotifyState::Status(&status)]);
        }
    }

    /// Gives a sign at half the time the service manager waits for one, as long as there are signs of life.
    pub(super) async fn watch(life: Life) {
        let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval((patience / 2).max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if life.is_seen(patience) {
                notify(&[NotifyState::Watchdog]);
            }
        }
    }
}

/// Gives the service manager signs of life, while there is no work, until dropped.
pub(super) struct Alive(JoinHandle<()>);

impl Alive {
    pub(super) fn begin() -> Self {
        Alive(tokio::spawn(Service::watch(Life::new())))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn status(told: &Told) -> Option<String> {
    let text = match told {
        Told::Disconnected { reason, .. } => format!("not connected: {reason}"),
        Told::Unready { reason } => format!("takes part in nothing for now: {reason}"),
        Told::Ready { .. } => "waiting for rounds".to_string(),
        Told::Notice(Notice { what: What::Connected, .. }) => "connected, waiting for rounds".to_string(),
        Told::Notice(notice) => match notice.what {
            What::Ignored { .. } | What::SetAside { .. } | What::Announced { .. } => return None,
            _ => notice.to_string(),
        },
        _ => return None,
    };
    // A line break would begin another assignment.
    Some(text.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_stays_on_the_line() {
        let told = Told::Disconnected { reason: "refused\nREADY=1".into(), retry_in: Duration::ZERO };
        assert_eq!(status(&told).as_deref(), Some("not connected: refused READY=1"));
        let told = Told::Notice(Notice { run: None, what: What::Connected });
        assert_eq!(status(&told).as_deref(), Some("connected, waiting for rounds"));
    }
}
