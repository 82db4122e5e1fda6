//! Predictions over HTTP for other programs of this device, on loopback alone.
//!
//! | request | answer |
//! |---|---|
//! | `POST /predict` `{"text": .., "text_pair"?: ..}` or `{"texts": [..]}` | `{"version": 1, "data": {"adapter", "predictions": [..]}}` |
//! | `GET /health` | 200 once there is an adapter to answer with |
//! | `GET /adapter` | which adapter it is: run, round, digest, labels |
//!
//! Before there is an adapter each of them is answered with 503.
//!
//! [`Model`] answers, on a thread of its own: what has come in while it was busy is one batch. An adapter that is replaced is
//! loaded beside the one in use, which answers until the new one can.

mod api;
mod guard;
mod model;
mod reload;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

pub use api::{Limits, serve};
pub use guard::names_loopback;
pub use model::{Model, Opened, Text};
pub use reload::Watched;

/// What open connections get to finish after a shutdown.
const FAREWELL: Duration = Duration::from_secs(5);

/// Listens at `address`.
///
/// # Errors
/// When it is not a loopback address, or is taken.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let reason =
            format!("{address} is no loopback address: whoever reaches this device could use it; bind 127.0.0.1");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    TcpListener::bind(address).await.map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))
}
