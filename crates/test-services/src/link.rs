//! A network link that can be cut, slow, or unreliable: a TCP proxy between a client and a server.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::Instant,
};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may be on their way at once.
const ON_THE_WAY: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct State {
    cut: bool,
    delay: Duration,
    /// Counts the breaks: connections of an older count end.
    breaks: u64,
}

/// A link to a server. Clients connect to [`Link::address`] instead of the server's own. It ends when
/// this is dropped.
#[derive(Debug)]
pub struct Link {
    /// Where it listens, `127.0.0.1:<port>`.
    pub address: String,
    state: watch::Sender<State>,
}

impl Link {
    /// To the server at `host:port`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(server: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address: SocketAddr = listener.local_addr()?;
        let state = watch::Sender::new(State {
            cut: false,
            delay: Duration::ZERO,
            breaks: 0,
        });
        tokio::spawn(accept(listener, server.to_owned(), state.subscribe()));
        Ok(Self {
            address: address.to_string(),
            state,
        })
    }

    /// Cuts it, open connections included; or mends it.
    pub fn set_cut(&self, cut: bool) {
        self.state.send_modify(|state| {
            state.cut = cut;
            state.breaks += 1;
        });
    }

    /// How long everything takes, each way.
    pub fn set_delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Breaks the open connections, with whatever is on its way. New ones can be made at once.
    pub fn break_connections(&self) {
        self.state.send_modify(|state| state.breaks += 1);
    }
}

/// Ends with the link.
async fn accept(listener: TcpListener, server: String, mut state: watch::Receiver<State>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(carry(client, server.clone(), state.clone()));
                }
            }
            changed = state.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

async fn carry(client: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let began = *state.borrow_and_update();
    if began.cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    // An error only makes the link a little slower.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let delays = state.clone();
    let broken = state.wait_for(|state| state.breaks != began.breaks);
    tokio::select! {
        _ = broken => {}
        ((), ()) = async { tokio::join!(
            pass(from_client, to_server, delays.clone()),
            pass(from_server, to_client, delays),
        ) } => {}
    }
}

/// One way, in order, until either side ends it.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: watch::Receiver<State>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + state.borrow().delay;
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side has gone, or goes: there is nobody to tell.
        drop(to.shutdown().await);
    };
    tokio::join!(reading, writing);
}
