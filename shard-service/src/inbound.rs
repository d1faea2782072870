//! What a client's stream brings: the frames of gRPC's framing, one after the other.
//!
//! tonic's reader keeps a buffer for as long as the stream lives, which most of the time is idle, and
//! its messages are parts of that buffer: a short text would keep all of it in the log. Here each frame
//! is memory of its own, and between frames nothing is kept.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tonic::body::Body;

/// One byte that says whether the frame is compressed, and its length in four.
const PREFIX: usize = 5;

/// A stream's frames.
#[derive(Debug)]
pub(crate) struct Inbound {
    body: Body,
    /// Came, and was not given out yet.
    pending: BytesMut,
    longest: usize,
}

/// Why no more frames come.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The client broke the rules, which it can be told.
    #[error("{0}")]
    Bad(String),
    /// The stream broke off.
    #[error("the stream broke off")]
    Lost,
}

impl Inbound {
    /// Frames of at most so many bytes.
    pub(crate) fn new(body: Body, longest: usize) -> Self {
        Self {
            body,
            pending: BytesMut::new(),
            longest,
        }
    }

    /// The next frame; none at the end. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn message(&mut self) -> Result<Option<Bytes>, Unreadable> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                // So a client cancels its call.
                Some(Err(status)) if status.code() == tonic::Code::Cancelled => return Ok(None),
                Some(Err(_)) => return Err(Unreadable::Lost),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(Unreadable::Lost),
            };
            match frame.into_data() {
                Ok(data) => self.pending.extend_from_slice(&data),
                // Trailers, which end a stream.
                Err(_) => return Ok(None),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let Some((prefix, rest)) = self.pending.split_at_checked(PREFIX) else {
            return Ok(None);
        };
        if prefix[0] != 0 {
            let text = "a frame is marked as compressed, and no encoding was agreed on";
            return Err(Unreadable::Bad(text.to_owned()));
        }
        let length = (&prefix[1..]).get_u32() as usize;
        if length > self.longest {
            return Err(Unreadable::Bad(format!(
                "a frame of {length} bytes is too long: at most {} are taken",
                self.longest
            )));
        }
        let Some(message) = rest.get(..length).map(Bytes::copy_from_slice) else {
            return Ok(None);
        };
        self.pending.advance(PREFIX + length);
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::Status;

    use super::*;

    const LONGEST: usize = 100;

    fn inbound(parts: Vec<Result<&'static [u8], Status>>) -> Inbound {
        let frames = parts
            .into_iter()
            .map(|part| part.map(|data| Frame::data(Bytes::from_static(data))));
        Inbound::new(Body::new(StreamBody::new(stream::iter(frames))), LONGEST)
    }

    async fn all(inbound: &mut Inbound) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while let Some(message) = inbound.message().await.expect("is in order") {
            messages.push(message);
        }
        messages
    }

    #[tokio::test]
    async fn frames_come_out_whole_however_they_were_cut() {
        const SENT: &[u8] = b"\0\0\0\0\x03one\0\0\0\0\0\0\0\0\0\x05three";
        for cut in 1..=SENT.len() {
            let parts = SENT.chunks(cut).map(Ok).collect();
            let messages = all(&mut inbound(parts)).await;
            assert_eq!(messages, ["one", "", "three"], "cut into {cut}");
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_between_frames() {
        // Coming in pieces, it grows beyond what the frame needs.
        let pieces = b"\0\0\0\0\x04four".chunks(1).map(Ok).collect();
        let mut inbound = inbound(pieces);
        inbound.message().await.expect("is in order");
        assert_eq!(inbound.pending.capacity(), 0);
    }

    #[tokio::test]
    async fn who_breaks_the_rules_hears_which() {
        for (sent, told) in [
            (&b"\0\0\0\0\x65"[..], "101 bytes is too long: at most 100"),
            (b"\x01\0\0\0\x01x", "compressed"),
        ] {
            let Err(Unreadable::Bad(text)) = inbound(vec![Ok(sent)]).message().await else {
                panic!("{told}");
            };
            assert!(text.contains(told), "{text}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_broke_off() {
        let mut cut = inbound(vec![Ok(b"\0\0\0\0\x03on")]);
        assert_eq!(cut.message().await, Err(Unreadable::Lost));
        let mut lost = inbound(vec![Err(Status::internal("gone"))]);
        assert_eq!(lost.message().await, Err(Unreadable::Lost));
        let mut cancelled = inbound(vec![Err(Status::cancelled("enough"))]);
        assert_eq!(cancelled.message().await, Ok(None));
    }
}
