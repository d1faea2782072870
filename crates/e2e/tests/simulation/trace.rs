//! What happened in a run, event by event, as one number: two runs that differ anywhere differ in it.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::Path,
    sync::Mutex,
};

use tokio::time::Instant;

/// Every chunk on every connection, every call to a store, every publish, delivery and acknowledgement, with
/// the time of the paused clock.
#[derive(Debug)]
pub(crate) struct Trace {
    began: Instant,
    so_far: Mutex<SoFar>,
}

#[derive(Debug)]
struct SoFar {
    digest: DefaultHasher,
    events: u64,
    /// Where the events are written too.
    written: Option<std::io::BufWriter<std::fs::File>>,
}

impl Trace {
    /// Begins now; the events are written to the file as well, if there is one.
    pub(crate) fn begin(file: Option<&Path>) -> Self {
        let create = |path| std::fs::File::create(path).expect("a file for the trace");
        Self {
            began: Instant::now(),
            so_far: Mutex::new(SoFar {
                digest: DefaultHasher::new(),
                events: 0,
                written: file.map(create).map(std::io::BufWriter::new),
            }),
        }
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:?} {event}", self.began.elapsed());
        let mut so_far = self.so_far.lock().expect("whole");
        line.hash(&mut so_far.digest);
        so_far.events += 1;
        if let Some(file) = &mut so_far.written {
            writeln!(file, "{line}").expect("written");
        }
    }

    /// How many events, and what they come to.
    pub(crate) fn digest(&self) -> String {
        let so_far = self.so_far.lock().expect("whole");
        format!(
            "{} events, digest {:016x}",
            so_far.events,
            so_far.digest.finish()
        )
    }
}
