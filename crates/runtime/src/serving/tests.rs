use tokio::sync::mpsc;

use super::*;

/// Whatever is woken, from whichever thread and at whichever moment, is polled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_is_lost() {
    const MESSAGES: usize = 200_000;
    let opened = Opened::default();
    let mut together = Together::new(opened.clone());
    let (to_connection, mut at_connection) = mpsc::unbounded_channel();
    // One alone: nobody else's wake makes up for one that is lost.
    let (to_stream, mut at_stream) = mpsc::channel::<()>(1);
    hyper::rt::Executor::execute(&opened, async move {
        while at_stream.recv().await.is_some() {
            to_connection.send(()).expect("the connection runs");
        }
    });
    tokio::spawn(async move {
        for _ in 0..MESSAGES {
            to_stream.send(()).await.expect("the stream runs");
        }
    });
    let connection = async move {
        let mut count = 0;
        while at_connection.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let running = tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        std::future::poll_fn(|context| together.poll(connection.as_mut(), context)).await
    });
    match running.await.expect("runs to its end") {
        Turn::Ended(count) => assert_eq!(count, MESSAGES),
        Turn::Stop => panic!("instead of the end came a stop"),
    }
}

/// Others have their turn in between, and then it goes on.
#[tokio::test]
async fn who_has_more_to_do_than_a_turn_takes_is_polled_on() {
    let mut left = 10 * TURNS;
    let connection = std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    });
    let mut connection = std::pin::pin!(connection);
    let mut together = Together::new(Opened::default());
    let running = std::future::poll_fn(|context| together.poll(connection.as_mut(), context));
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    assert!(matches!(ended, Ok(Turn::Ended(()))));
}

/// A stream that is hung up on is dropped; those beside it go on.
#[tokio::test]
async fn who_is_hung_up_on_is_gone_and_nobody_else() {
    let opened = Opened::default();
    let mut together = Together::new(opened.clone());
    let (kept, mut dropped) = mpsc::channel::<()>(1);
    let (hand_over, handed) = tokio::sync::oneshot::channel();
    let asks = opened.clone();
    hyper::rt::Executor::execute(&opened, async move {
        hand_over.send(asks.line()).expect("somebody waits");
        std::future::pending::<()>().await;
        drop(kept);
    });
    let (still, there) = tokio::sync::oneshot::channel();
    hyper::rt::Executor::execute(&opened, async move {
        assert!(dropped.recv().await.is_none());
        still.send(()).expect("the connection runs");
    });
    let connection = async move {
        let line = handed.await.expect("the stream begins");
        line.expect("it has one").hang_up();
        there.await.expect("the other stream goes on");
    };
    let mut connection = std::pin::pin!(connection);
    let running = std::future::poll_fn(|context| together.poll(connection.as_mut(), context));
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    assert!(matches!(ended, Ok(Turn::Ended(()))));
}

/// Hyper wakes the stream that it is polling; who is answering looks for more anyway.
#[tokio::test]
async fn what_is_answered_is_not_polled_again_until_it_is_rung() {
    let opened = Opened::default();
    let asks = opened.clone();
    let (mut line, mut polls) = (None, 0);
    let (told, mut telling) = mpsc::unbounded_channel();
    let stream = std::future::poll_fn(move |context| {
        let line: &Line = line.get_or_insert_with(|| asks.line().expect("it begins"));
        polls += 1;
        context.waker().wake_by_ref();
        line.is_answered();
        told.send((polls, context.waker().clone()))
            .expect("somebody listens");
        Poll::Pending
    });
    hyper::rt::Executor::execute(&opened, stream);
    let connection = async move {
        let (first, stream) = telling.recv().await.expect("is polled");
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let idle = telling.is_empty();
        stream.wake();
        let (second, _) = telling.recv().await.expect("is polled again");
        (first, idle, second)
    };
    let mut connection = std::pin::pin!(connection);
    let mut together = Together::new(opened);
    let running = std::future::poll_fn(|context| together.poll(connection.as_mut(), context));
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    assert!(matches!(ended, Ok(Turn::Ended((1, true, 2)))));
}
