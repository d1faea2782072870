//! Who does what and when, made from a log.

use std::{collections::HashMap, time::Duration};

use super::parser::{Entry, Line};

/// What a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Join,
    Leave,
    Say(String),
}

/// One act, and when, from the start of the log's first minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) person: usize,
    pub(crate) act: Act,
}

/// A log as a play. Only who speaks takes part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The first nick of each.
    pub(crate) people: Vec<String>,
    /// Who is there from the beginning: those the log does not show coming before they speak.
    pub(crate) present: Vec<usize>,
    pub(crate) steps: Vec<Step>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Plan {
    /// Lines keep their minute; within it, they are spread evenly.
    pub(crate) fn new(lines: &[Line]) -> Self {
        let mut cast = Cast::default();
        for line in lines {
            cast.enter(line);
        }
        cast.plan()
    }
}

#[derive(Debug, Default)]
struct Cast {
    nicks: HashMap<String, usize>,
    people: Vec<Person>,
    acts: Vec<(u32, usize, Act)>,
}

#[derive(Debug)]
struct Person {
    nick: String,
    from_the_beginning: bool,
    here: bool,
    speaks: bool,
}

impl Cast {
    fn enter(&mut self, line: &Line) {
        match &line.entry {
            Entry::Said { nick, text } => {
                let person = self.person(nick, true);
                self.come(line.minute, person);
                self.people[person].speaks = true;
                self.acts
                    .push((line.minute, person, Act::Say(text.clone())));
            }
            Entry::Came { nick } => {
                let person = self.person(nick, false);
                self.come(line.minute, person);
            }
            Entry::Went { nick } => {
                let person = self.person(nick, true);
                if std::mem::take(&mut self.people[person].here) {
                    self.acts.push((line.minute, person, Act::Leave));
                }
            }
            Entry::Renamed { from, to } => {
                let person = self.person(from, true);
                self.nicks.remove(from);
                self.nicks.insert(to.clone(), person);
            }
        }
    }

    /// Who has this nick now; somebody not seen before was there all the time, unless just coming.
    fn person(&mut self, nick: &str, here: bool) -> usize {
        if let Some(person) = self.nicks.get(nick) {
            return *person;
        }
        let person = self.people.len();
        self.people.push(Person {
            nick: nick.to_owned(),
            from_the_beginning: here,
            here,
            speaks: false,
        });
        self.nicks.insert(nick.to_owned(), person);
        person
    }

    fn come(&mut self, minute: u32, person: usize) {
        if !std::mem::replace(&mut self.people[person].here, true) {
            self.acts.push((minute, person, Act::Join));
        }
    }

    fn plan(self) -> Plan {
        let mut numbers = HashMap::new();
        let mut plan = Plan::default();
        for (person, known) in self
            .people
            .iter()
            .enumerate()
            .filter(|(_, known)| known.speaks)
        {
            let number = plan.people.len();
            numbers.insert(person, number);
            plan.people.push(known.nick.clone());
            if known.from_the_beginning {
                plan.present.push(number);
            }
        }
        let acts: Vec<_> = self
            .acts
            .into_iter()
            .filter_map(|(minute, person, act)| Some((minute, *numbers.get(&person)?, act)))
            .collect();
        let start = acts.first().map_or(0, |(minute, ..)| *minute);
        for minute in acts.chunk_by(|a, b| a.0 == b.0) {
            let count = u32::try_from(minute.len()).unwrap_or(u32::MAX);
            for ((of_day, person, act), place) in minute.iter().zip(0..) {
                let at = MINUTE * (of_day - start) + MINUTE * place / count;
                plan.steps.push(Step {
                    at,
                    person: *person,
                    act: act.clone(),
                });
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parser::parse, *};

    fn say(text: &str) -> Act {
        Act::Say(text.to_owned())
    }

    #[test]
    fn who_is_not_seen_coming_is_there_from_the_beginning() {
        let plan = Plan::new(&parse(
            "[10:00] <a> one\n=== b [x] has joined #c\n=== lurker [x] has joined #c\n[10:01] <b> two\n=== a [x] has left #c",
        ));
        assert_eq!(
            (plan.people.as_slice(), plan.present.as_slice()),
            (&["a".to_owned(), "b".to_owned()][..], &[0][..])
        );
        let acts: Vec<_> = plan
            .steps
            .iter()
            .map(|step| (step.at.as_secs(), step.person, step.act.clone()))
            .collect();
        assert_eq!(
            acts,
            [
                (0, 0, say("one")),
                (30, 1, Act::Join),
                (60, 1, say("two")),
                (90, 0, Act::Leave)
            ]
        );
    }

    #[test]
    fn a_person_goes_on_under_another_name() {
        let plan = Plan::new(&parse(
            "[10:00] <a> one\n=== a is now known as z\n[10:00] <z> two\n[10:00] <a> three",
        ));
        assert_eq!(plan.people, ["a", "a"]);
        let people: Vec<_> = plan.steps.iter().map(|step| step.person).collect();
        assert_eq!(people, [0, 0, 1]);
    }

    #[test]
    fn who_speaks_after_leaving_joins_again_first() {
        let plan = Plan::new(&parse(
            "[10:00] <a> one\n=== a [x] has left #c\n[10:00] <a> two",
        ));
        let acts: Vec<_> = plan.steps.into_iter().map(|step| step.act).collect();
        assert_eq!(acts, [say("one"), Act::Leave, Act::Join, say("two")]);
    }
}
