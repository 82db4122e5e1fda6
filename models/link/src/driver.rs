//! The task behind a link: connects, reads and writes at once, and connects again.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::LinkConfig;
use crate::connection::{Connection, Dialer};
use crate::inbox::{Delivery, Outlet};
use crate::link::{Command, Shared};
use crate::packet::{self, Incoming};
use crate::session::Session;

/// Written ahead of the socket, bytes; one packet may go over it.
const WRITE_AHEAD: usize = 256 << 10;
/// Room made for reading, bytes, when less than `READ_LEAST` is left: messages share a buffer as long as they fit.
const READ_AHEAD: usize = 64 << 10;
const READ_LEAST: usize = 4 << 10;

/// Runs a link until it is shut down, or all that hold it are gone.
pub(crate) async fn run(
    config: LinkConfig,
    dialer: Dialer,
    commands: mpsc::UnboundedReceiver<Command>,
    outlet: Outlet,
    shared: Arc<Shared>,
) {
    let desk = Desk { commands, abandoned: false, session: Session::default(), flushes: Vec::new(), leaving: None };
    let mut driver = Driver { config, outlet, shared, desk };
    let mut failures = 0;
    loop {
        let dialled = tokio::select! {
            dialled = dialer.dial(&driver.config) => dialled,
            () = driver.desk.attend(&driver.config, &driver.outlet) => return,
        };
        let reason = match dialled {
            Ok(connection) => {
                let begun = Instant::now();
                let ControlFlow::Continue(reason) = driver.serve(connection).await else { return };
                if begun.elapsed() >= driver.config.retry.min * 10 {
                    failures = 0;
                }
                reason
            }
            Err(reason) => reason,
        };
        let retry_in = driver.config.retry.wait(failures, rand::random());
        failures = failures.saturating_add(1);
        driver.outlet.put(Delivery::Disconnected { reason, retry_in });
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            () = driver.shared.reconnect.notified() => {}
            () = driver.desk.attend(&driver.config, &driver.outlet) => return,
        }
    }
}

struct Driver {
    config: LinkConfig,
    outlet: Outlet,
    shared: Arc<Shared>,
    desk: Desk,
}

/// Where what is asked of a link is taken in.
struct Desk {
    commands: mpsc::UnboundedReceiver<Command>,
    /// All handles are gone.
    abandoned: bool,
    session: Session,
    flushes: Vec<oneshot::Sender<()>>,
    leaving: Option<Leaving>,
}

struct Leaving {
    deadline: Instant,
    done: Vec<oneshot::Sender<()>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        for done in self.done.drain(..) {
            // An error: nobody waits for it any more.
            let _ = done.send(());
        }
    }
}

impl Desk {
    /// Takes in what is asked while there is no connection; returns when the link is to end.
    async fn attend(&mut self, config: &LinkConfig, outlet: &Outlet) {
        loop {
            if self.leaving.is_some() && self.session.is_idle() {
                return;
            }
            if self.next(config, outlet).await.is_break() {
                return;
            }
        }
    }

    /// Takes in the next command and all that wait behind it. Breaks when the link is to end at once: the time to take
    /// leave is over, or nobody holds it.
    async fn next(&mut self, config: &LinkConfig, outlet: &Outlet) -> ControlFlow<()> {
        let deadline = self.leaving.as_ref().map(|leaving| leaving.deadline);
        let command = tokio::select! {
            command = self.commands.recv(), if !self.abandoned => command,
            () = outlet.closed(), if self.abandoned && deadline.is_none() => return ControlFlow::Break(()),
            () = until(deadline) => return ControlFlow::Break(()),
        };
        let Some(command) = command else {
            self.abandoned = true;
            return ControlFlow::Continue(());
        };
        self.take(command, config);
        while let Ok(command) = self.commands.try_recv() {
            self.take(command, config);
        }
        self.answer();
        ControlFlow::Continue(())
    }

    fn take(&mut self, command: Command, config: &LinkConfig) {
        match command {
            Command::Ask(request) => self.session.ask(request),
            Command::Flush(done) => self.flushes.push(done),
            Command::Shutdown(done) => {
                let deadline = Instant::now() + config.shutdown_timeout;
                self.leaving.get_or_insert(Leaving { deadline, done: Vec::new() }).done.push(done);
                self.commands.close();
            }
        }
    }

    /// Tells those who wait for everything to be acknowledged.
    fn answer(&mut self) {
        if self.session.is_idle() {
            for done in self.flushes.drain(..) {
                // An error: nobody waits for it any more.
                let _ = done.send(());
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// When something last moved on a connection, and what is done about silence.
struct Pulse {
    keep_alive: std::time::Duration,
    heard: Instant,
    sent: Instant,
    pinged: Option<Instant>,
}

impl Pulse {
    fn new(keep_alive: std::time::Duration) -> Self {
        let now = Instant::now();
        Self { keep_alive, heard: now, sent: now, pinged: None }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.pinged = None;
    }

    fn sent(&mut self) {
        self.sent = Instant::now();
    }

    /// When to ping, or, after a ping, to give up. Bytes the socket takes are life as well: a slow uplink is not a dead one.
    fn due(&self) -> Instant {
        match self.pinged {
            Some(pinged) => pinged.max(self.sent) + self.keep_alive,
            None => self.heard.min(self.sent) + self.keep_alive,
        }
    }
}

impl Driver {
    /// Runs a connection until it breaks, with the reason, or the link is to end.
    async fn serve(&mut self, connection: Connection) -> ControlFlow<(), String> {
        let Connection { stream, mut input, session_present, peer } = connection;
        self.shared.peer.send_replace(peer);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut output = BytesMut::with_capacity(READ_AHEAD);
        let mut flushed = true;
        let mut pulse = Pulse::new(self.config.keep_alive);
        self.desk.session.begin(session_present);
        self.outlet.put(Delivery::Connected { session_present });
        if let Err(reason) = self.read(&mut input, &mut output) {
            return ControlFlow::Continue(reason);
        }
        loop {
            self.shared.counters.messages_sent(self.desk.session.write(&mut output, WRITE_AHEAD));
            if self.desk.leaving.is_some() && self.desk.session.is_idle() {
                packet::disconnect(&mut output);
                self.part(&mut writer, &output).await;
                return ControlFlow::Break(());
            }
            let reading = !self.outlet.is_full() || self.shared.somebody_waits() || self.desk.leaving.is_some();
            if input.capacity() - input.len() < READ_LEAST {
                input.reserve(READ_AHEAD);
            }
            tokio::select! {
                read = reader.read_buf(&mut input), if reading => {
                    match read {
                        Ok(0) => return ControlFlow::Continue("the broker closed the connection".into()),
                        Ok(_) => {}
                        Err(error) => return ControlFlow::Continue(format!("the connection broke: {error}")),
                    }
                    pulse.heard();
                    if let Err(reason) = self.read(&mut input, &mut output) {
                        return ControlFlow::Continue(reason);
                    }
                }
                wrote = push(&mut writer, &mut output), if !output.is_empty() || !flushed => {
                    match wrote {
                        Ok(wrote) => flushed = wrote == 0,
                        Err(error) => return ControlFlow::Continue(format!("the connection broke: {error}")),
                    }
                    pulse.sent();
                }
                ended = self.desk.next(&self.config, &self.outlet) => {
                    if ended.is_break() {
                        if self.desk.leaving.is_some() {
                            self.leave_unfinished(&mut writer, output).await;
                        }
                        return ControlFlow::Break(());
                    }
                }
                () = self.shared.reconnect.notified() => {
                    packet::disconnect(&mut output);
                    self.part(&mut writer, &output).await;
                    return ControlFlow::Continue("it is made anew".into());
                }
                () = self.outlet.room(), if !reading => {}
                () = self.shared.began_waiting.notified(), if !reading => {}
                () = sleep_until(pulse.due()) => {
                    if !reading {
                        // Silence of our own making; the broker hears of us all the same.
                        pulse.heard();
                        packet::ping(&mut output);
                    } else if pulse.pinged.is_some() {
                        let silence = pulse.heard.elapsed();
                        return ControlFlow::Continue(format!("nothing from the broker for {silence:.1?}"));
                    } else {
                        pulse.pinged = Some(Instant::now());
                        packet::ping(&mut output);
                    }
                }
            }
        }
    }

    /// Takes the packets off `input`, and puts what they ask for in answer on `output`.
    fn read(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), String> {
        let session = &mut self.desk.session;
        while let Some(incoming) = packet::decode(input, self.config.max_packet)? {
            match incoming {
                Incoming::Message { topic, payload, retain, id } => {
                    self.shared.counters.message_received();
                    if let Some(id) = id {
                        packet::acknowledge(id, output);
                    }
                    self.outlet.put(Delivery::Message { topic, payload, retain });
                }
                Incoming::Published(id) => session.published(id),
                Incoming::Subscribed { id, granted } => session
                    .subscribed(id, granted)
                    .map_err(|filter| format!("the broker refuses the subscription to {filter}"))?,
                Incoming::Unsubscribed(id) => session.unsubscribed(id),
                Incoming::Pong => {}
                Incoming::Welcome { .. } | Incoming::Refused(_) => return Err("the broker greets twice".into()),
            }
        }
        self.desk.answer();
        Ok(())
    }

    /// Writes the last bytes, as long as it may take.
    async fn part<W: AsyncWrite + Unpin>(&self, writer: &mut W, output: &[u8]) {
        let write = async {
            writer.write_all(output).await?;
            writer.flush().await?;
            writer.shutdown().await
        };
        // The connection ends either way; a broker that has not read our leave publishes the will.
        let _ = tokio::time::timeout(self.config.shutdown_timeout, write).await;
    }

    /// Takes leave with something unacknowledged: what is half written is completed first, if it can be at once.
    async fn leave_unfinished<W: AsyncWrite + Unpin>(&self, writer: &mut W, mut output: BytesMut) {
        packet::disconnect(&mut output);
        let write = async {
            writer.write_all(&output).await?;
            writer.shutdown().await
        };
        // As above.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), write).await;
    }
}

/// Writes what the socket takes of `output`; with nothing left, flushes and returns 0. May be cancelled without loss.
async fn push<W: AsyncWrite + Unpin>(writer: &mut W, output: &mut BytesMut) -> std::io::Result<usize> {
    if output.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    writer.write_buf(output).await
}
