//! The way between clients and a shard.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::faulty::Life;

/// Carries connections to a shard as its life allows.
pub(crate) struct Proxy {
    pub(crate) address: String,
    listener: Arc<TcpListener>,
    life: Life,
    /// Rises with every cut of all connections.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn bind(life: Life) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self {
            address: listener.local_addr().expect("an address").to_string(),
            listener: Arc::new(listener),
            life,
            cuts: watch::Sender::new(0),
        }
    }

    pub(crate) fn start(&self, to: SocketAddr) {
        let (listener, life) = (Arc::clone(&self.listener), self.life.clone());
        let cuts = self.cuts.subscribe();
        tokio::spawn(async move {
            let accepting = async {
                while let Ok((from, _)) = listener.accept().await {
                    tokio::spawn(carry(from, to, life.clone(), cuts.clone()));
                }
            };
            tokio::select! {
                () = accepting => {}
                () = life.ended() => {}
            }
        });
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(from: TcpStream, to: SocketAddr, life: Life, mut cuts: watch::Receiver<u64>) {
    cuts.mark_unchanged();
    let Ok(to) = TcpStream::connect(to).await else {
        return;
    };
    from.set_nodelay(true).expect("set");
    to.set_nodelay(true).expect("set");
    let ((from_client, to_client), (from_shard, to_shard)) = (from.into_split(), to.into_split());
    tokio::select! {
        () = copy(from_client, to_shard, &life) => {}
        () = copy(from_shard, to_client, &life) => {}
        () = life.ended() => {}
        // The sender lives as long as the shard.
        _ = cuts.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, life: &Life) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        life.pass().await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
