//! A client that asks without end and reads no answer.
#![allow(clippy::expect_used)]

use std::{net::SocketAddr, time::Duration};

use infrachat_runtime::{Listener, ServeSettings};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// Of the way to the server, and of the way back.
const ON_THE_WAY: usize = 16 * 1024;

/// What the server takes of it, until it takes nothing more.
async fn taken(question: &[u8]) -> usize {
    let (connections, incoming) = mpsc::channel(1);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let stop = CancellationToken::new();
    let listener = Listener::local(address, incoming);
    let serving = listener.serve(Routes::default(), ServeSettings::default(), stop.clone());
    let asking = async {
        let (mut client, server) = tokio::io::duplex(ON_THE_WAY);
        connections.send(server).await.expect("is served");
        let first = [PREFACE, SETTINGS].concat();
        client.write_all(&first).await.expect("is read");
        let block = question.repeat(100);
        let mut taken = 0;
        // Time passes only while everybody waits.
        let patience = Duration::from_secs(5);
        while let Ok(Ok(())) = timeout(patience, client.write_all(&block)).await {
            taken += block.len();
            assert!(taken < 4 * 1024 * 1024, "it takes everything");
        }
        stop.cancel();
        taken
    };
    let (served, taken) = tokio::join!(serving, asking);
    served.expect("serves");
    taken
}

#[tokio::test(start_paused = true)]
async fn pings_whose_answers_are_not_read_are_not_read_either() {
    // Each answer is as long as its question; HTTP/2 has a buffer of 16 KB for what is to be written.
    assert!(taken(PING).await < 4 * ON_THE_WAY);
}

#[tokio::test(start_paused = true)]
async fn settings_whose_answers_are_not_read_are_not_read_either() {
    assert!(taken(SETTINGS).await < 4 * ON_THE_WAY);
}
