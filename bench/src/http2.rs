//! As much of an HTTP/2 client as one gRPC stream needs (RFC 9113), at the cost of a bare socket: so
//! that measuring a shard with a thousand clients does not measure the clients.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
const SPEC_WINDOW: u32 = 65_535;
const OPEN: &str = "/infrachat.chat.v1.ChatService/Open";

/// Frame types (RFC 9113, section 6).
pub(crate) mod kind {
    pub(super) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How much a server may send before it must wait for more to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) stream: u32,
    pub(crate) connection: u32,
}

impl Default for Windows {
    /// Those of InfraChat's client library.
    fn default() -> Self {
        Self {
            stream: 64 * 1024,
            connection: 256 * 1024,
        }
    }
}

/// What came to the end of the connection, if anything did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the server reset the stream (error code {0})")]
    Reset(u32),
    #[error("the server closes the connection (error code {0})")]
    GoAway(u32),
    #[error("the server ended the stream")]
    Stream,
}

/// One connection with one stream, of which only bytes are known.
#[derive(Debug)]
pub(crate) struct Connection {
    windows: Windows,
    /// Of the frame that is being read: its first bytes.
    header: BytesMut,
    /// Of the frame that is being read: type, flags and what is left of it.
    frame: Option<(u8, u8, usize)>,
    /// Of a short frame that is not data.
    payload: BytesMut,
    /// Read and not yet given back.
    taken: u32,
}

/// Any frame (RFC 9113, section 4.1).
pub(crate) fn frame(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.put_uint(u64::from(length), 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
}

fn window_update(out: &mut BytesMut, stream: u32, by: u32) {
    frame(out, kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// A header that is not to be remembered, its name by its place in HPACK's static table (RFC 7541).
fn literal(out: &mut BytesMut, name: u8, value: &str) {
    match name.checked_sub(15) {
        Some(rest) => out.put_slice(&[0x0f, rest]),
        None => out.put_u8(name),
    }
    out.put_u8(u8::try_from(value.len()).unwrap_or(u8::MAX));
    out.put_slice(value.as_bytes());
}

/// Opens a stream for the chat protocol.
pub(crate) fn open(out: &mut BytesMut, stream: u32) {
    let mut block = BytesMut::new();
    // `:method: POST` and `:scheme: http`.
    block.put_slice(&[0x83, 0x86]);
    literal(&mut block, 1, "localhost");
    literal(&mut block, 4, OPEN);
    literal(&mut block, 31, "application/grpc");
    block.put_slice(b"\x00\x02te\x08trailers");
    frame(out, kind::HEADERS, END_HEADERS, stream, &block);
}

/// One gRPC message on a stream.
pub(crate) fn message(out: &mut BytesMut, stream: u32, message: &[u8]) {
    let mut payload = BytesMut::with_capacity(message.len() + 5);
    payload.put_u8(0);
    payload.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    payload.put_slice(message);
    frame(out, kind::DATA, 0, stream, &payload);
}

/// Asks for an answer.
pub(crate) fn ping(out: &mut BytesMut, nonce: u64) {
    frame(out, kind::PING, 0, 0, &nonce.to_be_bytes());
}

impl Connection {
    /// A connection, and what it says first.
    pub(crate) fn new(windows: Windows, out: &mut BytesMut) -> Self {
        out.put_slice(PREFACE);
        let mut settings = BytesMut::new();
        // SETTINGS_ENABLE_PUSH and SETTINGS_INITIAL_WINDOW_SIZE.
        settings.put_u16(2);
        settings.put_u32(0);
        settings.put_u16(4);
        settings.put_u32(windows.stream);
        frame(out, kind::SETTINGS, 0, 0, &settings);
        if let Some(more @ 1..) = windows.connection.checked_sub(SPEC_WINDOW) {
            window_update(out, 0, more);
        }
        Self {
            windows,
            header: BytesMut::with_capacity(HEADER),
            frame: None,
            payload: BytesMut::new(),
            taken: 0,
        }
    }

    /// Takes what came: data goes to `data`, what must be answered to `out`.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        out: &mut BytesMut,
        mut data: impl FnMut(&[u8]),
    ) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let Some((kind, flags, left)) = self.frame else {
                let wanted = HEADER - self.header.len();
                let part = wanted.min(bytes.len());
                self.header.put_slice(&bytes[..part]);
                bytes = &bytes[part..];
                if self.header.len() == HEADER {
                    self.begin();
                    // Frames without a payload are over with their header.
                    self.end_if_over(out)?;
                }
                continue;
            };
            let part = left.min(bytes.len());
            if kind == kind::DATA {
                data(&bytes[..part]);
                self.taken += u32::try_from(part).unwrap_or(u32::MAX);
            } else if kind != kind::HEADERS {
                self.payload.put_slice(&bytes[..part]);
            }
            bytes = &bytes[part..];
            self.frame = Some((kind, flags, left - part));
            self.end_if_over(out)?;
        }
        self.give_back(out);
        Ok(())
    }

    fn begin(&mut self) {
        let mut header = std::mem::take(&mut self.header);
        let length = header.get_uint(3);
        let (kind, flags) = (header.get_u8(), header.get_u8());
        self.frame = Some((kind, flags, usize::try_from(length).unwrap_or(usize::MAX)));
    }

    fn end_if_over(&mut self, out: &mut BytesMut) -> Result<(), Ended> {
        let Some((kind, flags, 0)) = self.frame else {
            return Ok(());
        };
        self.frame = None;
        let payload = self.payload.split();
        let code = |at: usize| payload.get(at..at + 4).map_or(0, |mut code| code.get_u32());
        match kind {
            kind::DATA | kind::HEADERS if flags & END_STREAM != 0 => Err(Ended::Stream),
            kind::SETTINGS if flags & ACK == 0 => {
                frame(out, kind::SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            kind::PING if flags & ACK == 0 => {
                frame(out, kind::PING, ACK, 0, &payload);
                Ok(())
            }
            kind::RST_STREAM => Err(Ended::Reset(code(0))),
            kind::GOAWAY => Err(Ended::GoAway(code(4))),
            _ => Ok(()),
        }
    }

    fn give_back(&mut self, out: &mut BytesMut) {
        if self.taken >= (self.windows.stream / 2).max(1) {
            window_update(out, 0, self.taken);
            window_update(out, 1, self.taken);
            self.taken = 0;
        }
    }
}

/// Puts gRPC messages together again.
#[derive(Debug, Default)]
pub(crate) struct Messages(BytesMut);

impl Messages {
    pub(crate) fn feed(&mut self, data: &[u8]) {
        self.0.put_slice(data);
    }

    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let length = self.0.get(1..5).map(|mut length| length.get_u32())?;
        let end = 5 + usize::try_from(length).unwrap_or(usize::MAX);
        if self.0.len() < end {
            return None;
        }
        let mut message = self.0.split_to(end);
        message.advance(5);
        Some(message.freeze())
    }
}
