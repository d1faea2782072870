//! The floor: whatever one connection says is written to all others, by one thread that does nothing
//! else. What came together is written together.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use anyhow::bail;

/// The first byte of a connection that listens.
pub(super) const SUBSCRIBE: u8 = b'S';
/// The first byte of the connection that speaks.
pub(super) const PUBLISH: u8 = b'P';
/// Answers one that listens.
pub(super) const READY: &str = "ready";

/// Serves one speaker after the other, for ever.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let mut listeners: Vec<TcpStream> = Vec::new();
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut first = [0];
        match stream.read(&mut first)? {
            // Somebody looked whether the port is open.
            0 => {}
            _ if first[0] == SUBSCRIBE => {
                stream.write_all(READY.as_bytes())?;
                listeners.push(stream);
            }
            _ if first[0] == PUBLISH => pass_on(&mut stream, &mut listeners)?,
            _ => bail!("a connection began with byte {}", first[0]),
        }
    }
}

fn pass_on(speaker: &mut TcpStream, listeners: &mut Vec<TcpStream>) -> anyhow::Result<()> {
    let mut said = [0; 64 * 1024];
    loop {
        let length = speaker.read(&mut said)?;
        if length == 0 {
            return Ok(());
        }
        // One that hung up hears no more.
        listeners.retain_mut(|listener| listener.write_all(&said[..length]).is_ok());
    }
}
