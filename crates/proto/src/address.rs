//! How the addresses that records and answers name are spoken to.

/// The URI of a "host:port": port 443 means TLS. What has a scheme stays as it is.
#[must_use]
pub fn uri_of(address: &str) -> String {
    match address.split_once("://") {
        Some(_) => address.to_owned(),
        None if address.ends_with(":443") => format!("https://{address}"),
        None => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_443_means_tls_and_a_scheme_says_what_it_says() {
        assert_eq!(uri_of("shard.example:443"), "https://shard.example:443");
        assert_eq!(uri_of("127.0.0.1:8443"), "http://127.0.0.1:8443");
        assert_eq!(
            uri_of("http://shard.example:443"),
            "http://shard.example:443"
        );
    }
}
