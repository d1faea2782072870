//! A message's way to one reader, put together from the spans of its trace.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::listening::histogram;

/// What a message's way is made of, in order and without anything between them.
pub(crate) const STEPS: [&str; 6] = [
    "to the shard",
    "checked, handed to the bus",
    "on the bus",
    "appended",
    "readers woken, frame written",
    "to the client",
];
const BUS: usize = 2;
/// What the shard does before and after the bus.
const SHARD: [usize; 3] = [1, 3, 4];

/// A span, as far as it matters here; moments are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of a relay: the log had the message already.
    pub(crate) duplicate: bool,
}

/// What brought a message to the log that its reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brought {
    /// The bus's answer to the shard that published it; its copy came from the bus so much later.
    Answer { copy_later: u64 },
    /// The copy that the bus delivered.
    Copy,
}

/// One message's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journey {
    /// Nanoseconds of each of [`STEPS`].
    pub(crate) steps: [u64; STEPS.len()],
    pub(crate) brought: Brought,
}

impl Journey {
    /// From the spans of a trace that one reader heard; none while some have not come.
    pub(crate) fn new(spans: &[Span], said: u64, heard: u64) -> Option<Self> {
        let named = |name| spans.iter().filter(move |span| span.name == name);
        let publish = named("publish").next()?;
        let bus = named("bus").max_by_key(|span| span.start)?;
        let deliver = named("deliver").next()?;
        let (arrived, brought) = if deliver.parent == publish.id {
            let copy = named("relay").filter(|relay| relay.duplicate);
            let copy = copy.map(|relay| relay.start).min()?;
            let copy_later = copy.saturating_sub(bus.end);
            (bus.end, Brought::Answer { copy_later })
        } else {
            let relay = named("relay").find(|relay| relay.id == deliver.parent)?;
            (relay.start, Brought::Copy)
        };
        let moments = [
            said,
            publish.start,
            bus.start,
            arrived,
            deliver.start,
            deliver.end,
            heard,
        ];
        let mut steps = [0; STEPS.len()];
        for (step, pair) in steps.iter_mut().zip(moments.windows(2)) {
            *step = pair[1].saturating_sub(pair[0]);
        }
        Some(Self { steps, brought })
    }

    fn bus(&self) -> u64 {
        self.steps[BUS]
    }

    fn shard(&self) -> u64 {
        SHARD.iter().map(|step| self.steps[*step]).sum()
    }

    fn whole(&self) -> u64 {
        self.steps.iter().sum()
    }
}

/// The middle and the end of some times, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Spread {
    pub(crate) fn of(nanos: impl Iterator<Item = u64>) -> Self {
        let mut times: Histogram<u64> = histogram();
        nanos.for_each(|time| times.saturating_record(time));
        let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: micros(0.5),
            p99_us: micros(0.99),
        }
    }
}

/// One step, over all messages.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) time: Spread,
    /// Of the time of all messages, 0 to 1.
    pub(crate) share: f64,
}

/// All messages' ways.
#[derive(Debug, Serialize)]
pub(crate) struct Way {
    pub(crate) messages: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) whole: Spread,
    /// What the shard adds to the bus: all from taking the message in to writing its frame.
    pub(crate) shard: Spread,
    pub(crate) bus: Spread,
    /// What the shard adds, divided by the bus's time.
    pub(crate) added: f64,
    /// Messages that the bus's answer brought to the readers.
    pub(crate) by_answer: usize,
    /// From the bus's answer to the copy that the bus delivers to the same shard.
    pub(crate) copy_later: Spread,
}

impl Way {
    pub(crate) fn of(journeys: &[Journey]) -> Self {
        let sum = |time: &dyn Fn(&Journey) -> u64| journeys.iter().map(time).sum::<u64>() as f64;
        let whole = sum(&Journey::whole);
        let steps = STEPS.iter().enumerate().map(|(at, name)| Step {
            name,
            time: Spread::of(journeys.iter().map(|journey| journey.steps[at])),
            share: sum(&|journey| journey.steps[at]) / whole,
        });
        let later = journeys.iter().filter_map(|journey| match journey.brought {
            Brought::Answer { copy_later } => Some(copy_later),
            Brought::Copy => None,
        });
        Self {
            messages: journeys.len(),
            steps: steps.collect(),
            whole: Spread::of(journeys.iter().map(Journey::whole)),
            shard: Spread::of(journeys.iter().map(Journey::shard)),
            bus: Spread::of(journeys.iter().map(Journey::bus)),
            added: sum(&Journey::shard) / sum(&Journey::bus),
            by_answer: later.clone().count(),
            copy_later: Spread::of(later),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, id: u8, parent: u8, (start, end): (u64, u64)) -> Span {
        Span {
            name: name.to_owned(),
            id: vec![id],
            parent: vec![parent],
            start,
            end,
            duplicate: false,
        }
    }

    fn copy(id: u8, start: u64) -> Span {
        Span {
            duplicate: true,
            ..span("relay", id, 1, (start, start + 1))
        }
    }

    /// Said at 1,000, on the bus from 1,130 to 1,400.
    fn published() -> Vec<Span> {
        vec![
            span("publish", 1, 0, (1_100, 1_420)),
            span("bus", 2, 1, (1_130, 1_400)),
        ]
    }

    #[test]
    fn steps_follow_each_other_and_leave_nothing_out() {
        let mut spans = published();
        spans.push(span("deliver", 3, 1, (1_410, 1_450)));
        spans.push(span("relay", 4, 1, (1_300, 1_301)));
        spans.push(copy(5, 1_500));
        let journey = Journey::new(&spans, 1_000, 1_600).expect("is whole");
        assert_eq!(journey.steps, [100, 30, 270, 10, 40, 150]);
        assert_eq!(journey.whole(), 600);
        assert_eq!((journey.shard(), journey.bus()), (80, 270));
        assert_eq!(journey.brought, Brought::Answer { copy_later: 100 });
    }

    #[test]
    fn what_a_copy_brought_was_on_the_bus_until_it_came() {
        let mut spans = published();
        spans.push(span("relay", 3, 1, (1_300, 1_305)));
        spans.push(copy(4, 1_200));
        spans.push(span("deliver", 5, 3, (1_303, 1_310)));
        let journey = Journey::new(&spans, 1_000, 1_320).expect("is whole");
        assert_eq!(journey.steps, [100, 30, 170, 3, 7, 10]);
        assert_eq!(journey.brought, Brought::Copy);
    }

    #[test]
    fn an_event_that_was_handed_over_twice_counts_from_the_last_time() {
        let mut spans = published();
        spans.insert(0, span("bus", 9, 1, (1_360, 1_400)));
        spans.push(span("deliver", 3, 1, (1_400, 1_400)));
        spans.push(copy(5, 1_500));
        let journey = Journey::new(&spans, 1_000, 1_400).expect("is whole");
        assert_eq!(journey.steps, [100, 260, 40, 0, 0, 0]);
    }

    #[test]
    fn nothing_is_told_before_every_span_has_come() {
        let mut spans = published();
        spans.push(copy(5, 1_500));
        spans.push(span("deliver", 3, 1, (1_410, 1_450)));
        for missing in 0..spans.len() {
            let mut some = spans.clone();
            let gone = some.remove(missing);
            assert_eq!(Journey::new(&some, 1_000, 1_600), None, "without {gone:?}");
        }
        assert!(Journey::new(&spans, 1_000, 1_600).is_some());
    }

    #[test]
    fn clocks_that_disagree_make_no_step_negative() {
        let mut spans = published();
        spans.push(copy(5, 1_390));
        spans.push(span("deliver", 3, 1, (1_399, 1_450)));
        let journey = Journey::new(&spans, 1_101, 1_449).expect("is whole");
        assert_eq!(journey.steps, [0, 30, 270, 0, 51, 0]);
        assert_eq!(journey.brought, Brought::Answer { copy_later: 0 });
    }

    #[test]
    fn shares_are_of_the_time_of_all_messages() {
        let journeys = [
            Journey {
                steps: [10, 20, 300, 10, 20, 40],
                brought: Brought::Answer { copy_later: 1_000 },
            },
            Journey {
                steps: [10, 0, 500, 0, 30, 60],
                brought: Brought::Copy,
            },
        ];
        let way = Way::of(&journeys);
        assert_eq!((way.messages, way.by_answer), (2, 1));
        let shares: Vec<_> = way.steps.iter().map(|step| step.share).collect();
        assert_eq!(shares, [0.02, 0.02, 0.8, 0.01, 0.05, 0.1]);
        assert_eq!(way.added, 0.1);
        assert_eq!(way.copy_later.p50_us, 1.0);
    }
}
