//! Routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::listener::ListenerName;
use super::{Context, Seen, narrow, syntax, upstream};
use crate::config::complaint::{Place, suggestion};
use crate::config::pattern::{PathPattern, RewriteError, Segment};
use crate::config::plan::{
    FieldEdits, HostMatch, ProxyPlan, RespondPlan, RewritePart, RouteAction, RouteMatch, RoutePlan, UpstreamHost,
};
use crate::config::secret::{Secret, Text};
use crate::config::{limits, raw};
use crate::ids::{ListenerId, UpstreamId};

/// In the order of the file; if something is wrong, some are missing.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    routes: &[Option<raw::Route>],
    listeners: &[ListenerName],
) -> Vec<RoutePlan> {
    let place = Place::ROOT.key("routes");
    if routes.is_empty() {
        let remedy = "add one, as in { \"upstream\": \"app\" } or { \"respond\": { \"body\": \"hello\" } }";
        cx.complain(&place, "there is no route", remedy);
    }
    if routes.len() > limits::ROUTES {
        cx.complain(&place, "there are too many", format!("define {} routes at most", limits::ROUTES));
        return Vec::new();
    }
    let upstreams = upstream::names(cx);
    let mut plans = Vec::new();
    let mut conflicts = Conflicts::default();
    for (index, raw) in routes.iter().enumerate() {
        let Some(raw) = raw else { continue };
        let place = place.index(index);
        let place_of_match = place.key("match");
        let written_path = raw.r#match.path.as_deref().unwrap_or(raw::EVERY_PATH);
        let path = path(cx, &place_of_match.key("path"), written_path);
        let action = action(cx, &place, raw, &upstreams, path.as_ref());
        let matcher = matcher(cx, &place_of_match, &raw.r#match, listeners, path);
        let timeout = cx.time(&place.key("timeout"), raw.timeout.as_deref(), limits::ROUTE_TIMEOUT);
        let max_body = raw.max_body.as_ref().map(|size| cx.size(&place.key("max_body"), Some(size), limits::MAX_BODY));
        let request_fields = field_edits(cx, &place.key("request_headers"), &raw.request_headers);
        let response_fields = field_edits(cx, &place.key("response_headers"), &raw.response_headers);

        let Some(matcher) = matcher else { continue };
        if let Some(first) = conflicts.earlier(&matcher, index) {
            let remedy = "make one of the two more specific, or leave one out";
            cx.complain(&place, format!("it matches the same requests as routes[{first}]"), remedy);
        }
        plans.extend(action.map(|action| RoutePlan {
            matcher,
            action,
            timeout,
            max_body,
            request_fields,
            response_fields,
        }));
    }
    plans
}

// === What it matches ===

fn matcher(
    cx: &mut Context<'_>,
    place: &Place<'_>,
    raw: &raw::Match,
    listeners: &[ListenerName],
    path: Option<PathPattern>,
) -> Option<RouteMatch> {
    let listener = match raw.listener.as_deref() {
        Some(name) => listener(cx, &place.key("listener"), name, listeners).map(Some),
        None => Some(None),
    };
    let host = match raw.host.as_deref() {
        Some(host) => host_match(cx, &place.key("host"), host),
        None => Some(HostMatch::Any),
    };
    let methods = methods(cx, &place.key("methods"), &raw.methods);
    Some(RouteMatch { listener: listener?, host: host?, path: path?, methods })
}

fn listener(cx: &mut Context<'_>, place: &Place<'_>, written: &str, listeners: &[ListenerName]) -> Option<ListenerId> {
    let name = cx.expand(place, written)?;
    match listeners.iter().position(|listener| listener.name == *name.text) {
        Some(index) if listeners[index].admin => {
            cx.complain(place, "that listener is admin and serves no routes", "name a listener that is not admin");
            None
        }
        Some(index) => Some(ListenerId(narrow(index as u64))),
        None => {
            // As written, and without those that come from a reference.
            let written = cx.document["listeners"].as_array().into_iter().flatten();
            let names = written.filter(|raw| raw["admin"] != true).filter_map(|raw| raw["name"].as_str());
            let known = names.filter(|name| !name.contains('$'));
            let remedy = suggestion(&name.text, known);
            cx.complain(place, "there is no listener of that name", remedy);
            None
        }
    }
}

fn host_match(cx: &mut Context<'_>, place: &Place<'_>, written: &str) -> Option<HostMatch> {
    let text = cx.expand(place, written)?.text;
    let host = match text.strip_prefix("*.") {
        Some(suffix) => syntax::read_host(suffix)
            .filter(|suffix| suffix.parse::<IpAddr>().is_err() && !suffix.starts_with('['))
            .map(|suffix| HostMatch::Suffix(format!(".{suffix}"))),
        None => syntax::read_host(&text).map(HostMatch::Exact),
    };
    if host.is_none() {
        let remedy = "write \"api.example.com\" or \"*.example.com\", without port, and other scripts as xn--";
        cx.complain(place, "it is not a host name", remedy);
    }
    host
}

fn path(cx: &mut Context<'_>, place: &Place<'_>, written: &str) -> Option<PathPattern> {
    let text = cx.expand(place, written)?.text;
    match PathPattern::parse(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            cx.complain(place, error.to_string(), "write \"/fixed/{one_segment}/{*all_the_rest}\"");
            None
        }
    }
}

fn methods(cx: &mut Context<'_>, place: &Place<'_>, written: &[Option<String>]) -> Vec<String> {
    let mut methods = Vec::<String>::new();
    for (index, written) in written.iter().enumerate() {
        let place = place.index(index);
        let Some(method) = written.as_deref().and_then(|written| cx.expand(&place, written)) else { continue };
        let method = method.text.as_str();
        if !syntax::is_token(method) || method.len() > limits::NAME {
            cx.complain(&place, "it is not a method", "write a method such as \"GET\"");
        } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            cx.complain(&place, "methods are in upper case", "write it in upper case, as in \"GET\"");
        } else if method == "CONNECT" {
            cx.complain(&place, "CONNECT is always refused", "leave it out");
        } else if methods.iter().any(|known| known == method) {
            cx.complain(&place, "the method is in the list twice", "name each method once");
        } else {
            methods.push(method.to_owned());
        }
    }
    methods
}

/// Finds routes that match the same requests: same listener, host and path, whatever its captures are called, and a
/// method in common. A route without methods takes those that no other route of its path names, so it only conflicts
/// with another such.
#[derive(Default)]
struct Conflicts {
    /// Positions and methods.
    routes_by_target: BTreeMap<Target, Vec<(usize, Vec<String>)>>,
}

/// A match without its methods and without the names of its captures.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    listener: Option<ListenerId>,
    host: String,
    path: String,
}

impl Conflicts {
    fn earlier(&mut self, matcher: &RouteMatch, index: usize) -> Option<usize> {
        let host = match &matcher.host {
            HostMatch::Any => "*",
            HostMatch::Exact(host) | HostMatch::Suffix(host) => host,
        };
        let mut path = String::new();
        for segment in matcher.path.segments() {
            path.push('/');
            path.push_str(match segment {
                Segment::Literal(literal) => literal,
                Segment::Capture(_) => "{}",
                Segment::Rest(_) => "{*}",
            });
        }
        let routes = self
            .routes_by_target
            .entry(Target { listener: matcher.listener, host: host.to_owned(), path })
            .or_default();
        let first = routes.iter().find(|(_, methods)| {
            let both_take_all = methods.is_empty() && matcher.methods.is_empty();
            both_take_all || methods.iter().any(|method| matcher.methods.contains(method))
        });
        let first = first.map(|(first, _)| *first);
        routes.push((index, matcher.methods.clone()));
        first
    }
}

// === What it does ===

fn action(
    cx: &mut Context<'_>,
    place: &Place<'_>,
    raw: &raw::Route,
    upstreams: &[&str],
    pattern: Option<&PathPattern>,
) -> Option<RouteAction> {
    let written = place.find(cx.document);
    let is_written = |key| written.is_some_and(|route| route.get(key).is_some());
    match (is_written("upstream"), is_written("respond")) {
        (true, true) => {
            cx.complain(place, "it has both \"upstream\" and \"respond\"", "keep one of the two");
        }
        (false, false) => {
            cx.complain(place, "it has neither \"upstream\" nor \"respond\"", "add one of the two");
        }
        (true, false) | (false, true) => {}
    }
    if let Some(respond) = &raw.respond {
        if raw.rewrite.is_some() {
            let remedy = "leave it out; there is no upstream to see it";
            cx.complain(&place.key("rewrite"), "a route that responds itself rewrites nothing", remedy);
        }
        return Some(RouteAction::Respond(self::respond(cx, &place.key("respond"), respond)));
    }
    let place_of_upstream = place.key("upstream");
    let upstream = raw.upstream.as_deref().and_then(|name| upstream(cx, &place_of_upstream, name, upstreams));
    let place = place.key("rewrite");
    let written = raw.rewrite.as_ref();
    let matched = pattern.map(|pattern| (raw.r#match.path.as_deref().unwrap_or(raw::EVERY_PATH), pattern));
    let rewrite = written.and_then(|raw| raw.path.as_deref()).zip(matched);
    let rewrite = rewrite.and_then(|(path, matched)| rewrite_path(cx, &place.key("path"), path, matched));
    let host = written.and_then(|raw| raw.host.as_deref());
    let host = host.and_then(|host| upstream_host(cx, &place.key("host"), host)).unwrap_or(UpstreamHost::Client);
    Some(RouteAction::Proxy(ProxyPlan { upstream: upstream?, rewrite, host }))
}

fn upstream(cx: &mut Context<'_>, place: &Place<'_>, written: &str, upstreams: &[&str]) -> Option<UpstreamId> {
    let name = cx.expand(place, written)?;
    match upstreams.binary_search(&name.text.as_str()) {
        Ok(index) => Some(UpstreamId(narrow(index as u64))),
        Err(_) => {
            let remedy = suggestion(&name.text, upstreams.iter().copied());
            cx.complain(place, "there is no upstream of that name", remedy);
            None
        }
    }
}

fn rewrite_path(
    cx: &mut Context<'_>,
    place: &Place<'_>,
    written: &str,
    matched: (&str, &PathPattern),
) -> Option<Vec<RewritePart>> {
    let text = cx.expand(place, written)?.text;
    let (written_match, pattern) = matched;
    let error = match pattern.parse_rewrite(&text) {
        Ok(parts) => return Some(parts),
        Err(error) => error,
    };
    let remedy = match &error {
        RewriteError::UnknownCapture(name) => {
            // Only names that stand in the file, because the match may have come from a reference.
            let known = pattern.captures().filter(|name| written_match.contains(name)).collect::<Vec<_>>();
            match known.as_slice() {
                [] => "capture a part of the match, as in \"/a/{*rest}\"".to_owned(),
                known => suggestion(name, known.iter().copied()),
            }
        }
        RewriteError::NoSlash
        | RewriteError::TooLong
        | RewriteError::DotSegment
        | RewriteError::Unclosed
        | RewriteError::Literal(_) => "write \"/fixed/{capture}\", with captures of the match".to_owned(),
    };
    cx.complain(place, error.to_string(), remedy);
    None
}

fn upstream_host(cx: &mut Context<'_>, place: &Place<'_>, written: &str) -> Option<UpstreamHost> {
    let text = cx.expand(place, written)?.text;
    match text.as_str() {
        "client" => return Some(UpstreamHost::Client),
        "endpoint" => return Some(UpstreamHost::Endpoint),
        _ => {}
    }
    let host = syntax::read_authority(&text);
    if host.is_none() {
        cx.complain(
            place,
            "it is not a host",
            "write \"client\", \"endpoint\", or a host such as \"app.internal:8080\"",
        );
    }
    host.map(UpstreamHost::Given)
}

fn respond(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Respond) -> RespondPlan {
    let status = match raw.status {
        None => 200,
        Some(status) if (200..=599).contains(&status) => narrow(status),
        Some(_) => {
            cx.complain(&place.key("status"), "it is not the status of an answer", "write a number from 200 to 599");
            200
        }
    };
    let place_of_body = place.key("body");
    let body = raw.body.as_deref().and_then(|body| text(cx, &place_of_body, body));
    let body = body.unwrap_or(Text::Plain(String::new()));
    let has_body = !body.expose().is_empty();
    if has_body && matches!(status, 204 | 205 | 304) {
        let problem = format!("an answer of status {status} has no body");
        cx.complain_unseen(&place_of_body, problem, "leave it out, or use another status");
    }
    if body.expose().len() > limits::RESPOND_BODY {
        let remedy = format!("write {} bytes at most; serve more from an upstream", limits::RESPOND_BODY);
        cx.complain_unseen(&place_of_body, "it is too long", remedy);
    }
    let place_of_type = place.key("content_type");
    let content_type = match raw.content_type.as_deref() {
        None => has_body.then(|| "text/plain; charset=utf-8".to_owned()),
        Some(written) => cx.expand(&place_of_type, written).map(|expanded| expanded.text.to_string()),
    };
    if let Some(content_type) = &content_type {
        let essence = content_type.split(';').next().unwrap_or_default().trim_end();
        let is_media_type = essence.split_once('/').is_some_and(|(a, b)| syntax::is_token(a) && syntax::is_token(b));
        if !is_media_type || !syntax::is_field_value(content_type) || content_type.len() > limits::EDITED_VALUE {
            cx.complain(&place_of_type, "it is not a media type", "write one such as \"application/json\"");
        }
    }
    RespondPlan { status, content_type, body }
}

// === What it changes ===

fn field_edits(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::FieldEdits) -> FieldEdits {
    if raw.set.len() + raw.add.len() + raw.remove.len() > limits::EDITS {
        cx.complain(place, "there are too many changes", format!("make {} changes at most", limits::EDITS));
        return FieldEdits::default();
    }
    let mut remove = Vec::new();
    for (index, written) in raw.remove.iter().enumerate() {
        let place = place.key("remove");
        let place = place.index(index);
        let Some(name) = written.as_deref().and_then(|written| cx.expand(&place, written)) else { continue };
        match field_name(&name.text) {
            Ok(name) if remove.contains(&name) => {
                cx.complain(&place, "the field is in the list twice", "name each field once");
            }
            Ok(name) => remove.push(name),
            Err((problem, remedy)) => cx.complain(&place, problem, remedy),
        }
    }
    FieldEdits { remove, set: fields(cx, &place.key("set"), &raw.set), add: fields(cx, &place.key("add"), &raw.add) }
}

fn fields(cx: &mut Context<'_>, place: &Place<'_>, written: &BTreeMap<String, String>) -> Vec<(String, Text)> {
    let mut fields = Vec::new();
    let mut seen = Seen::new();
    for (index, (name, value)) in written.iter().enumerate() {
        let place = place.key(name);
        let value = text(cx, &place, value);
        if let Some(value) = &value {
            if !syntax::is_field_value(value.expose()) {
                let remedy = "leave out line breaks and other control characters, and spaces at its ends";
                cx.complain_unseen(&place, "the value is not a field value", remedy);
            }
            if value.expose().len() > limits::EDITED_VALUE {
                let remedy = format!("write {} bytes at most", limits::EDITED_VALUE);
                cx.complain_unseen(&place, "the value is too long", remedy);
            }
        }
        match field_name(name) {
            Ok(name) if seen.earlier(name.clone(), index).is_some() => {
                let problem = "the field is there twice, in another case of letters";
                cx.complain_unseen(&place, problem, "keep one of the two");
            }
            Ok(name) => fields.extend(value.map(|value| (name, value))),
            Err((problem, remedy)) => cx.complain_unseen(&place, problem, remedy),
        }
    }
    fields
}

/// A name that a route may change, in lower case; otherwise problem and remedy.
fn field_name(name: &str) -> Result<String, (&'static str, String)> {
    if !syntax::is_token(name) || name.len() > limits::EDITED_NAME {
        let remedy = format!("use 1 to {} letters, digits and \"-\"", limits::EDITED_NAME);
        return Err(("it is not a field name", remedy));
    }
    let name = name.to_ascii_lowercase();
    if editable(&name) {
        return Ok(name);
    }
    let remedy = match name.as_str() {
        "host" => "use the route's \"rewrite\": { \"host\": .. }",
        _ => "leave it out",
    };
    Err(("the gateway writes this field itself", remedy.to_owned()))
}

/// Whether a route may change the field: not if it frames the message, names its target or belongs to one connection (RFC
/// 9110 sections 7.2 and 7.6.1), because the gateway decides those anew for each side; nor if the gateway adds to it or
/// counts it, because there would be two then. In lower case.
fn editable(name: &str) -> bool {
    !matches!(
        name,
        "connection"
            | "content-length"
            | "date"
            | "expect"
            | "host"
            | "keep-alive"
            | "max-forwards"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "via"
    )
}

/// A string that may be secret, kept as what it is.
fn text(cx: &mut Context<'_>, place: &Place<'_>, written: &str) -> Option<Text> {
    let expanded = cx.expand(place, written)?;
    Some(if expanded.secret {
        Text::Secret(Secret::new(expanded.text))
    } else {
        Text::Plain(expanded.text.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::field_name;

    #[test]
    fn a_route_may_change_what_the_gateway_does_not_write() {
        for name in ["X-A", "server", "Set-Cookie", "Authorization", "X-Forwarded-Proto", "forwarded", "a_b"] {
            assert_eq!(field_name(name), Ok(name.to_ascii_lowercase()));
        }
        for name in
            ["", "a b", "a:", "\u{e9}", "Host", "VIA", "Date", "Content-Length", "transfer-encoding", "Connection"]
        {
            assert!(field_name(name).is_err(), "{name}");
        }
        for name in ["Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "Proxy-Connection", "Max-Forwards"] {
            assert!(field_name(name).is_err(), "{name}");
        }
        for name in ["Proxy-Authorization", "Proxy-Authenticate"] {
            assert!(field_name(name).is_err(), "{name}");
        }
    }
}
