//! What every store promises, case by named case.
//!
//! A backend implements [`Harness`] and lists nothing: [`contract_tests!`](crate::contract_tests)
//! makes one test of each case. Each case uses an empty store and no clock but the harness's.

pub mod channels;
pub mod following;
pub mod history;
pub mod revocations;
pub mod routing;
pub mod suspicion;
pub mod users;

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_types::{ChannelName, Region, UserName};
use tokio::task::JoinSet;

use crate::{Metadata, MetadataError};

/// A backend under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// An empty store, apart from every other.
    async fn fresh(&self) -> Arc<dyn Metadata>;

    /// Returns once so much time, and not much more, has passed by the store's clock.
    async fn pass(&self, time: Duration);

    /// Takes all its stores away, or gives them back: calls may fail or wait meanwhile.
    async fn set_away(&self, away: bool);
}

/// One test of each case.
///
/// Give the attributes that make an async test, then an expression for a [`Harness`]:
/// ```text
/// infrachat_metadata::contract_tests! {
///     #[tokio::test(start_paused = true)]
///     MemoryHarness
/// }
/// ```
#[macro_export]
macro_rules! contract_tests {
    ($(#[$($attribute:tt)+])+ $harness:expr) => {
        $crate::contract_tests! {
            @modules [$(#[$($attribute)+])+] [$harness]
            users {
                a_user_reads_back
                a_taken_name_is_refused_whatever_the_password
                of_concurrent_registrations_exactly_one_wins
                a_copied_user_never_goes_back
                a_copied_name_is_taken
                a_sign_in_reads_back
                a_rotation_with_an_outdated_version_conflicts
                of_concurrent_rotations_exactly_one_wins
                a_users_sign_ins_leave_out_revoked_and_expired_ones
            }
            revocations {
                a_revocation_reads_back
                a_user_and_each_sign_in_are_revoked_apart
                revoking_again_keeps_the_later_times
                of_concurrent_revocations_the_latest_times_hold
                a_revocation_is_listed_until_it_is_forgotten
            }
            channels {
                a_channel_reads_back
                of_concurrent_creates_exactly_one_wins
                a_copied_channel_never_goes_back
                a_copied_channel_name_is_taken
                a_list_pages_by_name
                a_list_keeps_to_its_prefix
                private_channels_are_listed_to_members_only
                hidden_channels_take_no_room_in_a_list
                a_list_follows_changes
            }
            history {
                an_empty_channel_has_no_history
                a_batch_of_several_channels_is_kept_whole
                a_writer_of_an_older_epoch_writes_nothing
                nobody_writes_to_a_partition_never_taken_or_released
                a_takeover_splits_writes_cleanly
                pages_go_back_by_message_id
                pages_go_forward_by_message_id
                the_two_orders_differ
                append_order_is_exact_across_epochs
                the_tail_is_the_newest_in_append_order
                the_smaller_id_wins_when_it_comes_second
                the_smaller_id_wins_when_it_comes_first
                the_smaller_id_wins_within_one_batch
                a_repeated_batch_changes_nothing
                a_message_is_found_by_its_identity
                channels_do_not_mix
            }
            routing {
                a_lease_reads_back_as_last_renewed
                a_lease_ages_until_it_is_renewed
                an_ended_lease_is_gone
                ending_another_lifes_lease_changes_nothing
                of_two_lives_the_later_to_begin_has_the_lease
                of_concurrent_takers_exactly_one_wins
                ownerships_tell_who_took_what
                epochs_rise_with_every_owner
                epochs_rise_after_a_release_too
                a_live_holder_refuses
                an_expired_holder_yields
                a_holder_whose_lease_was_ended_yields
                a_restarted_shard_gives_up_its_former_lifes_partitions
                the_same_life_takes_again_under_a_new_epoch
                a_release_under_an_old_epoch_changes_nothing
            }
            suspicion {
                a_suspect_shards_lease_runs_out
                a_suspicion_ends_by_itself
                a_repeated_suspicion_lasts_longer_and_makes_no_lease_younger
                another_life_is_not_suspect
                a_shard_that_drains_or_is_gone_is_not_suspected
                half_of_the_shards_are_never_suspect
                of_concurrent_suspicions_half_are_refused
                a_follower_sees_a_suspicion_and_its_end
            }
            following {
                a_follower_starts_with_what_is_there
                a_follower_sees_a_renewed_lease
                a_follower_sees_a_lease_end
                a_follower_sees_a_partition_change_hands
                a_follower_never_goes_back
                an_age_only_grows_until_the_renewal
                a_follower_is_told_when_the_store_is_away
            }
        }
    };
    (@modules $attributes:tt $harness:tt $($module:ident { $($case:ident)+ })+) => {
        $(
            mod $module {
                #[allow(unused_imports)]
                use super::*;
                $crate::contract_tests! { @cases $attributes $harness $module $($case)+ }
            }
        )+
    };
    (@cases $attributes:tt $harness:tt $module:ident $($case:ident)+) => {
        $( $crate::contract_tests! { @case $attributes $harness $module $case } )+
    };
    (@case [$(#[$($attribute:tt)+])+] [$harness:expr] $module:ident $case:ident) => {
        $(#[$($attribute)+])+
        async fn $case() {
            $crate::contract::$module::$case(&$harness).await;
        }
    };
}

fn user_name(name: &str) -> UserName {
    UserName::new(name).expect("a valid user name")
}

fn channel_name(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a valid channel name")
}

fn region() -> Region {
    Region::new("us-west1").expect("a valid region")
}

/// Runs calls at once, and gives their answers as they come.
async fn at_once<T, F>(calls: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    calls.into_iter().collect::<JoinSet<T>>().join_all().await
}

/// The answer of the one call that succeeded; the others failed as expected.
fn only_winner<T: Debug>(
    answers: Vec<Result<T, MetadataError>>,
    expected: impl Fn(&MetadataError) -> bool,
) -> T {
    let mut winners = Vec::new();
    for answer in answers {
        match answer {
            Ok(winner) => winners.push(winner),
            Err(err) => assert!(expected(&err), "a loser got {err:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    winners.remove(0)
}
