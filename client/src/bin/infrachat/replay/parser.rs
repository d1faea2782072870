//! Reads logs of IRC channels.

/// What a line of a log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Somebody said something; actions come as "/me ...".
    Said { nick: String, text: String },
    /// Somebody came.
    Came { nick: String },
    /// Somebody went: left, quit, or was thrown out.
    Went { nick: String },
    /// Somebody took another name.
    Renamed { from: String, to: String },
}

/// An entry and its minute, counted from midnight of the first day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) minute: u32,
    pub(crate) entry: Entry,
}

const DAY: u32 = 24 * 60;

/// Reads a log; lines that tell nothing of these are passed over. Lines without a time have that of
/// the line before.
pub(crate) fn parse(log: &str) -> Vec<Line> {
    let mut minute = None;
    let mut lines = Vec::new();
    for text in log.lines() {
        let entry = match timed(text) {
            Some((of_day, rest)) => {
                minute = Some(advance(minute, of_day));
                said(rest)
            }
            None => text.strip_prefix("=== ").and_then(notice),
        };
        if let Some(entry) = entry {
            lines.push(Line {
                minute: minute.unwrap_or_default(),
                entry,
            });
        }
    }
    // What came before the first time belongs to that minute.
    let first = lines
        .iter()
        .map(|line| line.minute)
        .find(|minute| *minute > 0)
        .unwrap_or_default();
    for line in lines.iter_mut().take_while(|line| line.minute == 0) {
        line.minute = first;
    }
    lines
}

/// `[HH:MM] rest`
fn timed(line: &str) -> Option<(u32, &str)> {
    let (clock, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (hours, minutes) = clock.split_once(':')?;
    Some((
        hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?,
        rest,
    ))
}

/// The next day begins where the clock falls by more than half a day; smaller steps back are the
/// log's own disorder.
fn advance(last: Option<u32>, of_day: u32) -> u32 {
    let Some(last) = last else { return of_day };
    let today = last - last % DAY + of_day;
    if today + DAY / 2 < last {
        today + DAY
    } else {
        today.max(last)
    }
}

fn said(rest: &str) -> Option<Entry> {
    let (nick, text) = match rest.strip_prefix('<') {
        Some(rest) => {
            let (nick, text) = rest.split_once("> ")?;
            (nick, text.trim_end().to_owned())
        }
        None => {
            let (nick, text) = rest.trim_start().strip_prefix("* ")?.split_once(' ')?;
            (nick, format!("/me {}", text.trim_end()))
        }
    };
    (!text.is_empty()).then(|| Entry::Said {
        nick: nick.to_owned(),
        text,
    })
}

fn notice(rest: &str) -> Option<Entry> {
    let (nick, what) = rest.split_once(' ')?;
    let nick = nick.to_owned();
    if let Some(to) = what.strip_prefix("is now known as ") {
        return Some(Entry::Renamed {
            from: nick,
            to: to.trim().to_owned(),
        });
    }
    // "[host]  has joined #channel": what follows the host decides.
    let after_host = what.strip_prefix('[').and_then(|host| host.split_once(']'));
    let what = after_host.map_or(what, |(_, what)| what).trim_start();
    if what.starts_with("has joined ") {
        return Some(Entry::Came { nick });
    }
    let gone = ["has left ", "has quit", "was kicked off "];
    gone.iter()
        .any(|gone| what.starts_with(gone))
        .then_some(Entry::Went { nick })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(nick: &str, text: &str) -> Entry {
        Entry::Said {
            nick: nick.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn every_kind_of_line_is_read_and_the_rest_passed_over() {
        let log = "\
=== early [n=e@host]  has joined #ubuntu
[11:22] <frenkel> Linuturk: my client can't: <odd> text
=== sangria [n=jaime@core.fluendo.com]  has left #ubuntu [\"Leaving\"] 
=== mode/#ubuntu [-oo rob mdz]  by ChanServ
=== ProfFrink is now known as Prof_Frink
[11:23]  * Seveas waves
=== loud was kicked off #ubuntu by Seveas (Seveas)
=== gone [n=g@host] has quit [Read error]
[11:23] <silent> 
not a line
[11:24] <a> caf\u{e9}";
        let nick = |nick: &str| nick.to_owned();
        let expected = [
            (
                682,
                Entry::Came {
                    nick: nick("early"),
                },
            ),
            (
                682,
                said("frenkel", "Linuturk: my client can't: <odd> text"),
            ),
            (
                682,
                Entry::Went {
                    nick: nick("sangria"),
                },
            ),
            (
                682,
                Entry::Renamed {
                    from: nick("ProfFrink"),
                    to: nick("Prof_Frink"),
                },
            ),
            (683, said("Seveas", "/me waves")),
            (683, Entry::Went { nick: nick("loud") }),
            (683, Entry::Went { nick: nick("gone") }),
            (684, said("a", "caf\u{e9}")),
        ];
        let expected = expected.map(|(minute, entry)| Line { minute, entry });
        assert_eq!(parse(log), expected);
    }

    #[test]
    fn midnight_starts_another_day_and_disorder_does_not() {
        let minutes = |log| {
            parse(log)
                .iter()
                .map(|line| line.minute)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            minutes("[23:59] <a> x\n[00:01] <a> y\n[00:00] <a> z"),
            [1439, 1441, 1441]
        );
    }
}
