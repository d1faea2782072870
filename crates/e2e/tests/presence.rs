//! Who is there, who comes and who goes, in both regions.
#![allow(clippy::expect_used)]

use std::time::Duration;

use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, bearer};
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};

async fn comes(session: &mut RawSession, user: &str) {
    session
        .until(|kind| match kind {
            Kind::Presence(presence) => presence.came.iter().any(|name| name == user).then_some(()),
            _ => None,
        })
        .await;
}

async fn goes(session: &mut RawSession, user: &str) {
    session
        .until(|kind| match kind {
            Kind::Presence(presence) => presence.went.iter().any(|name| name == user).then_some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn each_sees_who_comes_and_who_goes_in_both_regions() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(ASIA, "bob", "#general").await;
    comes(&mut alice, "bob").await;

    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    comes(&mut alice, "charlie").await;
    comes(&mut bob, "charlie").await;

    charlie
        .send(Frame::Leave(chat::Leave {
            channel: "#general".to_owned(),
        }))
        .await;
    goes(&mut alice, "charlie").await;
    goes(&mut bob, "charlie").await;

    drop(bob);
    goes(&mut alice, "bob").await;
}

#[tokio::test]
async fn a_joining_session_learns_who_is_there() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let _bob = stack.joined(ASIA, "bob", "#general").await;
    comes(&mut alice, "bob").await;
    let token = alice.token.clone();
    let mut second = stack.session_for(WEST, &token, "#general").await;
    let joined = second.join("#general").await;
    let present: Vec<_> = joined
        .present
        .iter()
        .map(|member| member.user.as_str())
        .collect();
    assert_eq!(
        (present, joined.present_count, joined.presence_stale),
        (vec!["alice", "bob"], 2, false)
    );
}

#[tokio::test]
async fn a_users_second_session_neither_comes_nor_goes() {
    let stack = TestStack::start().await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    comes(&mut bob, "alice").await;
    let mut second = stack
        .session_for(WEST, &alice.token.clone(), "#general")
        .await;
    second.join("#general").await;
    second
        .send(Frame::Leave(chat::Leave {
            channel: "#general".to_owned(),
        }))
        .await;
    second.ping(1).await;
    alice.say("#general", "still here").await;
    let quiet = bob
        .until(|kind| match kind {
            Kind::Presence(presence) => Some(Err(presence)),
            Kind::Message(_) => Some(Ok(())),
            _ => None,
        })
        .await;
    quiet.expect("no presence before the message");
}

#[tokio::test]
async fn members_are_listed_with_the_regions_they_are_in() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let _bob = stack.joined(ASIA, "bob", "#general").await;
    comes(&mut alice, "bob").await;
    let shard = stack.regions[WEST].shards[0].address.to_string();
    let request = chat::ListMembersRequest {
        channel: "#general".to_owned(),
        ..Default::default()
    };
    let listed = stack
        .chat(&shard)
        .await
        .list_members(bearer(&alice.token, request))
        .await;
    let members: Vec<_> = listed.expect("listed").into_inner().members;
    let members: Vec<_> = members
        .iter()
        .map(|member| {
            (
                member.user.as_str(),
                member.role.as_str(),
                member.regions.join(","),
            )
        })
        .collect();
    assert_eq!(
        members,
        [
            ("alice", "owner", "us-west1".to_owned()),
            ("bob", "member", "asia-northeast1".to_owned())
        ]
    );
}

#[tokio::test]
async fn typing_is_seen_by_others_in_both_regions() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    alice
        .send(Frame::SetTyping(chat::SetTyping {
            channel: "#general".to_owned(),
        }))
        .await;
    for session in [&mut bob, &mut charlie] {
        let user = session
            .until(|kind| match kind {
                Kind::Typing(typing) => Some(typing.user),
                _ => None,
            })
            .await;
        assert_eq!(user, "alice");
    }
}

#[tokio::test]
async fn a_seat_that_nobody_refreshes_is_announced_as_gone() {
    let stack =
        TestStack::start_with(|config| config.tuning.seat_ttl = Duration::from_millis(600)).await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let _bob = stack.joined(ASIA, "bob", "#general").await;
    comes(&mut alice, "bob").await;
    // Asia's seats are repeated over the bus; once that is cut, they expire in the west.
    stack.cut();
    goes(&mut alice, "bob").await;
    stack.heal();
    comes(&mut alice, "bob").await;
}
