//! Pages of lists: a page's token is the last name of the page before.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::Status;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// The name that a page comes after: none for the first.
pub(crate) fn after(token: &str) -> Result<String, Status> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Status::invalid_argument("Invalid page_token given."))
}

/// Cuts a list to a page, and answers the token of the next.
pub(crate) fn cut<T>(
    list: &mut Vec<T>,
    page_size: i32,
    name: impl Fn(&T) -> &str,
) -> Result<String, Status> {
    let size = match usize::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(LARGEST_PAGE),
        Err(_) => return Err(Status::invalid_argument("Invalid page_size given.")),
    };
    if list.len() <= size {
        return Ok(String::new());
    }
    list.truncate(size);
    let last = list.last().map(name).unwrap_or_default();
    Ok(URL_SAFE_NO_PAD.encode(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_what_comes_after_the_page() {
        let mut list = vec!["a", "b", "c"];
        let token = cut(&mut list, 2, |name| name).expect("a page size");
        assert_eq!(list, ["a", "b"]);
        assert_eq!(after(&token).expect("its own token"), "b");
        assert_eq!(cut(&mut list, 2, |name| name).expect("a page size"), "");
    }
}
