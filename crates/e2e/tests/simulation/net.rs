//! The network between clients and services: all of it within this process, so that what arrives first is
//! no chance of the kernel's.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use infrachat_client::Network;
use infrachat_runtime::Listener;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{dice::Dice, life::Life, trace::Trace};

/// What a connection holds that nobody has read.
const BUFFER: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// A chunk takes less than that.
const SLOWEST: Duration = Duration::from_millis(4);

/// All ports.
#[derive(Clone)]
pub(crate) struct Net(Arc<Inner>);

struct Inner {
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    ports: BTreeMap<String, Port>,
    connections: u64,
}

/// One that somebody listens on, as long as it lives.
#[derive(Clone)]
struct Port {
    life: Life,
    accepting: mpsc::Sender<DuplexStream>,
    /// Rises with every cut of all connections.
    cuts: watch::Sender<u64>,
}

/// Breaks a port's connections.
pub(crate) struct Cutter(watch::Sender<u64>);

impl Cutter {
    pub(crate) fn cut(&self) {
        self.0.send_modify(|cuts| *cuts += 1);
    }
}

impl Net {
    pub(crate) fn new(dice: Dice, trace: Arc<Trace>) -> Self {
        let state = Mutex::new(State {
            dice,
            ports: BTreeMap::new(),
            connections: 0,
        });
        Self(Arc::new(Inner { trace, state }))
    }

    /// A port of its own for a life; it carries what the life lets through.
    pub(crate) fn listen(&self, life: &Life) -> (Listener, Cutter) {
        let (accepting, connections) = mpsc::channel(BACKLOG);
        let cutter = Cutter(watch::Sender::new(0));
        let mut state = self.0.state.lock().expect("whole");
        let number = u16::try_from(state.ports.len()).expect("few");
        let address = SocketAddr::from(([10, 0, 0, 1], 10_000 + number));
        let port = Port {
            life: life.clone(),
            accepting,
            cuts: cutter.0.clone(),
        };
        state.ports.insert(address.to_string(), port);
        (Listener::local(address, connections), cutter)
    }

    /// As clients use it.
    pub(crate) fn for_clients(&self) -> Network {
        let net = self.clone();
        Network::local(move |to| {
            let net = net.clone();
            Box::pin(async move { net.dial(&to).await })
        })
    }

    async fn dial(&self, to: &str) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (port, number, latency) = {
            let mut state = self.0.state.lock().expect("whole");
            let port = state.ports.get(to).cloned().ok_or_else(refused)?;
            state.connections += 1;
            let latency = state.dice.within(Duration::ZERO, SLOWEST);
            (port, state.connections, latency)
        };
        self.0.trace.note(format_args!("{number} dials {to}"));
        if port.life.is_over() {
            return Err(refused());
        }
        let (client, from) = duplex(BUFFER);
        let (into, server) = duplex(BUFFER);
        let accepted = port.accepting.send(server).await;
        accepted.map_err(|_| refused())?;
        let trace = Arc::clone(&self.0.trace);
        tokio::spawn(carry((from, into), port, latency, number, trace));
        Ok(client)
    }
}

async fn carry(
    (from, into): (DuplexStream, DuplexStream),
    port: Port,
    latency: Duration,
    number: u64,
    trace: Arc<Trace>,
) {
    let mut cuts = port.cuts.subscribe();
    let ((from_client, to_client), (from_shard, to_shard)) = (split(from), split(into));
    let road = (&port.life, latency);
    tokio::select! {
        () = copy(from_client, to_shard, road, |size| trace.note(format_args!("{number} > {size}"))) => {}
        () = copy(from_shard, to_client, road, |size| trace.note(format_args!("{number} < {size}"))) => {}
        () = port.life.ended() => {}
        _ = cuts.changed() => {}
    }
    trace.note(format_args!("{number} ends"));
}

async fn copy(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    (life, latency): (&Life, Duration),
    note: impl Fn(usize),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        sleep(latency).await;
        life.pass().await;
        note(read);
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
