//! Clients that use the transport against the server: nobody else notices, and what they cost is bounded.
#![allow(clippy::expect_used)]

use std::time::Duration;

use infrachat_e2e::{RawSession, Room};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::transport::Endpoint;

/// More than every buffer between a client and what serves it holds.
const FLOOD: usize = 64 * 1024 * 1024;
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that others say meanwhile.
const MESSAGES: usize = 20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Opens a chat stream: literals without indexing (RFC 7541, section 6.2.2).
fn open(stream: u32) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x01, 1, b'x'];
    let path = b"/infrachat.chat.v1.ChatService/Open";
    block.extend([0x04, u8::try_from(path.len()).expect("short")]);
    block.extend(path);
    let kind = b"application/grpc";
    block.extend([0x0f, 0x10, u8::try_from(kind.len()).expect("short")]);
    block.extend(kind);
    let end_headers = 4;
    frame(1, end_headers, stream, &block)
}

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Sends this again and again, and reads nothing until the server has ended the connection; answers the
/// code that it says (RFC 9113, section 7).
async fn flood(stream: &mut TcpStream, next: impl Fn(u32) -> Vec<u8>) -> u32 {
    let (mut sent, mut round) = (first(), 0);
    let mut total = 0;
    while total < FLOOD {
        match timeout(PATIENCE, stream.write_all(&sent)).await {
            Ok(Ok(())) => total += sent.len(),
            Ok(Err(_)) => return last_word(stream).await,
            Err(_) => panic!("it neither reads on nor ends the connection"),
        }
        sent = (0..1_000).flat_map(|more| next(round + more)).collect();
        round += 1_000;
    }
    panic!("it took everything");
}

/// What a client says first.
fn first() -> Vec<u8> {
    [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat()
}

/// The code of the GOAWAY that ended a connection.
async fn last_word(stream: &mut TcpStream) -> u32 {
    let mut answers = Vec::new();
    // That it ends with an error is known: the server takes no more.
    drop(stream.read_to_end(&mut answers).await);
    let mut rest = answers.as_slice();
    let mut code = None;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        let goaway = 7;
        if head[3] == goaway {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().expect("four")));
        }
        rest = after;
    }
    code.expect("a connection is ended with a reason")
}

/// Does this on a connection of its own, while what others say arrives.
async fn nobody_notices<T>(attack: impl AsyncFnOnce(&mut TcpStream) -> T) -> T {
    let mut room = Room::open().await;
    let endpoint = room.endpoint().await;
    let mut stream = TcpStream::connect(endpoint).await.expect("connects");
    let others = async {
        for _ in 0..MESSAGES {
            room.others_go_on().await;
        }
    };
    let (outcome, ()) = tokio::join!(attack(&mut stream), others);
    // It is still open, if it has not ended.
    room.others_go_on().await;
    outcome
}

/// Sends this many times, and reads what it is answered: as often.
async fn is_answered(stream: &mut TcpStream, question: Vec<u8>, answer: Vec<u8>) {
    // More than are read at once.
    const TIMES: usize = 15_000;
    let (mut answers, mut says) = stream.split();
    let asking = async {
        says.write_all(&first()).await.expect("takes the preface");
        let questions = question.repeat(TIMES);
        says.write_all(&questions).await.expect("reads on");
    };
    let hearing = async {
        let (mut heard, mut bytes) = (0, Vec::new());
        while heard < TIMES {
            let read = answers.read_buf(&mut bytes).await.expect("goes on");
            assert!(read > 0, "the connection ended after {heard} answers");
            while let Some(length) = bytes.get(..3) {
                let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
                if bytes.len() < 9 + length {
                    break;
                }
                let frame: Vec<_> = bytes.drain(..9 + length).collect();
                heard += usize::from(frame == answer);
            }
        }
    };
    let both = async { tokio::join!(asking, hearing) };
    timeout(PATIENCE, both).await.expect("all is answered");
}

const ACK: u8 = 1;

#[tokio::test]
async fn a_flood_of_pings_is_answered_in_time_and_hurts_nobody() {
    let (ping, pong) = (frame(6, 0, 0, &[7; 8]), frame(6, ACK, 0, &[7; 8]));
    nobody_notices(async |stream: &mut TcpStream| is_answered(stream, ping, pong).await).await;
}

#[tokio::test]
async fn a_flood_of_settings_is_answered_in_time_and_hurts_nobody() {
    let (settings, seen) = (frame(4, 0, 0, &[]), frame(4, ACK, 0, &[]));
    nobody_notices(async |stream: &mut TcpStream| is_answered(stream, settings, seen).await).await;
}

#[tokio::test]
async fn streams_opened_and_reset_in_a_loop_end_their_connection() {
    let cancel = 8_u32.to_be_bytes();
    let opened_and_reset = |round| {
        let stream = 2 * round + 1;
        [open(stream), frame(3, 0, stream, &cancel)].concat()
    };
    let attack = async |stream: &mut TcpStream| flood(stream, opened_and_reset).await;
    assert_eq!(nobody_notices(attack).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn a_header_that_never_ends_ends_its_connection() {
    let endless = |round| match round {
        0 => frame(1, 0, 1, &[0x83]),
        // Each: a header `a: a`.
        _ => frame(9, 0, 1, &[0, 1, b'a', 1, b'a']),
    };
    let attack = async |stream: &mut TcpStream| flood(stream, endless).await;
    assert_eq!(nobody_notices(attack).await, ENHANCE_YOUR_CALM);
}

/// Says something to a reader that takes its time; it hears all of it in the end.
async fn hears_all(room: &mut Room, mut reader: RawSession) {
    let token = room.bystander.token.clone();
    reader.greet(&token).await;
    reader.join("#general").await;
    for number in 0..MESSAGES {
        room.others_go_on().await;
        let heard = reader.text().await;
        assert_eq!(heard, format!("still here {}", number + 1));
    }
}

#[tokio::test]
async fn who_grants_one_byte_at_a_time_hears_everything() {
    let mut room = Room::open().await;
    let endpoint = format!("http://{}", room.endpoint().await);
    let endpoint = Endpoint::from_shared(endpoint).expect("an endpoint");
    let tiny = endpoint.initial_stream_window_size(1).tcp_nodelay(true);
    let reader = RawSession::open_on(tiny.connect().await.expect("connects")).await;
    hears_all(&mut room, reader).await;
}

/// Passes on what a client says, and one byte at a time of what it is answered.
async fn one_by_one(endpoint: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(endpoint).await.expect("connects");
        client.set_nodelay(true).expect("set");
        let (mut answers, mut says) = server.into_split();
        let (mut from, mut to) = client.split();
        let answering = async {
            while let Ok(byte) = answers.read_u8().await {
                if to.write_u8(byte).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = answering => {}
            _ = tokio::io::copy(&mut from, &mut says) => {}
        }
    });
    address
}

#[tokio::test]
async fn who_reads_one_byte_at_a_time_hears_everything() {
    let mut room = Room::open().await;
    let relay = one_by_one(room.endpoint().await).await;
    let reader = RawSession::open(&relay).await;
    hears_all(&mut room, reader).await;
}
