//! What every backend promises, case by case: see [`contract_tests!`](crate::contract_tests).

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_types::{ChannelName, Region, SessionId, UserName};

use crate::{Change, Presence, Seat};

/// How long the cases take seats for.
pub const TTL: Duration = Duration::from_secs(2);

/// A backend under test.
#[async_trait]
pub trait Harness: Sync {
    /// A client of a store in which nobody is anywhere.
    async fn presence(&self) -> Arc<dyn Presence>;

    /// Lets time pass, for the store too.
    async fn pass(&self, time: Duration);
}

/// Makes one test of each case of the contract.
///
/// The expression makes a [`Harness`](crate::contract::Harness) for each test, and may await. What follows
/// it goes to `#[tokio::test]`:
/// ```ignore
/// infrachat_presence::contract_tests!(MyHarness::start().await);
/// infrachat_presence::contract_tests!(MyHarness, start_paused = true);
/// ```
#[macro_export]
macro_rules! contract_tests {
    ($harness:expr $(, $($option:tt)+)?) => {
        $crate::contract_tests!(@cases $harness; ($($($option)+)?);
            first_seat_comes_and_second_is_the_same
            last_seat_given_up_goes
            giving_up_what_is_not_held_changes_nothing
            taking_again_refreshes
            taking_what_expired_comes_again
            expired_seats_are_neither_listed_nor_counted
            sweep_hands_each_expired_seat_to_one_caller
            sweep_says_once_that_a_user_went
            sweep_leaves_what_has_not_expired
            refresh_keeps
            refresh_takes_again_what_expired_and_says_who_came
            list_pages_by_name
            regions_are_sorted_and_distinct
            channels_do_not_mix
        );
    };
    (@cases $harness:expr; $options:tt; $($case:ident)+) => {
        $($crate::contract_tests!(@case $harness; $options; $case);)+
    };
    (@case $harness:expr; ($($option:tt)*); $case:ident) => {
        #[::tokio::test($($option)*)]
        async fn $case() {
            $crate::contract::$case(&$harness).await;
        }
    };
}

fn seat(user: &str, region: &str, session: &str) -> Seat {
    Seat {
        user: UserName::new(user).expect("a good name"),
        region: Region::new(region).expect("a good name"),
        session: SessionId::from_text(session),
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a good name")
}

/// A store and one channel of it.
struct Scene {
    presence: Arc<dyn Presence>,
    lobby: ChannelName,
}

impl Scene {
    async fn new(harness: &impl Harness) -> Self {
        Self {
            presence: harness.presence().await,
            lobby: channel("#lobby"),
        }
    }

    async fn take(&self, seat: &Seat) -> Change {
        self.take_for(seat, TTL).await
    }

    async fn take_for(&self, seat: &Seat, ttl: Duration) -> Change {
        let taken = self.presence.take(&self.lobby, seat, ttl).await;
        taken.expect("presence is there")
    }

    async fn give_up(&self, seat: &Seat) -> Change {
        let given_up = self.presence.give_up(&self.lobby, seat).await;
        given_up.expect("presence is there")
    }

    async fn refresh(&self, seats: &[&Seat]) -> Vec<String> {
        let seats: Vec<_> = seats
            .iter()
            .map(|&seat| (self.lobby.clone(), seat.clone()))
            .collect();
        let came = self.presence.refresh(&seats, TTL).await;
        let came = came.expect("presence is there");
        came.iter()
            .map(|(channel, user)| format!("{channel}/{user}"))
            .collect()
    }

    async fn sweep(&self, limit: usize) -> Vec<(ChannelName, Seat, Change)> {
        let swept = self.presence.sweep(limit).await;
        swept.expect("presence is there")
    }

    /// Who is in a channel: listed, and as many counted.
    async fn who(&self, channel: &ChannelName) -> Vec<String> {
        let list = self.presence.list(channel, None, 1_000).await;
        let list = list.expect("presence is there");
        let count = self.presence.count(channel).await;
        assert_eq!(count, Ok(list.len()), "as many are counted as are listed");
        list.iter().map(|p| p.user.to_string()).collect()
    }
}

/// A user comes with the first seat, and not again with another.
pub async fn first_seat_comes_and_second_is_the_same(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    assert_eq!(
        scene.take(&seat("ada", "us-west1", "1")).await,
        Change::Came
    );
    assert_eq!(
        scene.take(&seat("ada", "us-west1", "2")).await,
        Change::Same
    );
    assert_eq!(
        scene.take(&seat("bob", "us-west1", "3")).await,
        Change::Came
    );
    assert_eq!(scene.who(&scene.lobby).await, ["ada", "bob"]);
}

/// A user goes with the last seat, and not before.
pub async fn last_seat_given_up_goes(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let seats = [seat("ada", "us-west1", "1"), seat("ada", "us-west1", "2")];
    for seat in &seats {
        scene.take(seat).await;
    }
    assert_eq!(scene.give_up(&seats[0]).await, Change::Same);
    assert_eq!(scene.who(&scene.lobby).await, ["ada"]);
    assert_eq!(scene.give_up(&seats[1]).await, Change::Went);
    assert!(scene.who(&scene.lobby).await.is_empty());
    harness.pass(TTL * 2).await;
    assert_eq!(
        scene.sweep(10).await,
        [],
        "what was given up doesn't expire"
    );
}

/// Giving up twice, or what was never taken, means nothing.
pub async fn giving_up_what_is_not_held_changes_nothing(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let ada = seat("ada", "us-west1", "1");
    assert_eq!(scene.give_up(&ada).await, Change::Same);
    scene.take(&ada).await;
    assert_eq!(
        scene.give_up(&seat("ada", "us-west1", "2")).await,
        Change::Same
    );
    assert_eq!(scene.give_up(&ada).await, Change::Went);
    assert_eq!(scene.give_up(&ada).await, Change::Same);
}

/// Taking a seat again is the same seat, with its time to live anew.
pub async fn taking_again_refreshes(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let ada = seat("ada", "us-west1", "1");
    assert_eq!(scene.take(&ada).await, Change::Came);
    assert_eq!(scene.take_for(&ada, TTL * 10).await, Change::Same);
    harness.pass(TTL * 2).await;
    assert_eq!(scene.sweep(10).await, []);
    assert_eq!(scene.who(&scene.lobby).await, ["ada"]);
    assert_eq!(scene.give_up(&ada).await, Change::Went);
}

/// A user whose seats have all expired comes again with the next, swept or not.
pub async fn taking_what_expired_comes_again(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let [one, two] = [seat("ada", "us-west1", "1"), seat("ada", "us-west1", "2")];
    scene.take(&one).await;
    harness.pass(TTL * 2).await;
    assert_eq!(scene.take_for(&two, TTL * 10).await, Change::Came);
    let swept = scene.sweep(10).await;
    assert_eq!(swept, [(scene.lobby.clone(), one.clone(), Change::Same)]);
    assert_eq!(scene.take_for(&one, TTL * 10).await, Change::Same);
    assert_eq!(scene.who(&scene.lobby).await, ["ada"]);
}

/// Expired seats don't count from the moment they expire, also before they are swept.
pub async fn expired_seats_are_neither_listed_nor_counted(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    scene.take(&seat("ada", "us-west1", "1")).await;
    scene.take(&seat("bob", "us-west1", "2")).await;
    scene
        .take_for(&seat("bob", "asia-northeast1", "3"), TTL * 10)
        .await;
    harness.pass(TTL * 2).await;
    let list = scene.presence.list(&scene.lobby, None, 10).await;
    let list = list.expect("presence is there");
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].user.as_str(), "bob");
    let asia = Region::new("asia-northeast1").expect("a good name");
    assert_eq!(list[0].regions, [asia]);
    assert_eq!(scene.presence.count(&scene.lobby).await, Ok(1));
}

/// Several sweepers at once share the expired seats: each seat goes to one of them.
pub async fn sweep_hands_each_expired_seat_to_one_caller(harness: &impl Harness) {
    const SEATS: usize = 100;
    let scene = Scene::new(harness).await;
    for number in 0..SEATS {
        let user = format!("user-{number}");
        scene.take(&seat(&user, "us-west1", &user)).await;
    }
    harness.pass(TTL * 2).await;
    let sweepers: Vec<_> = (0..4)
        .map(|_| {
            let presence = Arc::clone(&scene.presence);
            tokio::spawn(async move {
                let mut swept = Vec::new();
                loop {
                    let some = presence.sweep(7).await.expect("presence is there");
                    assert!(some.len() <= 7, "the limit holds");
                    if some.is_empty() {
                        return swept;
                    }
                    swept.extend(some);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut swept = Vec::new();
    for sweeper in sweepers {
        swept.extend(sweeper.await.expect("the sweeper ends"));
    }
    assert!(swept.iter().all(|(_, _, change)| *change == Change::Went));
    assert_eq!(swept.len(), SEATS);
    let distinct: HashSet<_> = swept.into_iter().map(|(_, seat, _)| seat).collect();
    assert_eq!(distinct.len(), SEATS);
}

/// Of a user's seats that expire together, the last one swept says that they went.
pub async fn sweep_says_once_that_a_user_went(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    for session in ["1", "2", "3"] {
        scene.take(&seat("ada", "us-west1", session)).await;
    }
    harness.pass(TTL * 2).await;
    let mut changes = Vec::new();
    for _ in 0..3 {
        changes.extend(
            scene
                .sweep(1)
                .await
                .into_iter()
                .map(|(_, _, change)| change),
        );
    }
    assert_eq!(changes, [Change::Same, Change::Same, Change::Went]);
    assert_eq!(scene.sweep(1).await, []);
}

/// Only what has expired is swept, and a user with another seat has not gone.
pub async fn sweep_leaves_what_has_not_expired(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let short = seat("ada", "us-west1", "1");
    scene.take(&short).await;
    scene
        .take_for(&seat("ada", "us-west1", "2"), TTL * 10)
        .await;
    assert_eq!(scene.sweep(10).await, []);
    harness.pass(TTL * 2).await;
    let swept = scene.sweep(10).await;
    assert_eq!(swept, [(scene.lobby.clone(), short, Change::Same)]);
    assert_eq!(scene.who(&scene.lobby).await, ["ada"]);
}

/// A seat that is refreshed in time stays, and nobody comes by it.
pub async fn refresh_keeps(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let [ada, bob] = [seat("ada", "us-west1", "1"), seat("bob", "us-west1", "2")];
    for seat in [&ada, &bob] {
        scene.take(seat).await;
    }
    for _ in 0..3 {
        harness.pass(TTL / 2).await;
        assert!(scene.refresh(&[&ada]).await.is_empty());
    }
    assert_eq!(scene.who(&scene.lobby).await, ["ada"]);
    let swept = scene.sweep(10).await;
    assert_eq!(swept, [(scene.lobby.clone(), bob, Change::Went)]);
}

/// Refreshing too late takes the seat again, and names each user who thereby came, once.
pub async fn refresh_takes_again_what_expired_and_says_who_came(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let [one, two] = [seat("ada", "us-west1", "1"), seat("ada", "us-west1", "2")];
    let bob = seat("bob", "us-west1", "3");
    scene.take(&one).await;
    scene.take_for(&bob, TTL * 10).await;
    harness.pass(TTL * 2).await;
    assert_eq!(scene.refresh(&[&one, &two, &bob]).await, ["#lobby/ada"]);
    assert_eq!(scene.who(&scene.lobby).await, ["ada", "bob"]);
    assert_eq!(scene.sweep(10).await, []);
    harness.pass(TTL * 2).await;
    assert_eq!(scene.sweep(10).await.len(), 3);
    assert_eq!(scene.refresh(&[&bob]).await, ["#lobby/bob"]);
}

/// The list goes on after a name, in order of the names.
pub async fn list_pages_by_name(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    for user in ["eve", "bob", "ada", "dan", "cat"] {
        scene.take(&seat(user, "us-west1", user)).await;
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = scene.presence.list(&scene.lobby, after.as_ref(), 2).await;
        let page = page.expect("presence is there");
        let Some(last) = page.last() else { break };
        after = Some(last.user.clone());
        pages.push(page.iter().map(|p| p.user.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["ada", "bob"], vec!["cat", "dan"], vec!["eve"]]);
    let between = UserName::new("boa").expect("a good name");
    let rest = scene.presence.list(&scene.lobby, Some(&between), 1).await;
    let rest = rest.expect("presence is there");
    assert_eq!(
        rest[0].user.as_str(),
        "bob",
        "a name that is not there will do"
    );
}

/// A user's regions are those of the seats, each once.
pub async fn regions_are_sorted_and_distinct(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    for (region, session) in [
        ("us-west1", "1"),
        ("asia-northeast1", "2"),
        ("us-west1", "3"),
    ] {
        scene.take(&seat("ada", region, session)).await;
    }
    let list = scene.presence.list(&scene.lobby, None, 10).await;
    let list = list.expect("presence is there");
    assert_eq!(list.len(), 1);
    let regions: Vec<_> = list[0].regions.iter().map(Region::as_str).collect();
    assert_eq!(regions, ["asia-northeast1", "us-west1"]);
}

/// The same session in two channels has two seats.
pub async fn channels_do_not_mix(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let games = channel("#games");
    let ada = seat("ada", "us-west1", "1");
    scene.take(&ada).await;
    let taken = scene.presence.take(&games, &ada, TTL * 10).await;
    assert_eq!(taken, Ok(Change::Came));
    harness.pass(TTL * 2).await;
    assert!(scene.who(&scene.lobby).await.is_empty());
    assert_eq!(scene.who(&games).await, ["ada"]);
    let swept = scene.sweep(10).await;
    assert_eq!(swept, [(scene.lobby.clone(), ada.clone(), Change::Went)]);
    assert_eq!(scene.presence.give_up(&games, &ada).await, Ok(Change::Went));
    assert!(scene.who(&channel("#nowhere")).await.is_empty());
}
