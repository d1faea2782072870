//! Servers that speak a line protocol: Redis, NATS, and the bare TCP loop.

use std::{io::ErrorKind, process::Command};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Publisher, Subscriber, Target, Wire, raw};
use crate::process::{self, Server};

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(super) server: Server,
    target: Target,
    port: u16,
}

impl Broker {
    pub(super) async fn start(target: Target) -> anyhow::Result<Self> {
        let port = process::free_port()?;
        let number = port.to_string();
        let mut command = match target {
            Target::Redis => {
                let mut command = Command::new("redis-server");
                // Nothing is written to disk, and nobody is cut off for reading slowly in a flood.
                command.args(["--port", &number, "--save", "", "--bind", "127.0.0.1"]);
                command.args(["--maxclients", "15000"]);
                command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
                command
            }
            Target::Nats => {
                let mut command = Command::new("nats-server");
                command.args(["--addr", "127.0.0.1", "--port", &number]);
                command
            }
            Target::Raw => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["raw-server", "--port", &number]);
                command
            }
            Target::Infrachat => bail!("InfraChat is no broker"),
        };
        command.stderr(std::process::Stdio::null());
        let server = Server::start(&mut command, port).await?;
        Ok(Self {
            server,
            target,
            port,
        })
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(super) async fn subscribe(&self, count: usize) -> anyhow::Result<Vec<Subscriber>> {
        let mut subscribers = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = self.connect().await?;
            match self.target {
                Target::Redis => {
                    stream
                        .write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\nbench\r\n")
                        .await?;
                    wait_for(&mut stream, ":1\r\n").await?;
                }
                Target::Nats => {
                    let hello =
                        "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB bench 1\r\nPING\r\n";
                    stream.write_all(hello.as_bytes()).await?;
                    wait_for(&mut stream, "PONG\r\n").await?;
                }
                _ => {
                    stream.write_all(&[raw::SUBSCRIBE]).await?;
                    wait_for(&mut stream, raw::READY).await?;
                }
            }
            let wire = Wire::Plain;
            subscribers.push(Subscriber { stream, wire });
        }
        Ok(subscribers)
    }

    pub(super) async fn publisher(&self) -> anyhow::Result<Publisher> {
        let mut stream = self.connect().await?;
        Ok(match self.target {
            Target::Redis => Publisher::Redis(stream),
            Target::Nats => {
                let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n";
                stream.write_all(hello.as_bytes()).await?;
                wait_for(&mut stream, "PONG\r\n").await?;
                Publisher::Nats(stream)
            }
            _ => {
                stream.write_all(&[raw::PUBLISH]).await?;
                Publisher::Raw(stream)
            }
        })
    }
}

async fn wait_for(stream: &mut TcpStream, end: &str) -> anyhow::Result<()> {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        let read = stream.read_buf(&mut heard).await?;
        if read == 0 {
            bail!(
                "the server hung up after {:?}",
                String::from_utf8_lossy(&heard)
            );
        }
    }
    Ok(())
}

/// Reads what the server answered so far, and forgets it.
pub(super) fn skip_answers(stream: &TcpStream) -> anyhow::Result<()> {
    let mut answers = [0; 4096];
    loop {
        match stream.try_read(&mut answers) {
            Ok(0) => bail!("the server hung up on the publisher"),
            Ok(_) => {}
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(err) => return Err(err).context("reading the server's answers"),
        }
    }
}
