//! What names, addresses and fields look like.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::limits;
use crate::config::plan::{EndpointPlan, EndpointTarget, SocketAddress};

/// Whether `text` is a token (RFC 9110 section 5.6.2): the form of methods and field names.
pub(super) fn is_token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(known)
}

/// Whether `text` may be a field value (RFC 9110 section 5.5): visible characters, spaces and tabs, nothing that ends a
/// line, and no space at its ends, which would be lost on the way.
pub(super) fn is_field_value(text: &str) -> bool {
    let known = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    text.bytes().all(known) && text.trim_matches([' ', '\t']).len() == text.len()
}

/// Reads a host name, an IPv4 address or an IPv6 address in brackets into the form in which hosts are compared: lower
/// case, without a final dot.
pub(super) fn read_host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[') {
        let address = address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        return Some(format!("[{address}]"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    (name.len() <= limits::HOST && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

/// Reads `ip:port` or `unix:/path`.
///
/// # Errors
///
/// Problem and remedy.
pub(super) fn read_socket_address(text: &str) -> Result<SocketAddress, (&'static str, &'static str)> {
    if let Some(path) = text.strip_prefix("unix:") {
        return read_unix_path(path).map(SocketAddress::Unix);
    }
    text.parse::<SocketAddr>().map(SocketAddress::Ip).map_err(|_| {
        (
            "it is not an address to listen on",
            "write \"ip:port\", as in \"0.0.0.0:8080\" or \"[::]:8080\", or \"unix:/path\"",
        )
    })
}

/// Whether an endpoint is spoken to over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Plain,
    Tls,
}

/// Reads `http://host:port`, `https://host:port` or `unix:/path`.
///
/// # Errors
///
/// Problem and remedy.
pub(super) fn read_endpoint(text: &str) -> Result<(Scheme, EndpointPlan), (&'static str, &'static str)> {
    const REMEDY: &str = "write \"http://host:port\", \"https://host:port\" or \"unix:/path\"";
    if let Some(path) = text.strip_prefix("unix:") {
        let target = EndpointTarget::Unix(read_unix_path(path)?);
        return Ok((Scheme::Plain, EndpointPlan { target, authority: "localhost".to_owned() }));
    }
    let (scheme, default_port, authority) = if let Some(authority) = text.strip_prefix("http://") {
        (Scheme::Plain, 80, authority)
    } else if let Some(authority) = text.strip_prefix("https://") {
        (Scheme::Tls, 443, authority)
    } else {
        return Err(("it is not the address of an endpoint", REMEDY));
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#']) {
        return Err(("an endpoint has no path", "leave it out; paths are a route's \"rewrite\""));
    }
    if authority.contains('@') {
        return Err(("an endpoint has no user name", "leave it out; set a field for credentials"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, read_port(port)),
        Some(_) | None => (authority, Some(default_port)),
    };
    let host = read_host(host).ok_or(("it has no valid host", REMEDY))?;
    let port = port.ok_or(("it has no valid port", "write a port from 1 to 65535"))?;
    let authority = if port == default_port { host.clone() } else { format!("{host}:{port}") };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let target = match address.parse::<IpAddr>() {
        Ok(ip) => EndpointTarget::Address(SocketAddr::new(ip, port)),
        Err(_) => EndpointTarget::Name { host, port },
    };
    Ok((scheme, EndpointPlan { target, authority }))
}

/// Reads `host` or `host:port` into the value of a `Host` field.
pub(super) fn read_authority(text: &str) -> Option<String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some(format!("{}:{}", read_host(host)?, read_port(port)?)),
        Some(_) | None => read_host(text),
    }
}

fn read_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u16>().ok().filter(|port| is_number && *port != 0)
}

fn read_unix_path(path: &str) -> Result<PathBuf, (&'static str, &'static str)> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(("it is not the path of a socket", "write an absolute path, as in \"unix:/run/app.sock\""));
    }
    if path.len() > limits::UNIX_PATH {
        return Err(("the path is longer than a socket's address can be", "use a path of 107 bytes at most"));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_lower_case_and_without_a_final_dot() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
        for (text, expected) in [
            ("API.example.com.", Some("api.example.com")),
            ("_dmarc.a-b", Some("_dmarc.a-b")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[0:0::1]", Some("[::1]")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a b", None),
            ("bücher.example", None),
            ("::1", None),
            ("[::1", None),
            ("[fe80::1%eth0]", None),
            ("*.example.com", None),
            (&long_label, None),
            (&long_name, None),
        ] {
            assert_eq!(read_host(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn endpoints_are_an_address_a_name_or_a_socket() {
        let name = |host: &str, port| EndpointTarget::Name { host: host.to_owned(), port };
        let address = |text: &str| EndpointTarget::Address(text.parse().expect("it is an address"));
        for (text, target, authority) in [
            ("http://orders.internal:9000", name("orders.internal", 9000), "orders.internal:9000"),
            ("http://Orders.internal", name("orders.internal", 80), "orders.internal"),
            ("http://127.0.0.1:9000/", address("127.0.0.1:9000"), "127.0.0.1:9000"),
            ("http://[::1]", address("[::1]:80"), "[::1]"),
            ("http://[::1]:81", address("[::1]:81"), "[::1]:81"),
            ("http://orders:443", name("orders", 443), "orders:443"),
            ("https://Orders.internal", name("orders.internal", 443), "orders.internal"),
            ("https://orders:80", name("orders", 80), "orders:80"),
            ("https://[::1]:8443/", address("[::1]:8443"), "[::1]:8443"),
            ("unix:/run/app.sock", EndpointTarget::Unix("/run/app.sock".into()), "localhost"),
        ] {
            let scheme = if text.starts_with("https:") { Scheme::Tls } else { Scheme::Plain };
            let expected = (scheme, EndpointPlan { target, authority: authority.to_owned() });
            assert_eq!(read_endpoint(text), Ok(expected), "{text}");
        }
        for text in [
            "orders:9000",
            "https://",
            "https://a/b",
            "https+unix:/run/app.sock",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:+1",
            "http://a:65536",
            "http://a:",
            "http://a/b",
            "http://u@a",
            "http://::1:80",
            "unix:run/app.sock",
            "unix:",
        ] {
            assert!(read_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_values_cannot_end_their_line() {
        for (text, valid) in [
            ("a b\tc", true),
            ("", true),
            ("grüße", true),
            ("a\r\nb", false),
            ("a\nb", false),
            ("a\0b", false),
            ("a\x7fb", false),
            (" a", false),
            ("a\t", false),
        ] {
            assert_eq!(is_field_value(text), valid, "{text:?}");
        }
    }
}
