//! A TCP proxy between clients and a broker that breaks things.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::frame;
use crate::BrokerUrl;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client to the broker.
    Up,
    /// From the broker to a client.
    Down,
}

/// What happens to publications, each with a probability of its own. All zero by default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Acknowledged in the receiver's name, and lost: what a broker does that is killed.
    pub drop: f64,
    /// Passed on twice, the second time at QoS 0.
    pub duplicate: f64,
    /// One byte of the payload changed.
    pub corrupt: f64,
    /// Held back while others pass, for up to `longest_delay`.
    pub delay: f64,
    /// The longest delay.
    pub longest_delay: Duration,
}

/// What a proxy has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes read from clients.
    pub bytes_up: u64,
    /// Bytes written to clients.
    pub bytes_down: u64,
    /// Publications seen.
    pub publications: u64,
    /// Publications lost.
    pub dropped: u64,
    /// Publications passed on twice.
    pub duplicated: u64,
    /// Publications changed.
    pub corrupted: u64,
    /// Publications held back.
    pub delayed: u64,
}

/// A proxy on loopback. Faults are drawn per connection and direction from the seed, so the same packets on the same
/// connections meet the same faults. TLS connections are passed on unread. Dropped, all its connections break.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    broker: Mutex<SocketAddr>,
    seed: u64,
    faults: Mutex<[Faults; 2]>,
    latency: Mutex<Duration>,
    held: watch::Sender<bool>,
    /// Raised to break all connections of before.
    generation: watch::Sender<u64>,
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
    publications: AtomicU64,
    dropped: AtomicU64,
    duplicated: AtomicU64,
    corrupted: AtomicU64,
    delayed: AtomicU64,
}

impl FaultProxy {
    /// Starts a proxy at a free port that passes everything on to `broker`.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(broker: SocketAddr, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            broker: Mutex::new(broker),
            seed,
            faults: Mutex::default(),
            latency: Mutex::default(),
            held: watch::Sender::new(false),
            generation: watch::Sender::new(0),
            connections: AtomicU64::default(),
            bytes: Default::default(),
            publications: AtomicU64::default(),
            dropped: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            corrupted: AtomicU64::default(),
            delayed: AtomicU64::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = Some(tokio::spawn(accept(listener, shared.clone())));
        Ok(Self { address, shared, accepting })
    }

    /// Where clients connect.
    pub fn url(&self) -> BrokerUrl {
        BrokerUrl::tcp(self.address)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections made from now on go to another broker.
    pub fn set_broker(&self, broker: SocketAddr) {
        *lock(&self.shared.broker) = broker;
    }

    /// What happens to publications from now on.
    pub fn set_faults(&self, direction: Direction, faults: Faults) {
        lock(&self.shared.faults)[direction as usize] = faults;
    }

    /// Everything arrives this much later from now on, both ways.
    pub fn set_latency(&self, latency: Duration) {
        *lock(&self.shared.latency) = latency;
    }

    /// Passes nothing on while keeping all connections open, as a broker whose cable is pulled.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Passes on what was held, and all that follows.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Breaks all connections; new ones are accepted.
    pub fn cut(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Breaks all connections and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Cancelled: it has given the port back.
            let _ = accepting.await;
        }
        self.cut();
    }

    /// Accepts connections again, at the same address.
    ///
    /// # Errors
    /// If the port has been taken by another in between.
    pub async fn restart(&mut self) -> io::Result<()> {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.accepting = Some(tokio::spawn(accept(listener, self.shared.clone())));
        }
        Ok(())
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            connections: of(&shared.connections),
            bytes_up: of(&shared.bytes[Direction::Up as usize]),
            bytes_down: of(&shared.bytes[Direction::Down as usize]),
            publications: of(&shared.publications),
            dropped: of(&shared.dropped),
            duplicated: of(&shared.duplicated),
            corrupted: of(&shared.corrupted),
            delayed: of(&shared.delayed),
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.cut();
    }
}

/// Nothing panics while holding these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let generation = shared.generation.subscribe();
        tokio::spawn(carry(client, shared.clone(), number, generation));
    }
}

/// Carries one connection until either side closes it or it is cut.
async fn carry(client: TcpStream, shared: Arc<Shared>, number: u64, mut generation: watch::Receiver<u64>) {
    let broker = *lock(&shared.broker);
    let Ok(broker) = TcpStream::connect(broker).await else { return };
    if client.set_nodelay(true).and_then(|()| broker.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (up, up_queue) = mpsc::unbounded_channel();
    let (down, down_queue) = mpsc::unbounded_channel();
    let random = |direction| ChaCha8Rng::seed_from_u64(shared.seed ^ (2 * number + direction as u64).rotate_left(32));
    let upwards = Reader {
        direction: Direction::Up,
        random: random(Direction::Up),
        onward: up.clone(),
        back: down.clone(),
        shared: shared.clone(),
    };
    let downwards = Reader {
        direction: Direction::Down,
        random: random(Direction::Down),
        onward: down,
        back: up,
        shared: shared.clone(),
    };
    let both_ways = async {
        tokio::join!(
            upwards.run(from_client),
            downwards.run(from_broker),
            write(to_broker, up_queue, None, shared.held.subscribe()),
            write(to_client, down_queue, Some(&shared), shared.held.subscribe()),
        )
    };
    tokio::select! {
        // Errors are those of sockets whose peers are gone, which ends the connection all the same.
        _ = both_ways => {}
        _ = generation.changed() => {}
    }
}

/// Something to pass on, and when; nothing is the end.
type Parcel = (Instant, Bytes);

async fn write(
    mut to: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Parcel>,
    counting: Option<&Shared>,
    mut held: watch::Receiver<bool>,
) -> io::Result<()> {
    while let Some((due, bytes)) = queue.recv().await {
        sleep_until(due).await;
        if held.wait_for(|held| !held).await.is_err() || bytes.is_empty() {
            break;
        }
        if let Some(shared) = counting {
            count(&shared.bytes[Direction::Down as usize], bytes.len());
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}

struct Reader {
    direction: Direction,
    random: ChaCha8Rng,
    onward: mpsc::UnboundedSender<Parcel>,
    back: mpsc::UnboundedSender<Parcel>,
    shared: Arc<Shared>,
}

impl Reader {
    async fn run(mut self, from: OwnedReadHalf) -> io::Result<()> {
        let read = self.read(from).await;
        send(&self.onward, self.now(), Bytes::new());
        read
    }

    async fn read(&mut self, mut from: OwnedReadHalf) -> io::Result<()> {
        let mut stream = BytesMut::new();
        let mut tls = None;
        loop {
            let read = from.read_buf(&mut stream).await?;
            if read == 0 {
                return Ok(());
            }
            if self.direction == Direction::Up {
                count(&self.shared.bytes[Direction::Up as usize], read);
            }
            // A TLS record of a handshake begins with 22, which as a packet would be a CONNECT with reserved flags.
            if *tls.get_or_insert(stream[0] == 22) {
                send(&self.onward, self.now(), stream.split().freeze());
                continue;
            }
            while let Some(length) = frame::length(&stream).filter(|length| *length <= stream.len()) {
                let packet = stream.split_to(length);
                self.pass(packet);
            }
        }
    }

    /// When what is read now is to arrive.
    fn now(&self) -> Instant {
        Instant::now() + *lock(&self.shared.latency)
    }

    fn pass(&mut self, mut packet: BytesMut) {
        let now = self.now();
        let Some(publish) = frame::publish(&packet) else {
            return send(&self.onward, now, packet.freeze());
        };
        let shared = self.shared.clone();
        count(&shared.publications, 1);
        let faults = lock(&shared.faults)[self.direction as usize];
        // All drawn for every publication: a fault more or less leaves the others where they are.
        let [dropped, duplicated, corrupted, delayed] = [faults.drop, faults.duplicate, faults.corrupt, faults.delay]
            .map(|chance| self.random.random_bool(chance.clamp(0.0, 1.0)));
        let (place, wait) = (self.random.random::<f64>(), self.random.random::<f64>());
        if dropped {
            count(&shared.dropped, 1);
            if let Some(id) = publish.id {
                send(&self.back, now, frame::puback(id).into());
            }
            return;
        }
        let payload = packet.len() - publish.payload;
        if corrupted && payload > 0 {
            count(&shared.corrupted, 1);
            packet[publish.payload + (place * payload as f64) as usize] ^= 0x55;
        }
        if duplicated {
            count(&shared.duplicated, 1);
            send(&self.onward, now, frame::without_id(&packet, &publish).into());
        }
        match delayed {
            false => send(&self.onward, now, packet.freeze()),
            true => {
                count(&shared.delayed, 1);
                let due = now + faults.longest_delay.mul_f64(wait);
                let onward = self.onward.clone();
                tokio::spawn(async move {
                    sleep_until(due).await;
                    send(&onward, due, packet.freeze());
                });
            }
        }
    }
}

/// A closed queue is that of a connection that has ended.
fn send(queue: &mpsc::UnboundedSender<Parcel>, due: Instant, bytes: Bytes) {
    let _ = queue.send((due, bytes));
}
