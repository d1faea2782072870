//! A way to a server that can be cut while the server lives on.

use std::{io, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes connections on, unless it is cut.
#[derive(Debug)]
pub(crate) struct Way {
    /// Like the server's own.
    pub(crate) url: String,
    cut: Arc<watch::Sender<bool>>,
}

impl Way {
    pub(crate) async fn to(url: &str) -> io::Result<Self> {
        let server = url.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("redis://{}", listener.local_addr()?);
        let cut = Arc::new(watch::Sender::new(false));
        let seen = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), seen.subscribe()));
            }
        });
        Ok(Self { url, cut })
    }

    /// Ends every connection, and new ones at once; or no longer.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn pass(mut client: TcpStream, server: String, mut cut: watch::Receiver<bool>) {
    let passing = async {
        let mut server = TcpStream::connect(server).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|cut| *cut) => {}
        // Whoever ended it, both sides have seen it.
        _ = passing => {}
    }
}
