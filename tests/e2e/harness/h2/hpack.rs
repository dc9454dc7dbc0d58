//! HPACK (RFC 7541): an encoder that leaves everything plain, and a decoder that takes whatever a server may send.

use std::collections::VecDeque;

use crate::harness::latin1;

/// Names and values, as they came.
pub type Fields = Vec<(String, String)>;

/// What a decoder's table may hold unless the other side is told otherwise.
const TABLE_BYTES: usize = 4096;

/// A block of fields, each of them literal and unknown to any table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A field that no table takes in. What stands in it is not looked at.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [integer(0x00, 4, 0), string(name.as_ref()), string(value.as_ref())].concat()
}

/// A field that becomes the newest of the other side's table.
pub fn remembered(name: &str, value: &str) -> Vec<u8> {
    [integer(0x40, 6, 0), string(name.as_bytes()), string(value.as_bytes())].concat()
}

/// A field out of the other side's tables: 62 is the newest that was [`remembered`].
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&integer(0x00, 7, bytes.len()), bytes].concat()
}

/// Section 5.1, behind the bits of `pattern`.
fn integer(pattern: u8, prefix_bits: u8, value: usize) -> Vec<u8> {
    let most = (1 << prefix_bits) - 1;
    let small = |value: usize| u8::try_from(value).expect("masked to fit");
    if value < most {
        return vec![pattern | small(value)];
    }
    let mut bytes = vec![pattern | small(most)];
    let mut rest = value - most;
    while rest >= 0x80 {
        bytes.push(small(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    bytes.push(small(rest));
    bytes
}

/// The decoding end of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    /// The newest in front.
    table: VecDeque<(String, String)>,
    max_bytes: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Self { table: VecDeque::new(), max_bytes: TABLE_BYTES }
    }

    /// Reads a whole block. Fails with what is wrong with it.
    pub fn decode(&mut self, mut block: &[u8]) -> Result<Fields, String> {
        let mut fields = Fields::new();
        let rest = &mut block;
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = read_integer(rest, 7)?;
                fields.push(self.at(index)?);
            } else if first & 0x40 != 0 {
                let field = self.read_literal(rest, 6)?;
                fields.push(field.clone());
                self.table.push_front(field);
            } else if first & 0x20 != 0 {
                self.max_bytes = read_integer(rest, 5)?;
                if self.max_bytes > TABLE_BYTES || !fields.is_empty() {
                    return Err(format!("a table of {} bytes behind {} fields", self.max_bytes, fields.len()));
                }
            } else {
                fields.push(self.read_literal(rest, 4)?);
            }
            self.evict();
        }
        Ok(fields)
    }

    fn read_literal(&self, rest: &mut &[u8], prefix_bits: u8) -> Result<(String, String), String> {
        let name = match read_integer(rest, prefix_bits)? {
            0 => read_string(rest)?,
            index => self.at(index)?.0,
        };
        Ok((name, read_string(rest)?))
    }

    fn at(&self, index: usize) -> Result<(String, String), String> {
        let field = match index.checked_sub(1) {
            Some(at) if at < STATIC_TABLE.len() => Some((STATIC_TABLE[at].0.to_owned(), STATIC_TABLE[at].1.to_owned())),
            Some(at) => self.table.get(at - STATIC_TABLE.len()).cloned(),
            None => None,
        };
        field.ok_or_else(|| format!("no field {index} in the tables"))
    }

    /// Section 4.4, with sizes by section 4.1.
    fn evict(&mut self) {
        let bytes = |table: &VecDeque<(String, String)>| -> usize {
            table.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        };
        while bytes(&self.table) > self.max_bytes {
            self.table.pop_back();
        }
    }
}

fn read_integer(rest: &mut &[u8], prefix_bits: u8) -> Result<usize, String> {
    let most = (1 << prefix_bits) - 1;
    let mut value = usize::from(next(rest)?) & most;
    if value == most {
        for shift in [0, 7, 14, 21] {
            let byte = next(rest)?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        return Err("an endless integer".to_owned());
    }
    Ok(value)
}

fn read_string(rest: &mut &[u8]) -> Result<String, String> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = read_integer(rest, 7)?;
    let (bytes, left) = rest.split_at_checked(length).ok_or("a string longer than its block")?;
    *rest = left;
    if is_huffman { huffman(bytes) } else { Ok(latin1(bytes)) }
}

fn next(rest: &mut &[u8]) -> Result<u8, String> {
    let (&byte, left) = rest.split_first().ok_or("a block that ends within a field")?;
    *rest = left;
    Ok(byte)
}

/// Section 5.2. The code is canonical: codes of one length follow each other in the order of their symbols, so the lengths say it all.
fn huffman(bytes: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    let (mut code, mut length, mut first) = (0_u32, 0, 0_u32);
    let mut is_padding = true;
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        is_padding &= bit == 1;
        let symbols = || (0_u16..).zip(HUFFMAN_LENGTHS).filter(|(_, bits)| *bits == length).map(|(symbol, _)| symbol);
        first <<= 1;
        let count = u32::try_from(symbols().count()).expect("257 at most");
        if let Some(at) = code.checked_sub(first).filter(|at| *at < count) {
            let symbol = symbols().nth(at as usize).expect("counted");
            text.push(char::from(u8::try_from(symbol).map_err(|_| "the symbol for the end, within a string")?));
            (code, length, first) = (0, 0, 0);
            is_padding = true;
            continue;
        }
        first += count;
    }
    // What is left must be the beginning of the code for the end.
    if length < 8 && is_padding { Ok(text) } else { Err("bad padding".to_owned()) }
}

/// Appendix B: how many bits the code of each byte has, and of the end.
const HUFFMAN_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// Appendix A.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
