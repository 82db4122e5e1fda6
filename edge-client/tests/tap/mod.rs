//! Everything a device writes to its broker's socket, packet by packet.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use fedtt_link::BrokerUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An MQTT 3.1.1 packet.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect {
        will: Said,
    },
    Publish(Said),
    /// Subscribing and unsubscribing: the filters.
    Filters(Vec<u8>),
    /// Acknowledgements, pings and taking leave: they hold numbers alone.
    Bare,
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// Between clients and a broker.
pub(crate) struct Tap {
    address: SocketAddr,
    /// What was written, connection by connection.
    written: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    pub(crate) async fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let written: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let noted = written.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = noted.lock().unwrap().len();
                noted.lock().unwrap().push(Vec::new());
                tokio::spawn(carry(client, broker, noted.clone(), number));
            }
        });
        Tap { address, written }
    }

    pub(crate) fn url(&self) -> BrokerUrl {
        BrokerUrl::tcp(self.address)
    }

    /// All that was written so far; there is nothing else on any connection.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let written = self.written.lock().unwrap();
        written.iter().flat_map(|stream| packets(stream)).collect()
    }
}

async fn carry(client: TcpStream, broker: SocketAddr, written: Arc<Mutex<Vec<Vec<u8>>>>, number: usize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = TcpStream::connect(broker).await.unwrap().into_split();
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            written.lock().unwrap()[number].extend(&buffer[..read]);
            if to_broker.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_broker.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_broker, &mut to_client).await;
    };
    tokio::join!(up, down);
}

fn packets(mut stream: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while let Some(&first) = stream.first() {
        let (mut length, mut shift, mut at) = (0, 0, 1);
        loop {
            length |= usize::from(stream[at] & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if stream[at - 1] & 0x80 == 0 {
                break;
            }
        }
        packets.push(packet(first, &stream[at..at + length]));
        stream = &stream[at + length..];
    }
    packets
}

fn packet(first: u8, body: &[u8]) -> Packet {
    match first >> 4 {
        1 => {
            assert_eq!((&body[..6], body[7] & 0xc4), (b"\0\x04MQTT".as_slice(), 4), "a will, no user, no password");
            let (_client, rest) = field(&body[10..]);
            let (topic, rest) = field(rest);
            let (payload, rest) = field(rest);
            assert!(rest.is_empty());
            Packet::Connect { will: Said { topic: text(topic), payload: payload.to_vec() } }
        }
        3 => {
            let (topic, rest) = field(body);
            let payload = if first & 0b110 == 0 { rest } else { &rest[2..] };
            Packet::Publish(Said { topic: text(topic), payload: payload.to_vec() })
        }
        8 | 10 => Packet::Filters(body.to_vec()),
        4 | 12 | 14 => {
            assert!(body.len() <= 2);
            Packet::Bare
        }
        kind => panic!("a device sends no packet of kind {kind}"),
    }
}

/// Bytes behind their length, and what follows.
fn field(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes[2..].split_at(length)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
