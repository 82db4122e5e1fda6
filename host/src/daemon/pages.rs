//! What the host serves over HTTP: the live page, and bundles by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::registry::Registry;
use super::{DaemonError, HostConfig, io};
use crate::web::{self, Snapshot};

/// How long open connections are waited for.
const FAREWELL: Duration = Duration::from_secs(3);

/// The servers, until stopped.
pub(super) struct Pages {
    /// Where the live page is.
    pub(super) web: Option<SocketAddr>,
    /// Where bundles alone are.
    pub(super) bundles: Option<SocketAddr>,
    served: Vec<(oneshot::Sender<()>, JoinHandle<std::io::Result<()>>)>,
}

impl Pages {
    /// Starts what the settings ask for.
    ///
    /// # Errors
    /// When an address cannot be listened at.
    pub(super) async fn start(
        config: &HostConfig,
        view: watch::Receiver<Arc<Snapshot>>,
        known: Arc<Registry>,
    ) -> Result<Self, DaemonError> {
        let mut pages = Pages { web: None, bundles: None, served: Vec::new() };
        let bundles: web::Bundles = Arc::new(move |hash: &str| known.folder(hash).ok().flatten());
        if config.web.enabled {
            let (listener, at) = listen(config.web.bind, "live page", "web.bind").await?;
            pages.web = Some(at);
            let (stop, stopped) = oneshot::channel();
            let page = web::serve(listener, view, config.runs.clone(), bundles.clone(), ended(stopped));
            pages.served.push((stop, tokio::spawn(page)));
        }
        if let Some(bind) = config.web.bundles {
            let (listener, at) = listen(bind, "bundles", "web.bundles").await?;
            pages.bundles = Some(at);
            let (stop, stopped) = oneshot::channel();
            pages.served.push((stop, tokio::spawn(web::serve_bundles(listener, bundles, ended(stopped)))));
        }
        Ok(pages)
    }

    /// Stops at once; what it returns is ready when open connections have ended, or have been waited for long enough.
    pub(super) fn stop(self) -> impl Future<Output = ()> {
        let (stop, served): (Vec<_>, Vec<_>) = self.served.into_iter().unzip();
        drop(stop);
        async move {
            let all = async {
                for served in served {
                    // An error: it has ended by itself.
                    let _ = served.await;
                }
            };
            // An error: as long as they may take.
            let _ = tokio::time::timeout(FAREWELL, all).await;
        }
    }
}

async fn listen(bind: SocketAddr, what: &str, setting: &str) -> Result<(TcpListener, SocketAddr), DaemonError> {
    let listener = TcpListener::bind(bind).await.map_err(io(format!("{what} at {bind} (`{setting}`)")))?;
    let address = listener.local_addr().map_err(io(format!("{what} at {bind}")))?;
    Ok((listener, address))
}

async fn ended(stop: oneshot::Receiver<()>) {
    // An error: its sender was dropped, which stops it as well.
    let _ = stop.await;
}
