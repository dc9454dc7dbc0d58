//! One spelling for every path (RFC 3986 section 6.2.2), so that what is routed is what the upstream sees.
//!
//! Escapes of unreserved characters are decoded and the others kept in upper case, then dot segments are removed, escaped or not. It is
//! done once: what decodes to an escape stays as it is. `%2F` and other escaped delimiters stay escaped, since `/` and `%2F` are different
//! to those who care. Empty segments stay: `//` and `/` are different resources.
//!
//! What nobody sends in good faith is refused: broken escapes, NUL, backslashes (which some backends read as `/`), and climbing above the root.

use thiserror::Error;

use super::octets::{TARGET, is};

/// Why a path was refused; 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum TargetFault {
    #[error("the path does not begin with a slash")]
    NoSlash,
    #[error("the path holds a byte that paths may not hold")]
    BadByte,
    #[error("a percent sign in the path is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("the path holds an escaped NUL")]
    Nul,
    #[error("the path holds a backslash")]
    Backslash,
    #[error("the path climbs above its root")]
    AboveRoot,
}

/// Gives `path` its normal form. One that has it already comes back as it is; another is written to `scratch`, which is cleared first.
/// The `*` of OPTIONS is no path.
///
/// # Errors
/// [`TargetFault`]; the first one found.
pub fn normalize<'a>(path: &'a str, scratch: &'a mut String) -> Result<&'a str, TargetFault> {
    if !path.starts_with('/') {
        return Err(TargetFault::NoSlash);
    }
    if is_plain(path.as_bytes()) {
        return Ok(path);
    }
    scratch.clear();
    scratch.reserve(path.len());
    decode(path, scratch)?;
    Ok(scratch)
}

/// Nothing to decode, nothing to refuse, and no segment that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let plain = is(byte, TARGET) && !matches!(byte, b'%' | b'\\' | b'?') && !(byte == b'.' && before == b'/');
        before = byte;
        plain
    })
}

/// RFC 3986 section 5.2.4 happens on the way: whenever a segment is whole, what it does to those before it is done.
fn decode(path: &str, decoded: &mut String) -> Result<(), TargetFault> {
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'/' if decoded.is_empty() => decoded.push('/'),
            b'/' => {
                if !fold_dot_segment(decoded)? {
                    decoded.push('/');
                }
            }
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(TargetFault::BadEscape) };
                rest = tail;
                push_escape(*high, *low, decoded)?;
            }
            b'\\' => return Err(TargetFault::Backslash),
            b'?' => return Err(TargetFault::BadByte),
            _ if is(*byte, TARGET) => decoded.push(char::from(*byte)),
            _ => return Err(TargetFault::BadByte),
        }
    }
    fold_dot_segment(decoded).map(|_| ())
}

/// Takes a last segment of `.` or `..` off a path that begins with `/`. If there was one, the path now ends in the slash that it leaves.
/// `..` at the root is refused, not ignored.
fn fold_dot_segment(path: &mut String) -> Result<bool, TargetFault> {
    let slash = path.rfind('/').expect("every path begins with a slash");
    let keep = match &path[slash + 1..] {
        "." => slash,
        ".." => path[..slash].rfind('/').ok_or(TargetFault::AboveRoot)?,
        _ => return Ok(false),
    };
    path.truncate(keep + 1);
    Ok(true)
}

fn push_escape(high: u8, low: u8, decoded: &mut String) -> Result<(), TargetFault> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(TargetFault::BadEscape);
    let byte = (digit(high)? << 4 | digit(low)?) as u8;
    match byte {
        0 => return Err(TargetFault::Nul),
        b'\\' => return Err(TargetFault::Backslash),
        b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => decoded.push(char::from(byte)),
        _ => decoded.extend(['%', char::from(high.to_ascii_uppercase()), char::from(low.to_ascii_uppercase())]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a.b/.c", "/a.b/.c"),
            ("/a/...", "/a/..."),
            ("/a//b", "/a//b"),
            ("/a;b=c,d:e@f$g&h'i(j)k*l+m!", "/a;b=c,d:e@f$g&h'i(j)k*l+m!"),
            // Escapes.
            ("/%61%5A%30%2d%2E%5f%7e", "/aZ0-._~"),
            ("/%2f%3f%c3%a9", "/%2F%3F%C3%A9"),
            ("/%2525", "/%2525"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%25%32%65", "/%252e"),
            // Dot segments.
            ("/.", "/"),
            ("/./", "/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../../c", "/c"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a//..", "/a/"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/..%2fb", "/a/..%2Fb"),
        ];
        let mut scratch = String::from("left over");
        for (path, expected) in cases {
            let normal = normalize(path, &mut scratch).expect(path).to_owned();
            assert_eq!(normal, expected, "{path}");
            assert_eq!(normalize(&normal.clone(), &mut scratch), Ok(normal.as_str()), "{path} twice");
        }
    }

    #[test]
    fn paths_that_mean_mischief_are_refused() {
        let cases = [
            ("", TargetFault::NoSlash),
            ("a", TargetFault::NoSlash),
            ("*", TargetFault::NoSlash),
            ("%2Fa", TargetFault::NoSlash),
            ("/..", TargetFault::AboveRoot),
            ("/../a", TargetFault::AboveRoot),
            ("/a/../..", TargetFault::AboveRoot),
            ("/%2e%2e/a", TargetFault::AboveRoot),
            ("/%", TargetFault::BadEscape),
            ("/%2", TargetFault::BadEscape),
            ("/%2g", TargetFault::BadEscape),
            ("/%+2", TargetFault::BadEscape),
            ("/%u002e", TargetFault::BadEscape),
            ("/%00", TargetFault::Nul),
            ("/a\\b", TargetFault::Backslash),
            ("/a%5cb", TargetFault::Backslash),
            ("/a b", TargetFault::BadByte),
            ("/a#b", TargetFault::BadByte),
            ("/a?b", TargetFault::BadByte),
            ("/\u{e9}", TargetFault::BadByte),
            ("/\n", TargetFault::BadByte),
        ];
        for (path, expected) in cases {
            assert_eq!(normalize(path, &mut String::new()), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn a_normal_path_is_neither_copied_nor_allocated_for() {
        let path = "/a/b.c/d-e_f~g";
        let mut scratch = String::new();
        assert!(std::ptr::eq(normalize(path, &mut scratch).expect("a normal path"), path));
        assert_eq!(scratch.capacity(), 0);
    }
}
