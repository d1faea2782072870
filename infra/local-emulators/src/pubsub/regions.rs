//! Which region a topic and a subscription are in, for faults between regions.

use super::names;
use crate::{
    faults::{Link, Settings},
    proto::Subscription,
};

/// The faults on a subscription's way from its topic's region to its own, if there are any.
///
/// A topic `REGION.NAME` is in the region before its first dot, a subscription `….REGION` in the one
/// after its last dot; without a dot, a resource is in its project's region, as the settings say.
pub(crate) fn link<'a>(subscription: &Subscription, settings: &'a Settings) -> Option<&'a Link> {
    if settings.links.is_empty() {
        return None;
    }
    let (topic, name) = (&subscription.topic, &subscription.name);
    let by_project = |name| {
        settings
            .regions
            .get(names::project(name))
            .map(String::as_str)
    };
    let from = names::id(topic).split_once('.').map(|(region, _)| region);
    let to = names::id(name).rsplit_once('.').map(|(_, region)| region);
    settings.link(
        from.or_else(|| by_project(topic))?,
        to.or_else(|| by_project(name))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_linked(topic: &str, name: &str, settings: &Settings) -> bool {
        let subscription = Subscription {
            topic: topic.to_owned(),
            name: name.to_owned(),
            ..Subscription::default()
        };
        link(&subscription, settings).is_some()
    }

    #[test]
    fn names_tell_regions_and_projects_do_where_names_dont() {
        let mut settings = Settings::default();
        settings.link_mut("us-west1", "asia-northeast1").cut = true;
        let region = "us-west1".to_owned();
        settings.regions.insert("chat-us".to_owned(), region);
        let to_east = "projects/p/subscriptions/us-west1.messages-17.asia-northeast1";
        let to_west = "projects/p/subscriptions/us-west1.messages-17.us-west1";
        let named = "projects/p/topics/us-west1.messages-17";
        assert!(is_linked(named, to_east, &settings));
        assert!(!is_linked(named, to_west, &settings));
        assert!(is_linked(
            "projects/chat-us/topics/plain",
            to_east,
            &settings
        ));
        assert!(!is_linked("projects/p/topics/plain", to_east, &settings));
        assert!(!is_linked(
            named,
            "projects/p/subscriptions/plain",
            &settings
        ));
    }
}
