//! Servers that pass one message on to many: what each is, how it is started and spoken to.

mod brokers;
mod infrachat;
pub(crate) mod raw;

use bytes::BytesMut;
use clap::ValueEnum;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

pub(crate) use self::infrachat::{Answers, CHANNEL, Infrachat, Region, Session, Shard, hello};
use crate::{http2, process::Server};

/// A server to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// A loop that writes what it reads to everybody: the least that a message can cost.
    Raw,
    /// Redis, by PUBLISH and SUBSCRIBE.
    Redis,
    /// NATS, its core protocol.
    Nats,
    /// InfraChat: whole shards of two regions, authenticated sessions, presence, history.
    Infrachat,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Raw => "raw TCP",
            Self::Redis => "Redis",
            Self::Nats => "nats-server",
            Self::Infrachat => "InfraChat",
        })
    }
}

/// A server that runs, with a channel to be measured.
#[derive(Debug)]
pub(crate) enum Running {
    Broker(brokers::Broker),
    Infrachat(Box<Infrachat>),
}

impl Running {
    pub(crate) async fn start(target: Target) -> anyhow::Result<Self> {
        Ok(match target {
            Target::Infrachat => Self::Infrachat(Box::new(Infrachat::start().await?)),
            broker => Self::Broker(brokers::Broker::start(broker).await?),
        })
    }

    pub(crate) fn server(&self) -> &Server {
        match self {
            Self::Broker(broker) => &broker.server,
            Self::Infrachat(infrachat) => &infrachat.server,
        }
    }

    /// Connections that get every message, ready when this returns.
    pub(crate) async fn subscribe(&mut self, count: usize) -> anyhow::Result<Vec<Subscriber>> {
        match self {
            Self::Broker(broker) => broker.subscribe(count).await,
            Self::Infrachat(infrachat) => infrachat.subscribe(count).await,
        }
    }

    /// A connection to say something on.
    pub(crate) async fn publisher(&mut self) -> anyhow::Result<Publisher> {
        match self {
            Self::Broker(broker) => broker.publisher().await,
            Self::Infrachat(infrachat) => infrachat.publisher().await,
        }
    }
}

/// A connection that gets every message.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) stream: TcpStream,
    pub(crate) wire: Wire,
}

/// How what a subscriber gets is framed.
#[derive(Debug)]
pub(crate) enum Wire {
    /// The messages are in the stream as they are.
    Plain,
    Http2(Box<http2::Connection>),
}

impl Wire {
    /// Takes what came: messages go to `data`, what must be answered to `out`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut BytesMut,
        mut data: impl FnMut(&[u8]),
    ) -> Result<(), http2::Ended> {
        match self {
            Self::Plain => data(bytes),
            Self::Http2(connection) => return connection.feed(bytes, out, data),
        }
        Ok(())
    }
}

/// A connection to say something on.
#[derive(Debug)]
pub(crate) enum Publisher {
    Raw(TcpStream),
    Redis(TcpStream),
    Nats(TcpStream),
    Infrachat(Session),
}

impl Publisher {
    /// Says something; what the server answers is read elsewhere.
    pub(crate) async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Raw(stream) => stream.write_all(text.as_bytes()).await?,
            Self::Redis(stream) => {
                let command = format!(
                    "*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n${}\r\n{text}\r\n",
                    text.len()
                );
                stream.write_all(command.as_bytes()).await?;
                brokers::skip_answers(stream)?;
            }
            Self::Nats(stream) => {
                let command = format!("PUB bench {}\r\n{text}\r\n", text.len());
                stream.write_all(command.as_bytes()).await?;
                brokers::skip_answers(stream)?;
            }
            Self::Infrachat(session) => session.say(CHANNEL, text).await?,
        }
        Ok(())
    }
}
