//! Access tokens that are no longer good, though they have not expired.

use crate::{TokenFamilyId, UnixMillis, UserName};

/// Tokens that are no longer good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub user: UserName,
    /// Those of one sign-in, or all of the user's.
    pub family: Option<TokenFamilyId>,
    /// Those issued up to then.
    pub issued_until: UnixMillis,
    /// When the last of them has expired.
    pub forget_after: UnixMillis,
}

impl Revocation {
    /// Takes in another of the same tokens: of both times the later holds, whichever came first.
    /// Answers whether that changed anything.
    pub fn extend(&mut self, other: &Self) -> bool {
        let before = (self.issued_until, self.forget_after);
        self.issued_until = self.issued_until.max(other.issued_until);
        self.forget_after = self.forget_after.max(other.forget_after);
        before != (self.issued_until, self.forget_after)
    }
}
