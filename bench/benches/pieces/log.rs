//! What the log of a channel costs, and its duplicate window.

use criterion::{BatchSize, Criterion, Throughput};
use infrachat_shard::bench::{Event, Log, Window};

use crate::message;

/// More than a log or a window holds.
const MANY: usize = 10_000;

/// A log that is full.
fn full(event: &Event) -> Log {
    let mut log = Log::default();
    (0..MANY).for_each(|_| log.append(event.clone()));
    log
}

pub(crate) fn log(criterion: &mut Criterion) {
    let event = Event::new(&message(0));
    let mut log = full(&event);
    criterion.bench_function("log/append", |bencher| {
        bencher.iter_batched(
            || event.clone(),
            |event| log.append(event),
            BatchSize::SmallInput,
        );
    });
    // What was joined for the first reader serves all, as long as it is one frame: 256 are three.
    let mut group = criterion.benchmark_group("log/append and read");
    for (events, readers) in [
        (1, 1),
        (16, 1),
        (1, 1_000),
        (16, 1_000),
        (64, 1_000),
        (256, 1_000),
    ] {
        group.throughput(Throughput::Elements(readers * events));
        group.bench_function(format!("{events} by {readers}"), |bencher| {
            let mut log = full(&event);
            let mut readers: Vec<_> = (0..readers).map(|_| log.reader()).collect();
            bencher.iter(|| {
                (0..events).for_each(|_| log.append(event.clone()));
                for reader in &mut readers {
                    log.read(reader);
                }
            });
        });
    }
    group.finish();
}

pub(crate) fn dedupe(criterion: &mut Criterion) {
    let messages: Vec<_> = (0..).map(message).take(MANY).collect();
    let mut window = Window::default();
    messages.iter().for_each(|message| window.insert(message));
    let [old, new] = [&messages[0], &messages[MANY - 1]];
    assert!(
        !window.knows(old) && window.knows(new),
        "the window is full"
    );
    criterion.bench_function("dedupe/known", |bencher| bencher.iter(|| window.knows(new)));
    criterion.bench_function("dedupe/not known", |bencher| {
        bencher.iter(|| window.knows(old));
    });
    // When one comes round again, it is forgotten.
    let mut next = messages.iter().cycle();
    criterion.bench_function("dedupe/insert", |bencher| {
        bencher.iter(|| next.next().map(|message| window.insert(message)));
    });
}
