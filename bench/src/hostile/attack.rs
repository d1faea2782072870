//! What hostile clients do. They run on a thread of their own, so that what they cost this process is
//! not in the others' way.

use std::{
    cell::Cell,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::{JoinSet, LocalSet},
};

use crate::{
    http2::{self, Windows, kind},
    target::{Session, Shard, Subscriber},
};

/// Frames that are written at once.
const BLOCK: u32 = 500;
/// Of RFC 9113, section 7.
const CANCEL: u32 = 8;
/// The longest text that a shard takes.
const LONGEST: usize = 16 * 1024;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Attack {
    /// Nobody attacks.
    None,
    /// Messages as long as they may be, as fast as they are taken.
    LongMessages,
    /// Joins, of more channels than a session may have.
    Joins,
    /// Frames that are answered and ask for nothing.
    Heartbeats,
    /// A window of one byte, opened again for each.
    TinyWindows,
    /// What was sent is read byte by byte.
    SingleBytes,
    /// HTTP/2's PING, and nothing that is answered is read.
    Pings,
    /// The same, and the answers are read.
    PingsRead,
    /// SETTINGS, and the answers are read.
    Settings,
    /// Streams that are opened and reset.
    RapidReset,
    /// A header that goes on and on.
    EndlessHeader,
}

impl Attack {
    pub(super) const ALL: [Self; 11] = [
        Self::None,
        Self::LongMessages,
        Self::Joins,
        Self::Heartbeats,
        Self::TinyWindows,
        Self::SingleBytes,
        Self::Pings,
        Self::PingsRead,
        Self::Settings,
        Self::RapidReset,
        Self::EndlessHeader,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LongMessages => "messages of 16 KB",
            Self::Joins => "joins",
            Self::Heartbeats => "frames of a session",
            Self::TinyWindows => "windows of one byte",
            Self::SingleBytes => "reading single bytes",
            Self::Pings => "PING",
            Self::PingsRead => "PING, answers read",
            Self::Settings => "SETTINGS, answers read",
            Self::RapidReset => "rapid reset",
            Self::EndlessHeader => "a header without end",
        }
    }
}

/// Where it is done, and by whom.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The channel in which others talk.
    pub(super) others: Shard,
    /// One of the same shard, for the attackers alone.
    pub(super) own: Shard,
    /// Channels that are there to be joined.
    pub(super) channels: usize,
    pub(super) token: String,
}

/// Name of one of the channels that are there to be joined.
pub(super) fn channel_name(number: usize) -> String {
    format!("#hostile-{number}")
}

/// Attackers at work, until this is dropped.
#[derive(Debug)]
pub(super) struct Attackers {
    ended: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Attackers {
    /// So many, each of which connects again when it is cut off.
    pub(super) fn start(attack: Attack, place: Place, count: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let ended = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let mut all = JoinSet::new();
                for _ in 0..count {
                    all.spawn_local(again_and_again(attack, place.clone(), Arc::clone(&counted)));
                }
                tokio::select! {
                    Some(failed) = all.join_next() => match failed?? {},
                    _ = stopped => Ok(()),
                }
            })
        });
        Ok(Self {
            ended,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Ends it; answers how many connections the server has ended.
    pub(super) fn stop(mut self) -> anyhow::Result<u64> {
        // It may have failed, which the thread tells.
        drop(self.stop.take());
        let thread = self.thread.take().context("runs once")?;
        match thread.join() {
            Ok(result) => result.context("an attack did not work")?,
            Err(_) => bail!("an attack panicked"),
        }
        Ok(self.ended.load(Ordering::Relaxed))
    }
}

async fn again_and_again(
    attack: Attack,
    place: Place,
    ended: Arc<AtomicU64>,
) -> anyhow::Result<Infallible> {
    loop {
        once(attack, &place).await?;
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Attacks until the server ends the connection. Fails when it can't even begin.
async fn once(attack: Attack, place: &Place) -> anyhow::Result<()> {
    match attack {
        Attack::None => std::future::pending().await,
        Attack::LongMessages => {
            let text = "x".repeat(LONGEST);
            in_session(place, async |session| {
                session.say(&place.own.channel, &text).await
            })
            .await
        }
        Attack::Joins => {
            let next = Cell::new(0);
            in_session(place, async |session| {
                let channel = channel_name(next.replace(next.get() + 1) % place.channels);
                let join = chat::Join {
                    channel,
                    ..Default::default()
                };
                session.send(Frame::Join(join)).await
            })
            .await
        }
        Attack::Heartbeats => {
            in_session(place, async |session| {
                session.send(Frame::Ping(chat::Ping { nonce: 0 })).await
            })
            .await
        }
        Attack::TinyWindows => {
            let mut shard = place.others.clone();
            shard.windows = Windows {
                stream: 1,
                connection: 65_535,
            };
            read(shard.subscribe(&place.token).await?, 16 * 1024).await;
            Ok(())
        }
        Attack::SingleBytes => {
            read(place.others.subscribe(&place.token).await?, 1).await;
            Ok(())
        }
        Attack::Pings => flood(place, false, |out, _| http2::ping(out, 0)).await,
        Attack::PingsRead => flood(place, true, |out, _| http2::ping(out, 0)).await,
        Attack::Settings => {
            let settings = |out: &mut _, _| http2::frame(out, kind::SETTINGS, 0, 0, &[]);
            flood(place, true, settings).await
        }
        Attack::RapidReset => {
            let reset = |out: &mut _, round| {
                let stream = 2 * round + 1;
                http2::open(out, stream);
                http2::frame(out, kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            };
            flood(place, true, reset).await
        }
        Attack::EndlessHeader => {
            let header = |out: &mut _, round| match round {
                // `:method: POST`, and then again and again `a: a`.
                0 => http2::frame(out, kind::HEADERS, 0, 1, &[0x83]),
                _ => http2::frame(out, kind::CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'a']),
            };
            flood(place, true, header).await
        }
    }
}

/// A session that does something again and again, until it is ended.
async fn in_session(
    place: &Place,
    mut again: impl AsyncFnMut(&Session) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let session = Session::open(&place.own, &place.token).await?;
    while again(&session).await.is_ok() {}
    Ok(())
}

/// Reads to the end, at most so many bytes at once.
async fn read(subscriber: Subscriber, most: usize) {
    let Subscriber {
        mut stream,
        mut wire,
    } = subscriber;
    let (mut bytes, mut out) = (vec![0; most], BytesMut::new());
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        let fed = wire.feed(&bytes[..read], &mut out, |_| {});
        if fed.is_err() || stream.write_all(&out.split()).await.is_err() {
            return;
        }
    }
}

/// Frames of HTTP/2 without end, on a connection of their own. Its end is what is waited for.
async fn flood(
    place: &Place,
    reads: bool,
    next: impl Fn(&mut BytesMut, u32),
) -> anyhow::Result<()> {
    let (mut answers, mut says) = place.others.connect().await?.into_split();
    let saying = async {
        let mut out = BytesMut::from(http2::PREFACE);
        http2::frame(&mut out, kind::SETTINGS, 0, 0, &[]);
        for block in 0.. {
            (0..BLOCK).for_each(|round| next(&mut out, block * BLOCK + round));
            if says.write_all(&out.split()).await.is_err() {
                return;
            }
        }
    };
    let hearing = async {
        let mut bytes = vec![0; 16 * 1024];
        while reads && matches!(answers.read(&mut bytes).await, Ok(1..)) {}
        if !reads {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = saying => {}
        () = hearing => {}
    }
    Ok(())
}
