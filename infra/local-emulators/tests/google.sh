#!/usr/bin/env bash
# Google's clients, our tests and our backends against Google's emulators: `make test-google-emulators` starts them for it.
#
# Left out is what Google's are known to do otherwise; README.md says why, section "Compared with Google's emulators".
# Tests that need faults or moved time start an emulator of ours, as ever.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
export INFRACHAT_TEST_PUBSUB=${PUBSUB_EMULATOR_HOST:?use make test-google-emulators}
export INFRACHAT_TEST_FIRESTORE=${FIRESTORE_EMULATOR_HOST:?use make test-google-emulators}

pubsub=(
    a_detached_subscription_gives_nothing
    a_filter_lets_only_matching_messages_in
    a_message_given_back_five_times_goes_to_the_dead_letter_topic
    a_message_given_back_waits_for_its_backoff
    refusals_have_googles_codes
    topics_and_subscriptions_are_administered_by_rest
    a_push_carries_the_message_and_a_token_that_the_published_keys_verify
    a_subscription_changes_between_pull_and_push
    without_a_wrapper_the_body_is_the_data
    errors_have_googles_form
    lists_take_their_page_from_the_query
    a_stream_ends_with_the_reason
    a_stream_sends_no_more_than_the_client_can_bear
    two_streams_share_messages_and_never_a_key
)
firestore=(
    client::a_batch_is_written
    client::a_listener_follows_a_query
    documents::a_commit_applies_all_writes_or_none
    documents::a_reset_over_http_empties_one_database
    documents::documents_are_listed_page_by_page_and_missing_ones_on_request
    limits::a_request_over_10_mib_is_refused
    limits::more_than_500_writes_are_one_commit
    limits::the_size_of_a_refused_document_is_told
    listen::a_client_that_falls_far_behind_still_hears_of_every_document
    listen::a_limited_query_is_filled_up_from_those_behind
    listen::a_resumed_target_gets_just_what_it_missed
    listen::a_target_wanted_once_ends_when_it_is_current
    listen::requests_for_another_database_end_the_stream
    listen::targets_of_one_stream_change_together
    queries::a_partitioned_group_covers_every_document_once
    queries::equality_and_ranges_follow_the_documented_rules_on_types
    queries::offset_limit_and_projection
    # Locks.
    client::the_crate_retries_an_aborted_transaction_by_itself
    client::twenty_contending_transactions_all_succeed_and_none_is_lost
    transactions::a_change_by_anyone_to_a_document_that_was_read_aborts
    transactions::a_document_that_enters_a_queried_range_aborts
    transactions::a_transaction_begins_with_its_first_read
    transactions::a_transaction_reads_one_moment_whatever_others_commit
    transactions::of_two_that_read_and_write_one_document_the_second_is_aborted_and_may_retry
)
bus=(
    # A closed stream gets messages for another minute.
    a_key_is_with_one_consumer_at_a_time
    acked_event_is_not_delivered_again
    consumers_join_and_leave_without_loss
    dropped_consumer_hands_back
    # What is given back waits for the later ones of its key.
    nacked_event_comes_again_and_later_ones_of_its_key_after_it
)
metadata=(
    # Needs faults.
    following::a_follower_is_told_when_the_store_is_away
    # Locks: a refused takeover leaves its transaction open.
    routing::a_restarted_shard_gives_up_its_former_lifes_partitions
)

status=0
# Tests of one package, but for some; one at a time, since they share the emulators.
run() {
    local package=$1 tests=() skips=() name
    shift
    while [[ $1 != -- ]]; do tests+=(--test "$1") && shift; done
    shift
    for name in "$@"; do skips+=(--skip "$name"); done
    cargo test --quiet --package "$package" "${tests[@]}" --no-fail-fast -- --test-threads=1 "${skips[@]}" || status=1
}

"$here/python/run.sh" || status=1
run infrachat-emulators delivery official_client push rest streaming -- "${pubsub[@]}"
run infrachat-emulators firestore -- "${firestore[@]}"
run infrachat-bus pubsub -- "${bus[@]}"
run infrachat-metadata firestore -- "${metadata[@]}"
exit "$status"
