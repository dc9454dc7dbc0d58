//! Which hosts a TLS connection may be used for, by the certificate that its client got to see (RFC 9113 section 9.1.1).
//!
//! Clients send requests for other hosts on a connection that they have, if its certificate is for them as well. What is right for one of our certificates
//! may be wrong by the rules of another, so such a request for a host that the shown one is not for is misdirected, and the client tries again
//! on a connection of its own.

/// Whether a connection may be used for `host`, which may have a port. Its client asked for the name `asked`, and got to see a certificate for `names`.
pub fn covers(names: &[String], asked: Option<&str>, host: &str) -> bool {
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |it| it.0);
    // What was asked for is what was shown, or the client was content with another.
    if asked.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    // A client that asked for nobody wants an address, and no name is to be had but by the certificate.
    if asked.is_none() && is_address(host) {
        return true;
    }
    names.iter().any(|pattern| matches(pattern, host))
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_covered_by_the_certificate_that_was_shown() {
        let first = &["first.example", "*.first.example"][..];
        let (two, wild) = (&["b.example", "c.example"][..], &["*.wild.example"][..]);
        for (names, asked, host, expected) in [
            (two, Some("b.example"), "b.example", true),
            (two, Some("b.example"), "B.Example:8443", true),
            (two, Some("b.example"), "c.example", true),
            (two, Some("b.example"), "first.example", false),
            (two, Some("b.example"), "x.wild.example", false),
            (two, Some("b.example"), "127.0.0.1", false),
            (wild, Some("x.wild.example"), "y.wild.example", true),
            (wild, Some("x.wild.example"), "x.y.wild.example", false),
            (wild, Some("x.wild.example"), "b.example", false),
            // Who asked for a stranger, or for nobody.
            (first, Some("stranger.example"), "stranger.example", true),
            (first, Some("stranger.example"), "x.first.example", true),
            (first, Some("stranger.example"), "b.example", false),
            (first, None, "first.example", true),
            (first, None, "b.example", false),
            (first, None, "127.0.0.1", true),
            (first, None, "[::1]:8443", true),
        ] {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(covers(&names, asked, host), expected, "{asked:?} {host}");
        }
    }
}
