//! Connections of a listening port, counted.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use metrics::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::pacing::Pacing;

/// The metric.
pub(crate) const CONNECTIONS: &str = "infrachat_connections";

/// What carries a connection.
#[derive(Debug)]
pub(crate) enum Carrier {
    Tcp(TcpStream),
    /// From within this process.
    Local(DuplexStream),
}

/// Bytes that are written as one piece.
const SMALL: usize = 1024;

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    carrier: Carrier,
    open: Gauge,
    pacing: Pacing,
    /// Until when nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(crate) fn new(carrier: Carrier, open: Gauge) -> Self {
        open.increment(1);
        Self {
            carrier,
            open,
            pacing: Pacing::new(),
            pause: None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.decrement(1);
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.connect_info(),
            Carrier::Local(_) => TcpConnectInfo {
                local_addr: None,
                remote_addr: None,
            },
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            std::task::ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let before = buffer.filled().len();
        std::task::ready!(match &mut this.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Carrier::Local(stream) => Pin::new(stream).poll_read(context, buffer),
        })?;
        let read = this.pacing.read(&buffer.filled()[before..]);
        this.pause = read.map(|pause| Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Carrier::Local(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Carrier::Local(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Carrier::Local(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length <= SMALL {
            // Copying so little costs less than having the kernel gather it.
            let mut small = [0; SMALL];
            let mut end = 0;
            for slice in slices {
                small[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            return self.poll_write(context, &small[..end]);
        }
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Carrier::Local(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            Carrier::Local(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_pings_is_read_slowly_and_in_whole() {
        const PINGS: usize = 50_000;
        let ping = [[0, 0, 8, 6, 0, 0, 0, 0, 0].as_slice(), &[0; 8]].concat();
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(ping.repeat(PINGS));
        let (mut client, server) = tokio::io::duplex(4_096);
        let mut connection = Connection::new(Carrier::Local(server), Gauge::noop());
        let began = Instant::now();
        let sending = async {
            client.write_all(&sent).await.expect("is read");
            client.shutdown().await.expect("closes");
        };
        let mut read = Vec::new();
        let (heard, ()) = tokio::join!(connection.read_to_end(&mut read), sending);
        heard.expect("reads");
        assert_eq!(read, sent);
        assert!(began.elapsed() > Duration::from_secs(7));
    }
}
