//! Events as lines.

use infrachat_client::{ChannelName, ChannelSummary, Event, Member, UserName};

use crate::output::{Paint, harmless, message_line};

/// Names that are listed one by one.
const NAMES: usize = 30;

/// What an event looks like; nothing for those that don't concern a person.
pub(crate) fn lines(
    paint: Paint,
    current: Option<&ChannelName>,
    user: &UserName,
    event: &Event,
) -> Vec<String> {
    let elsewhere = |channel: &ChannelName| {
        if current == Some(channel) {
            String::new()
        } else {
            format!("{channel} ")
        }
    };
    let dim = |text: String| vec![paint.dim(&harmless(&text))];
    match event {
        Event::Message(message) => {
            let place = paint.dim(&elsewhere(&message.channel));
            vec![format!("{place}{}", message_line(paint, message))]
        }
        Event::Joined {
            channel,
            present,
            present_count,
            recovered,
        } => {
            let again = if *recovered {
                ""
            } else {
                ", some messages are missing"
            };
            dim(format!(
                "-- in {channel}{again}: {present_count} here, {}",
                names(present)
            ))
        }
        Event::Presence {
            channel,
            came,
            went,
            snapshot: false,
            ..
        } => {
            let others = |names: &[String]| {
                names
                    .iter()
                    .filter(|name| *name != user.as_str())
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let place = elsewhere(channel);
            let line = |who: &[String], verb: &str| {
                let who = others(who);
                (!who.is_empty())
                    .then(|| paint.dim(&harmless(&format!("-- {place}{} {verb}", names(&who)))))
            };
            [line(came, "came"), line(went, "went")]
                .into_iter()
                .flatten()
                .collect()
        }
        Event::Gap {
            channel,
            missed,
            reason,
            ..
        } => {
            let missed = if *missed == 0 {
                "some".to_owned()
            } else {
                missed.to_string()
            };
            dim(format!(
                "-- {}{missed} messages are missing here ({reason}): /history has them",
                elsewhere(channel)
            ))
        }
        Event::Disconnected { reason, retry_in } => dim(format!(
            "-- connection lost ({reason}), again in {:.1} s",
            retry_in.as_secs_f64()
        )),
        Event::Connected { region, shard } => dim(format!("-- connected to {shard} in {region}")),
        Event::Left {
            channel, reason, ..
        } if reason.is_empty() => dim(format!("-- left {channel}")),
        Event::Left {
            channel, reason, ..
        } => {
            vec![paint.bad(&harmless(&format!("-- no longer in {channel}: {reason}")))]
        }
        Event::Degraded {
            part,
            degraded: true,
            reason,
        } => dim(format!("-- {part} does not fully work: {reason}")),
        Event::Degraded { part, .. } => dim(format!("-- {part} works again")),
        Event::Error { message, .. } => vec![paint.bad(&harmless(message))],
        _ => Vec::new(),
    }
}

pub(crate) fn who_line(paint: Paint, channel: &ChannelName, members: &[Member]) -> String {
    let online: Vec<_> = members
        .iter()
        .filter(|member| member.online)
        .map(|member| member.user.clone())
        .collect();
    paint.dim(&harmless(&format!(
        "-- {} in {channel}: {}",
        online.len(),
        names(&online)
    )))
}

pub(crate) fn channel_line(paint: Paint, channel: &ChannelSummary) -> String {
    let private = if channel.private { " (private)" } else { "" };
    paint.dim(&harmless(&format!(
        "-- {}{private} {}",
        channel.name, channel.topic
    )))
}

fn names(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(NAMES)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > NAMES {
        text.push_str(&format!(" and {} more", names.len() - NAMES));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(event: &Event) -> Vec<String> {
        let current = "#general".parse().expect("valid");
        lines(
            Paint::plain(),
            Some(&current),
            &"alice".parse().expect("valid"),
            event,
        )
    }

    #[test]
    fn others_come_and_go_and_oneself_does_not() {
        let presence = |came: &[&str], went: &[&str]| Event::Presence {
            channel: "#general".parse().expect("valid"),
            came: came.iter().map(ToString::to_string).collect(),
            went: went.iter().map(ToString::to_string).collect(),
            count: 2,
            snapshot: false,
        };
        assert_eq!(
            shown(&presence(&["bob", "alice"], &["eve"])),
            ["-- bob came", "-- eve went"]
        );
        assert!(shown(&presence(&["alice"], &[])).is_empty());
    }

    #[test]
    fn another_channels_events_name_it() {
        let gap = Event::Gap {
            channel: "#ops".parse().expect("valid"),
            from: Default::default(),
            to: Default::default(),
            missed: 3,
            code: String::new(),
            reason: "slow".to_owned(),
        };
        assert!(
            shown(&gap)[0].starts_with("-- #ops 3 messages"),
            "{:?}",
            shown(&gap)
        );
    }
}
