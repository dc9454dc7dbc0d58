//! Which route a request takes: listener, host and path choose a place in the table, the method then chooses among the
//! routes there.
//!
//! The most specific wins, and the order of the file decides nothing. From the most specific to the least:
//!
//! 1. Routes that name the listener, then routes that name none.
//! 2. Within those: the exact host, then the longest `*.suffix` that the host ends in, then any host.
//! 3. Within those, segment by segment: fixed text, then `{capture}`, then `{*rest}`.
//!
//! Where no path matches, the search goes on with the next less specific host and at last with the routes that name no
//! listener. The first path that matches is final: if its routes do not take the method, the answer is 405 and not
//! another route, so that an added method never moves a path to another upstream. There, a route that names the method
//! comes first, then for HEAD the one that names GET, then the route that names no method; that one does not take TRACE,
//! whose answer repeats what the upstream was sent, secrets included.
//!
//! The table is a tree of segments and not a general router, because three things are needed that those which were
//! tried do not have: `/a/{x}` and `/a/{*rest}` side by side, `{*rest}` that is empty, and no allocation however many
//! captures there are. A lookup visits every node at most once, however the request is made.

use std::collections::BTreeMap;

use crate::config::limits;
use crate::config::plan::{HostMatch, Plan, RewritePart};
use crate::config::{PathPattern, Segment};
use crate::ids::{ListenerId, RouteId};

/// Every route of a plan, for lookup.
#[derive(Debug)]
pub struct RouteTable {
    /// Routes that name their listener, by [`ListenerId`].
    of_listeners: Vec<Hosts>,
    of_any_listener: Hosts,
}

/// What a lookup comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// The route to take.
    Route(RouteId),
    /// Some route has this path, but none of them the method; the reply is 405.
    MethodNotAllowed(&'t Allow),
    /// The reply is 404.
    NotFound,
}

/// The value of an `Allow` field (RFC 9110 section 10.2.1), as in `GET, HEAD, POST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow(String);

impl Allow {
    /// The value as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RouteTable {
    /// Builds the table of a plan's routes, whose ids are their positions in it.
    pub fn new(plan: &Plan) -> Self {
        let mut table = Self {
            of_listeners: plan.listeners.iter().map(|_| Hosts::default()).collect(),
            of_any_listener: Hosts::default(),
        };
        for (index, route) in plan.routes.iter().enumerate() {
            let id = RouteId(u16::try_from(index).expect("limits::ROUTES is within u16"));
            let matcher = &route.matcher;
            let hosts = match matcher.listener {
                Some(listener) => &mut table.of_listeners[listener.index()],
                None => &mut table.of_any_listener,
            };
            hosts.tree_of(&matcher.host).insert(&matcher.path, &matcher.methods, id);
        }
        table
    }

    /// Finds the route of a request.
    ///
    /// `host` is the authority as the client sent it: letters in any case, perhaps with a port, perhaps with the final
    /// dot of a full name. `path` is normalised and without query; one that does not begin with a slash (`OPTIONS *`)
    /// has no route. What the path's captures matched is left in `captures`. Allocates nothing.
    pub fn find(
        &self,
        listener: ListenerId,
        host: &str,
        path: &str,
        method: &str,
        captures: &mut Captures,
    ) -> Found<'_> {
        captures.len = 0;
        if !path.starts_with('/') {
            return Found::NotFound;
        }
        let mut buffer = [0; HOST_BUFFER];
        let host = comparable_host(host, &mut buffer);
        self.of_listeners
            .get(listener.index())
            .into_iter()
            .chain([&self.of_any_listener])
            .find_map(|hosts| hosts.find(host, path, captures))
            .map_or(Found::NotFound, |methods| methods.find(method))
    }
}

/// Writes the path that goes upstream: literal text, and what the match captured of `path`.
pub fn rewrite(parts: &[RewritePart], path: &str, captures: &Captures, out: &mut Vec<u8>) {
    for part in parts {
        let text = match part {
            RewritePart::Literal(text) => text,
            RewritePart::Capture(index) => captures.get(*index, path).unwrap_or_default(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

// === Captures ===

/// What the captures of a path matched, as ranges of it, so that the path itself need not stay borrowed.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    /// Start and end; those from `len` on mean nothing.
    ranges: [(usize, usize); limits::CAPTURES],
    /// Never more than there is room for, because a pattern has no more captures than that.
    len: usize,
}

impl Captures {
    /// The text of one capture, counted from zero in the order of the pattern. `path` is the one that was looked up.
    pub fn get<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let (start, end) = *self.ranges[..self.len].get(index)?;
        path.get(start..end)
    }

    fn push(&mut self, start: usize, end: usize) {
        self.ranges[self.len] = (start, end);
        self.len += 1;
    }
}

// === Hosts ===

/// Room for a host; a longer one is not a name (RFC 1035 section 2.3.4) and matches no exact host or suffix.
const HOST_BUFFER: usize = 255;

/// The part of an authority that routes compare: without port and final dot, in lower case. Empty if it does not fit.
fn comparable_host<'b>(authority: &str, buffer: &'b mut [u8; HOST_BUFFER]) -> &'b [u8] {
    let authority = authority.as_bytes();
    let end = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority).map_or(authority.len(), |bracket| bracket + 1),
        Some(_) | None => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let host = &authority[..end];
    let host = host.strip_suffix(b".").unwrap_or(host);
    let Some(lower) = buffer.get_mut(..host.len()) else { return &[] };
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    lower
}

/// The trees of paths of one listener, or of those routes that name none.
#[derive(Debug, Default)]
struct Hosts {
    exact: BTreeMap<Box<[u8]>, Node>,
    /// With their leading dot.
    suffix: BTreeMap<Box<[u8]>, Node>,
    any: Node,
}

impl Hosts {
    fn tree_of(&mut self, host: &HostMatch) -> &mut Node {
        match host {
            HostMatch::Any => &mut self.any,
            HostMatch::Exact(host) => self.exact.entry(host.as_bytes().into()).or_default(),
            HostMatch::Suffix(suffix) => self.suffix.entry(suffix.as_bytes().into()).or_default(),
        }
    }

    fn find(&self, host: &[u8], path: &str, captures: &mut Captures) -> Option<&Methods> {
        let exact = self.exact.get(host).and_then(|tree| tree.find(path, 1, captures));
        exact.or_else(|| self.find_by_suffix(host, path, captures)).or_else(|| self.any.find(path, 1, captures))
    }

    fn find_by_suffix(&self, host: &[u8], path: &str, captures: &mut Captures) -> Option<&Methods> {
        if self.suffix.is_empty() {
            return None;
        }
        // From the left, so the longest suffix comes first. A dot in front of all has no label that the star could
        // stand for.
        let dots = memchr::memchr_iter(b'.', host).filter(|dot| *dot > 0);
        dots.filter_map(|dot| self.suffix.get(&host[dot..])).find_map(|tree| tree.find(path, 1, captures))
    }
}

// === Paths ===

/// What may follow after a slash.
#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<Box<str>, Node>,
    capture: Option<Box<Node>>,
    /// Routes of `{*rest}` here.
    rest: Option<Box<Methods>>,
    /// Routes of the path that ends with the segment which led here.
    end: Option<Box<Methods>>,
}

impl Node {
    fn insert(&mut self, pattern: &PathPattern, methods: &[String], id: RouteId) {
        let mut node = self;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.as_str().into()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
                // A pattern has nothing after it.
                Segment::Rest(_) => return node.rest.get_or_insert_default().insert(methods, id),
            };
        }
        node.end.get_or_insert_default().insert(methods, id);
    }

    /// Looks for what stands in `path` from `start` on, which is behind a slash. Leaves `captures` as it was if nothing
    /// is found. As deep as the longest pattern at most.
    fn find(&self, path: &str, start: usize, captures: &mut Captures) -> Option<&Methods> {
        let end = memchr::memchr(b'/', &path.as_bytes()[start..]).map_or(path.len(), |slash| start + slash);
        let segment = &path[start..end];
        if let Some(child) = self.literals.get(segment)
            && let Some(methods) = child.find_after(path, end, captures)
        {
            return Some(methods);
        }
        if let Some(child) = &self.capture
            && !segment.is_empty()
        {
            captures.push(start, end);
            if let Some(methods) = child.find_after(path, end, captures) {
                return Some(methods);
            }
            captures.len -= 1;
        }
        let rest = self.rest.as_deref()?;
        captures.push(start, path.len());
        Some(rest)
    }

    /// The same from the end of a segment on: a slash, or the end of the path.
    fn find_after(&self, path: &str, end: usize, captures: &mut Captures) -> Option<&Methods> {
        if end == path.len() { self.end.as_deref() } else { self.find(path, end + 1, captures) }
    }
}

// === Methods ===

/// The method that only a route which names it takes.
const UNASKED: &str = "TRACE";
/// The methods that `Allow` lists for a route that takes any other, which cannot all be named.
const USUAL: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// The routes of one listener, host and path.
#[derive(Debug, Default)]
struct Methods {
    /// A handful at most, so looked through.
    named: Vec<(Box<str>, RouteId)>,
    /// The route that names no method; it takes all but [`UNASKED`].
    other: Option<RouteId>,
    /// All of `named`, and HEAD where GET is; the usual ones too where there is an `other`.
    allow: Allow,
}

impl Methods {
    fn insert(&mut self, methods: &[String], id: RouteId) {
        if methods.is_empty() {
            self.other = Some(id);
        }
        for method in methods {
            self.named.push((method.as_str().into(), id));
        }
        let names = self.named.iter().map(|(name, _)| &**name);
        let head = self.named(b"GET").map(|_| "HEAD");
        let usual = self.other.into_iter().flat_map(|_| USUAL);
        let mut names = names.chain(head).chain(usual).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        self.allow = Allow(names.join(", "));
    }

    fn find(&self, method: &str) -> Found<'_> {
        let named = self.named(method.as_bytes());
        let as_get = || if method == "HEAD" { self.named(b"GET") } else { None };
        let other = || self.other.filter(|_| method != UNASKED);
        match named.or_else(as_get).or_else(other) {
            Some(id) => Found::Route(id),
            None => Found::MethodNotAllowed(&self.allow),
        }
    }

    fn named(&self, method: &[u8]) -> Option<RouteId> {
        self.named.iter().find(|(name, _)| name.as_bytes() == method).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::config;

    /// A table of routes that are given as their `match`, on the listeners `a` and `b`.
    fn table(matches: Value) -> RouteTable {
        let routes = matches.as_array().expect("a list").iter();
        let routes = routes.map(|matcher| json!({ "match": matcher, "respond": {} })).collect::<Vec<_>>();
        let listeners = json!([{ "name": "a", "address": "127.0.0.1:1" }, { "name": "b", "address": "127.0.0.1:2" }]);
        let text = json!({ "listeners": listeners, "routes": routes }).to_string();
        let plan = config::parse(&text, Path::new(""), &|_| None).unwrap_or_else(|complaints| panic!("{complaints}"));
        RouteTable::new(&plan)
    }

    fn find(table: &RouteTable, host: &str, path: &str) -> Option<u16> {
        match table.find(ListenerId(0), host, path, "GET", &mut Captures::default()) {
            Found::Route(id) => Some(id.0),
            Found::MethodNotAllowed(_) | Found::NotFound => None,
        }
    }

    #[test]
    fn the_most_specific_path_wins_whatever_the_order() {
        let patterns = [
            "/{*rest}",
            "/a/{x}",
            "/a/{*rest}",
            "/a/b",
            "/a/{x}/c",
            "/a/b/{y}",
            "/",
            "/a/",
            "/{x}",
            "/q/{x}/r/{*rest}",
        ];
        let cases = [
            ("/", Some("/")),
            ("/a", Some("/{x}")),
            ("/a/", Some("/a/")),
            ("/a/b", Some("/a/b")),
            ("/a/x", Some("/a/{x}")),
            ("/a/b/c", Some("/a/b/{y}")),
            ("/a/x/c", Some("/a/{x}/c")),
            ("/a/x/d", Some("/a/{*rest}")),
            ("/a/b/c/d", Some("/a/{*rest}")),
            ("/a//", Some("/a/{*rest}")),
            ("/z/z", Some("/{*rest}")),
            ("/q/1/r/", Some("/q/{x}/r/{*rest}")),
            ("/q/1/r", Some("/{*rest}")),
            ("/A/b", Some("/{*rest}")),
            ("*", None),
            ("", None),
        ];
        for turn in 0..patterns.len() {
            let mut order = patterns;
            order.rotate_left(turn);
            let table = table(order.iter().map(|path| json!({ "path": path })).collect());
            for (path, expected) in cases {
                let found = find(&table, "h", path).map(|index| order[usize::from(index)]);
                assert_eq!(found, expected, "{path}, rotated by {turn}");
            }
        }
    }

    #[test]
    fn the_rest_may_be_empty_but_its_slash_must_be_there() {
        let table = table(json!([{ "path": "/a/{*rest}" }]));

        assert_eq!(find(&table, "h", "/a/"), Some(0));
        assert_eq!(find(&table, "h", "/a/b/c"), Some(0));
        assert_eq!(find(&table, "h", "/a"), None);
        assert_eq!(find(&table, "h", "/ab"), None);
    }

    #[test]
    fn no_path_matches_every_path() {
        let table = table(json!([{}]));

        assert_eq!(find(&table, "h", "/"), Some(0));
        assert_eq!(find(&table, "", "/a/b"), Some(0));
    }

    #[test]
    fn a_capture_is_one_segment_that_is_not_empty() {
        let table = table(json!([{ "path": "/a/{x}/b" }]));

        assert_eq!(find(&table, "h", "/a/1/b"), Some(0));
        assert_eq!(find(&table, "h", "/a//b"), None);
        assert_eq!(find(&table, "h", "/a/1/2/b"), None);
        assert_eq!(find(&table, "h", "/a/1/b/"), None);
    }

    #[test]
    fn the_most_specific_host_wins() {
        let table = table(json!([
            {},
            { "host": "*.example.com" },
            { "host": "*.b.example.com" },
            { "host": "a.b.example.com" },
            { "host": "[::1]" },
        ]));
        for (host, expected) in [
            ("a.b.example.com", 3),
            ("A.B.Example.COM", 3),
            ("a.b.example.com:8080", 3),
            ("a.b.example.com.", 3),
            ("a.b.example.com.:8080", 3),
            ("x.b.example.com", 2),
            ("x.y.b.example.com", 2),
            ("b.example.com", 1),
            ("example.com", 0),
            (".example.com", 0),
            ("notexample.com", 0),
            ("[::1]", 4),
            ("[::1]:8080", 4),
            ("[::1", 0),
            ("[::2]", 0),
            ("", 0),
            (":8080", 0),
        ] {
            assert_eq!(find(&table, host, "/"), Some(expected), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_too_long_matches_any_host_only() {
        let table = table(json!([{}, { "host": "*.example.com" }]));
        let label = |length: usize| "a".repeat(length);

        assert_eq!(find(&table, &format!("{}.example.com", label(243)), "/"), Some(1));
        assert_eq!(find(&table, &format!("{}.example.com", label(244)), "/"), Some(0));
        assert_eq!(find(&table, &label(100_000), "/"), Some(0));
    }

    #[test]
    fn a_host_without_the_path_falls_through_to_the_next() {
        let table = table(json!([
            { "path": "/any" },
            { "host": "*.example.com", "path": "/suffix" },
            { "host": "a.example.com", "path": "/exact" },
            { "host": "*.com", "path": "/short" },
        ]));
        for (path, expected) in
            [("/exact", Some(2)), ("/suffix", Some(1)), ("/short", Some(3)), ("/any", Some(0)), ("/none", None)]
        {
            assert_eq!(find(&table, "a.example.com", path), expected, "{path}");
        }
    }

    #[test]
    fn routes_that_name_the_listener_come_before_those_that_name_none() {
        let table = table(json!([
            { "host": "example.com", "path": "/x" },
            { "listener": "b", "path": "/{*rest}" },
            { "listener": "a", "path": "/y" },
        ]));
        let find = |listener, path| match table.find(
            ListenerId(listener),
            "example.com",
            path,
            "GET",
            &mut Captures::default(),
        ) {
            Found::Route(id) => Some(id.0),
            Found::MethodNotAllowed(_) | Found::NotFound => None,
        };

        assert_eq!(find(1, "/x"), Some(1));
        assert_eq!(find(0, "/x"), Some(0));
        assert_eq!(find(0, "/y"), Some(2));
        assert_eq!(find(1, "/y"), Some(1));
        assert_eq!(find(9, "/x"), Some(0));
        assert_eq!(find(9, "/y"), None);
    }

    #[test]
    fn the_method_chooses_among_the_routes_of_one_path() {
        let table = table(json!([
            { "path": "/a", "methods": ["GET", "PUT"] }, { "path": "/a", "methods": ["POST"] }, { "path": "/{*rest}" },
            { "path": "/b", "methods": ["GET"] }, { "path": "/b" }, { "path": "/c", "methods": ["GET"] },
            { "path": "/c", "methods": ["HEAD"] }, { "path": "/d", "methods": ["TRACE"] }, { "path": "/d" },
        ]));
        let mut captures = Captures::default();
        let mut find = |path, method| table.find(ListenerId(0), "h", path, method, &mut captures);

        assert_eq!(find("/a", "PUT"), Found::Route(RouteId(0)));
        assert_eq!(find("/a", "HEAD"), Found::Route(RouteId(0)));
        assert_eq!(find("/a", "POST"), Found::Route(RouteId(1)));
        assert_eq!(find("/a", "DELETE"), Found::MethodNotAllowed(&Allow("GET, HEAD, POST, PUT".to_owned())));
        assert_eq!(find("/a", "get"), Found::MethodNotAllowed(&Allow("GET, HEAD, POST, PUT".to_owned())));
        assert_eq!(find("/b", "HEAD"), Found::Route(RouteId(3)));
        assert_eq!(find("/b", "DELETE"), Found::Route(RouteId(4)));
        assert_eq!(find("/c", "HEAD"), Found::Route(RouteId(6)));
        assert_eq!(find("/c", "PUT"), Found::MethodNotAllowed(&Allow("GET, HEAD".to_owned())));
        let all_but_trace = Allow("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT".to_owned());
        assert_eq!(find("/b", "TRACE"), Found::MethodNotAllowed(&all_but_trace));
        assert_eq!(find("/d", "TRACE"), Found::Route(RouteId(7)));
        assert_eq!(find("/d", "trace"), Found::Route(RouteId(8)));
    }

    #[test]
    fn captures_are_of_the_path_that_was_found_and_not_of_those_tried() {
        let table = table(json!([
            { "path": "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/x" }, { "path": "/{a}/{*rest}" }, { "path": "/{a}/2/{c}/{*rest}" },
        ]));
        let mut captures = Captures::default();
        let mut find = |path| {
            let found = table.find(ListenerId(0), "h", path, "GET", &mut captures);
            let texts = (0..limits::CAPTURES).map_while(|index| captures.get(index, path)).collect::<Vec<_>>();
            (found, texts.join(" "))
        };

        assert_eq!(find("/1/2/3/4/5/6/7/x"), (Found::Route(RouteId(2)), "1 3 4/5/6/7/x".to_owned()));
        assert_eq!(find("/1/b/3/4/5/6/7/x"), (Found::Route(RouteId(0)), "1 b 3 4 5 6 7".to_owned()));
        assert_eq!(find("/1/b/3/4/5/6/7/y"), (Found::Route(RouteId(1)), "1 b/3/4/5/6/7/y".to_owned()));
        assert_eq!(find("/1/"), (Found::Route(RouteId(1)), "1 ".to_owned()));
        assert_eq!(find("/1"), (Found::NotFound, String::new()));
    }

    #[test]
    fn a_rewrite_puts_captures_between_literals() {
        let table = table(json!([{ "path": "/v2/{id}/{*rest}" }]));
        let parts = [
            RewritePart::Literal("/ledger/".to_owned()),
            RewritePart::Capture(1),
            RewritePart::Literal("/of/".to_owned()),
            RewritePart::Capture(0),
        ];
        let path = "/v2/7/a/b";
        let mut captures = Captures::default();
        table.find(ListenerId(0), "h", path, "GET", &mut captures);

        let mut out = b"GET ".to_vec();
        rewrite(&parts, path, &captures, &mut out);

        assert_eq!(out, b"GET /ledger/a/b/of/7");
    }
}
