//! What every backend of [`Revocations`] must do, case by case. Each case uses users and sign-ins of
//! its own, so that backends may be shared.

use infrachat_types::{Region, TokenFamilyId, UserName, unix_millis};

use super::{Revocation, Revocations};
use crate::Claims;

/// Makes a test of each case. `$make` is an expression that is awaited for a fresh backend.
#[macro_export]
macro_rules! revocations_contract {
    ($make:expr) => {
        $crate::revocations_contract!(@ $make;
            a_revoked_sign_in_takes_its_tokens_and_no_others,
            a_revoked_user_loses_every_token_issued_until_then,
            revoking_again_never_takes_back,
            what_is_past_its_time_is_forgotten,
            all_lists_what_was_revoked,
        );
    };
    (@ $make:expr; $($case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::revocation::contract::$case(&$make.await).await;
            }
        )+
    };
}

fn someone() -> UserName {
    UserName::new(&format!("u{}", TokenFamilyId::random())).expect("a valid name")
}

fn claims(user: &UserName, family: &TokenFamilyId, issued_at: i64) -> Claims {
    Claims {
        user: user.clone(),
        family: family.clone(),
        issued_at,
        expires_at: issued_at + 600_000,
        issuer: "https://issuer".to_owned(),
        region: Region::new("us-west1").expect("a valid region"),
        jti: "jti".to_owned(),
    }
}

fn revocation(user: &UserName, family: Option<&TokenFamilyId>, issued_until: i64) -> Revocation {
    Revocation {
        user: user.clone(),
        family: family.cloned(),
        issued_until,
        forget_after: issued_until + 600_000,
    }
}

async fn revoked(backend: &impl Revocations, claims: &Claims) -> bool {
    backend.is_revoked(claims).await.expect("available")
}

/// A revoked sign-in takes its own tokens with it, and no other of the user's.
pub async fn a_revoked_sign_in_takes_its_tokens_and_no_others(backend: &impl Revocations) {
    let (user, now) = (someone(), unix_millis());
    let (ended, other) = (TokenFamilyId::random(), TokenFamilyId::random());
    assert!(!revoked(backend, &claims(&user, &ended, now)).await);
    let revocation = revocation(&user, Some(&ended), now);
    backend.revoke(revocation).await.expect("available");
    assert!(revoked(backend, &claims(&user, &ended, now)).await);
    assert!(!revoked(backend, &claims(&user, &other, now)).await);
}

/// A revoked user loses all tokens issued by then, to the millisecond; later ones are good.
pub async fn a_revoked_user_loses_every_token_issued_until_then(backend: &impl Revocations) {
    let (user, family, now) = (someone(), TokenFamilyId::random(), unix_millis());
    let revocation = revocation(&user, None, now);
    backend.revoke(revocation).await.expect("available");
    assert!(revoked(backend, &claims(&user, &family, now - 1)).await);
    assert!(revoked(backend, &claims(&user, &TokenFamilyId::random(), now)).await);
    assert!(!revoked(backend, &claims(&user, &family, now + 1)).await);
    assert!(!revoked(backend, &claims(&someone(), &family, now)).await);
}

/// An older revocation that comes late does not weaken a newer one.
pub async fn revoking_again_never_takes_back(backend: &impl Revocations) {
    let (user, family, now) = (someone(), TokenFamilyId::random(), unix_millis());
    for until in [now, now - 1_000] {
        let revocation = revocation(&user, None, until);
        backend.revoke(revocation).await.expect("available");
    }
    assert!(revoked(backend, &claims(&user, &family, now)).await);
}

/// What is past its `forget_after` is neither listed nor kept.
pub async fn what_is_past_its_time_is_forgotten(backend: &impl Revocations) {
    let (user, family, now) = (someone(), TokenFamilyId::random(), unix_millis());
    let mut past = revocation(&user, Some(&family), now - 2_000);
    past.forget_after = now - 1_000;
    backend.revoke(past).await.expect("available");
    let all = backend.all().await.expect("available");
    assert!(all.iter().all(|revocation| revocation.user != user));
}

/// All are listed, as they were given.
pub async fn all_lists_what_was_revoked(backend: &impl Revocations) {
    let (user, family, now) = (someone(), TokenFamilyId::random(), unix_millis());
    let given = [
        revocation(&user, Some(&family), now),
        revocation(&user, None, now),
    ];
    for revocation in &given {
        let revocation = revocation.clone();
        backend.revoke(revocation).await.expect("available");
    }
    let all = backend.all().await.expect("available");
    let of_user = all.iter().filter(|revocation| revocation.user == user);
    assert_eq!(of_user.count(), 2);
    assert!(given.iter().all(|revocation| all.contains(revocation)));
}
