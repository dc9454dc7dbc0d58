//! Which hosts a TLS connection may be used for, by the certificate that its client got to see (RFC 9113 section 9.1.1).
//!
//! Clients send requests for other hosts on a connection that they have, if its certificate is for them as well. What is right for one of our certificates
//! may be wrong by the rules of another, so such a request for a host that the shown one is not for is misdirected, and the client tries again
//! on a connection of its own.

/// Whether a connection whose client asked for `name` may be used for `host`, which may have a port. Certificates are given by the names that each is
/// for.
pub fn covers(certificates: &[impl AsRef<[String]>], name: Option<&str>, host: &str) -> bool {
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |it| it.0);
    // What was asked for is what was shown, or the client was content with another.
    if name.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    // A client that asked for nobody wants an address, and no name is to be had but by the certificate.
    if name.is_none() && is_address(host) {
        return true;
    }
    shown(certificates, name).iter().any(|pattern| matches(pattern, host))
}

/// The names of the certificate that a client gets to see that asks for `name`. Those of several certificates for one name are alike in what
/// they are for, or the first is meant.
fn shown<'c>(certificates: &'c [impl AsRef<[String]>], name: Option<&str>) -> &'c [String] {
    let has = |exact: bool| {
        certificates.iter().find(|certificate| {
            let mut patterns = certificate.as_ref().iter().filter(|pattern| pattern.starts_with("*.") != exact);
            name.is_some_and(|name| patterns.any(|pattern| matches(pattern, name)))
        })
    };
    has(true).or_else(|| has(false)).or(certificates.first()).map_or(&[], AsRef::as_ref)
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

    const CERTIFICATES: [&[&str]; 3] =
        [&["first.example", "*.first.example"], &["b.example", "c.example"], &["*.wild.example"]];

    fn is_covered(name: Option<&str>, host: &str) -> bool {
        let certificates: Vec<Vec<String>> =
            CERTIFICATES.iter().map(|names| names.iter().map(|&name| name.to_owned()).collect()).collect();
        let certificates: Vec<&[String]> = certificates.iter().map(Vec::as_slice).collect();
        covers(&certificates, name, host)
    }

    #[test]
    fn a_host_is_covered_by_the_certificate_that_was_shown() {
        for (name, host, expected) in [
            (Some("b.example"), "b.example", true),
            (Some("b.example"), "B.Example:8443", true),
            (Some("b.example"), "c.example", true),
            (Some("b.example"), "first.example", false),
            (Some("b.example"), "x.wild.example", false),
            (Some("x.wild.example"), "y.wild.example", true),
            (Some("x.wild.example"), "x.y.wild.example", false),
            (Some("x.wild.example"), "b.example", false),
            // The first certificate is shown to those who ask for a stranger, or for nobody.
            (Some("stranger.example"), "stranger.example", true),
            (Some("stranger.example"), "x.first.example", true),
            (Some("stranger.example"), "b.example", false),
            (None, "first.example", true),
            (None, "b.example", false),
            (None, "127.0.0.1", true),
            (None, "[::1]:8443", true),
            (Some("b.example"), "127.0.0.1", false),
        ] {
            assert_eq!(is_covered(name, host), expected, "{name:?} {host}");
        }
    }
}
