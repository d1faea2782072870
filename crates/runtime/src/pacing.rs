//! Frames of HTTP/2 that cost their sender next to nothing, read no faster than a client has use for.
//!
//! Each PING and each SETTINGS has to be answered. Who sends them without end is read more slowly, and so
//! costs no more than others; nothing is refused, since clients that estimate their bandwidth send a PING
//! for each round trip, thousands a second on a short way.

use std::time::Duration;

use tokio::time::Instant;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header (section 4.1).
const HEADER: u8 = 9;
/// Types of frames (section 6) that are part of what is asked and answered: a request pays for them, or what
/// was sent to the client does.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Others that a connection may send in a second, and at once.
const A_SECOND: u32 = 5_000;

/// The frames that come on a connection, followed by their headers.
#[derive(Debug)]
pub(crate) struct Pacing {
    /// Bytes of the preface that came; none: it is no connection of HTTP/2.
    preface: Option<u8>,
    /// Bytes of a frame's content that are not looked at.
    skipped: u32,
    /// Of the header that is being read, how many bytes came, the length that they say, and the type.
    header: u8,
    length: u32,
    kind: u8,
    /// Frames that may still come.
    left: u32,
    /// Since when they are counted.
    since: Instant,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self {
            preface: Some(0),
            skipped: 0,
            header: 0,
            length: 0,
            kind: 0,
            left: A_SECOND,
            since: Instant::now(),
        }
    }

    /// Takes note of what came; answers how long nothing more is to be read.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Duration> {
        let frames = self.frames(bytes);
        if frames == 0 {
            return None;
        }
        if let Some(left) = self.left.checked_sub(frames) {
            self.left = left;
            return None;
        }
        // What was too much is paid for in time.
        let owed = frames - self.left;
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.since);
        let earned = (passed.as_secs_f64() * f64::from(A_SECOND)).min(f64::from(A_SECOND));
        let balance = earned - f64::from(owed);
        self.left = balance.max(0.0) as u32;
        let pause = Duration::from_secs_f64((-balance).max(0.0) / f64::from(A_SECOND));
        self.since = now + pause;
        (!pause.is_zero()).then_some(pause)
    }

    /// How many frames that have to be answered begin in what came.
    fn frames(&mut self, bytes: &[u8]) -> u32 {
        let (mut at, mut frames) = (0, 0);
        while at < bytes.len() {
            let Some(preface) = self.preface else {
                return 0;
            };
            if let Some(expected) = PREFACE.get(usize::from(preface)) {
                self.preface = (bytes[at] == *expected).then_some(preface + 1);
                at += 1;
                continue;
            }
            if self.skipped > 0 {
                let skipped = bytes.len().min(at + self.skipped as usize) - at;
                self.skipped -= u32::try_from(skipped).unwrap_or(self.skipped);
                at += skipped;
                continue;
            }
            match self.header {
                0..3 => self.length = self.length << 8 | u32::from(bytes[at]),
                3 => self.kind = bytes[at],
                _ => {}
            }
            at += 1;
            self.header += 1;
            if self.header == HEADER {
                let paid = matches!(
                    self.kind,
                    DATA | HEADERS | RST_STREAM | WINDOW_UPDATE | CONTINUATION
                );
                frames += u32::from(!paid);
                self.skipped = self.length;
                (self.header, self.length) = (0, 0);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: usize) -> Vec<u8> {
        let length = u32::try_from(content).expect("short").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(usize::from(HEADER) + content, 7);
        frame
    }

    const PING: u8 = 6;

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for kind in [4, HEADERS, DATA, PING, WINDOW_UPDATE, PING, 200] {
            bytes.extend(frame(kind, if kind == DATA { 70_000 } else { 8 }));
        }
        for size in [1, 2, 7, 9, 1_000, bytes.len()] {
            let mut pacing = Pacing::new();
            let frames: u32 = bytes.chunks(size).map(|part| pacing.frames(part)).sum();
            assert_eq!(frames, 4, "in pieces of {size}");
        }
    }

    #[test]
    fn requests_of_http_1_are_let_alone() {
        let mut pacing = Pacing::new();
        assert_eq!(pacing.frames(b"PR"), 0);
        assert_eq!(pacing.frames(&[0; 100_000]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_as_fast_as_it_may_come_and_not_faster() {
        let mut pacing = Pacing::new();
        assert_eq!(pacing.read(PREFACE), None);
        let began = Instant::now();
        let block = frame(PING, 8).repeat(500);
        for _ in 0..100 {
            if let Some(pause) = pacing.read(&block) {
                tokio::time::sleep(pause).await;
            }
        }
        let seconds = 100.0 * 500.0 / f64::from(A_SECOND) - 1.0;
        let took = began.elapsed().as_secs_f64();
        assert!((seconds - 0.1..seconds + 0.2).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_as_much_as_it_may_never_waits() {
        let mut pacing = Pacing::new();
        assert_eq!(pacing.read(PREFACE), None);
        let block = frame(PING, 8).repeat(50);
        for _ in 0..1_000 {
            assert_eq!(pacing.read(&block), None);
            tokio::time::sleep(Duration::from_millis(11)).await;
        }
        // Nor who sends requests.
        let requests = [frame(HEADERS, 100), frame(DATA, 200)].concat();
        for _ in 0..100_000 {
            assert_eq!(pacing.read(&requests), None);
        }
    }
}
