//! What is counted of a Redis: how long it takes to answer, and how often it fails to.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use redis::RedisResult;

/// Errors that are answers: what is to be made is there already, or what is asked for is not there.
const ANSWERS: [&str; 2] = ["BUSYGROUP", "NOGROUP"];

/// Calls for one use.
pub(crate) struct Asked {
    seconds: Histogram,
    errors: Counter,
}

impl Asked {
    pub(crate) fn of(using: &'static str) -> Self {
        Self {
            seconds: histogram!("infrachat_redis_seconds", "use" => using),
            errors: counter!("infrachat_redis_errors_total", "use" => using),
        }
    }

    pub(crate) fn count<T>(&self, took: Duration, answer: &RedisResult<T>) {
        match answer {
            Err(err) if !err.code().is_some_and(|code| ANSWERS.contains(&code)) => {
                self.errors.increment(1);
            }
            _ => self.seconds.record(took),
        }
    }
}
