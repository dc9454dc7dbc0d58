//! Upstreams.

use std::collections::BTreeMap;

use super::syntax::Scheme;
use super::{Context, Seen, narrow, syntax, tls};
use crate::config::complaint::Place;
use crate::config::plan::{
    Balance, EndpointPlan, KeepalivePlan, Protocol, UpstreamLimits, UpstreamPlan, UpstreamTimeouts, UpstreamTlsPlan,
};
use crate::config::{limits, raw};

/// In the order of their names, which is that of [`names`].
pub(super) fn resolve(cx: &mut Context<'_>, upstreams: &BTreeMap<String, raw::Upstream>) -> Vec<UpstreamPlan> {
    let place = Place::ROOT.key("upstreams");
    if upstreams.len() > limits::UPSTREAMS {
        cx.complain(&place, "there are too many", format!("define {} upstreams at most", limits::UPSTREAMS));
        return Vec::new();
    }
    let plan = |(name, raw): (&String, &raw::Upstream)| {
        let place = place.key(name);
        cx.check_name(&place, name);
        let (schemes, endpoints) = endpoints(cx, &place.key("endpoints"), raw).into_iter().unzip::<_, _, Vec<_>, _>();
        UpstreamPlan {
            name: name.clone(),
            endpoints,
            protocol: protocol(cx, &place, raw),
            tls: tls(cx, &place, &schemes, raw),
            proxy_protocol: cx.choice(
                &place.key("proxy_protocol"),
                raw.proxy_protocol.as_deref(),
                &raw::PROXY_VERSIONS,
                None,
            ),
            balance: cx.choice(&place.key("balance"), raw.balance.as_deref(), &raw::BALANCES, Balance::LeastRequest),
            limits: limits(cx, &place.key("limits"), &raw.limits),
            timeouts: timeouts(cx, &place.key("timeouts"), &raw.timeouts),
            keepalive: keepalive(cx, &place.key("keepalive"), &raw.keepalive),
            dns_refresh: cx.time(&place.key("dns").key("refresh"), raw.dns.refresh.as_deref(), limits::DNS_REFRESH),
        }
    };
    upstreams.iter().map(plan).collect()
}

/// Each shard gets its share of an upstream's connections, and needs one at least.
pub(super) fn check_shares(cx: &mut Context<'_>, upstreams: &[UpstreamPlan], shards: usize) {
    for upstream in upstreams {
        if (upstream.limits.max_connections as usize) < shards {
            let place = Place::ROOT.key("upstreams");
            let place = place.key(&upstream.name);
            let place = place.key("limits");
            cx.complain(
                &place.key("max_connections"),
                format!("each of the {shards} shards needs one connection"),
                format!("write {shards} or more, or run fewer \"shards\""),
            );
        }
    }
}

/// The names of all upstreams, also of those that have something wrong with them, in the order of the plan.
pub(super) fn names<'a>(cx: &Context<'a>) -> Vec<&'a str> {
    let upstreams = cx.document["upstreams"].as_object();
    let mut names =
        upstreams.into_iter().flat_map(|upstreams| upstreams.keys().map(String::as_str)).collect::<Vec<_>>();
    names.sort_unstable();
    names
}

/// All of them have the same scheme, unless something is wrong.
fn endpoints(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Upstream) -> Vec<(Scheme, EndpointPlan)> {
    let written = &raw.endpoints;
    if written.is_empty() {
        cx.complain(place, "there is no endpoint", "add one, as in \"http://127.0.0.1:9000\"");
    }
    if written.len() > limits::ENDPOINTS {
        cx.complain(place, "there are too many", format!("name {} endpoints at most", limits::ENDPOINTS));
        return Vec::new();
    }
    let mut endpoints = Vec::<(Scheme, EndpointPlan)>::new();
    let mut seen = Seen::new();
    for (index, written) in written.iter().enumerate() {
        let place = place.index(index);
        let Some(expanded) = written.as_deref().and_then(|written| cx.expand(&place, written)) else { continue };
        match syntax::read_endpoint(&expanded.text) {
            Ok((scheme, endpoint)) => {
                if endpoints.first().is_some_and(|(first, _)| *first != scheme) {
                    let problem = "an upstream speaks TLS with all of its endpoints or with none";
                    cx.complain(&place, problem, "give it the scheme of the first endpoint, or an upstream of its own");
                }
                let is_named = raw.tls.as_ref().is_some_and(|tls| tls.server_name.is_some());
                if scheme == Scheme::Tls && !is_named {
                    tls::check_host(cx, &place, &endpoint);
                }
                if let Some(first) = seen.earlier(format!("{:?}", endpoint.target), index) {
                    cx.complain(&place, format!("it is the same as endpoint {first}"), "name each endpoint once");
                }
                endpoints.push((scheme, endpoint));
            }
            // What stands in front of an "@" may be a password.
            Err((problem, remedy)) if expanded.text.contains('@') => cx.complain_unseen(&place, problem, remedy),
            Err((problem, remedy)) => cx.complain(&place, problem, remedy),
        }
    }
    endpoints
}

/// Over a connection that speaks for one client, requests of others must not travel.
fn protocol(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Upstream) -> Protocol {
    let place = place.key("protocol");
    let protocol = cx.choice(&place, raw.protocol.as_deref(), &raw::PROTOCOLS, Protocol::Auto);
    if protocol == Protocol::H2 && raw.proxy_protocol.is_some() {
        let remedy = "leave \"protocol\" out, or \"proxy_protocol\"";
        cx.complain(
            &place,
            "such a connection carries several clients' requests, and a PROXY header names one",
            remedy,
        );
    }
    protocol
}

fn tls(cx: &mut Context<'_>, place: &Place<'_>, schemes: &[Scheme], raw: &raw::Upstream) -> Option<UpstreamTlsPlan> {
    let place = place.key("tls");
    let is_https = schemes.contains(&Scheme::Tls);
    if raw.tls.is_some() && !is_https && !schemes.is_empty() {
        let remedy = "write \"https://..\" in \"endpoints\", or leave \"tls\" out";
        cx.complain_unseen(&place, "none of the endpoints is \"https\"", remedy);
    }
    (is_https || raw.tls.is_some()).then(|| tls::of_upstream(cx, &place, raw.tls.as_ref()))
}

fn limits(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::UpstreamLimits) -> UpstreamLimits {
    UpstreamLimits {
        max_connections: narrow(cx.count(
            &place.key("max_connections"),
            raw.max_connections,
            limits::UPSTREAM_MAX_CONNECTIONS,
        )),
        max_pending: narrow(cx.count(&place.key("max_pending"), raw.max_pending, limits::MAX_PENDING)),
        pending_timeout: cx.time(
            &place.key("pending_timeout"),
            raw.pending_timeout.as_deref(),
            limits::PENDING_TIMEOUT,
        ),
        max_head: narrow(cx.size(&place.key("max_head"), raw.max_head.as_ref(), limits::RESPONSE_MAX_HEAD)),
        max_fields: narrow(cx.count(&place.key("max_fields"), raw.max_fields, limits::MAX_FIELDS)),
    }
}

fn timeouts(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::UpstreamTimeouts) -> UpstreamTimeouts {
    UpstreamTimeouts {
        connect: cx.time(&place.key("connect"), raw.connect.as_deref(), limits::CONNECT_TIMEOUT),
        first_byte: cx.time(&place.key("first_byte"), raw.first_byte.as_deref(), limits::FIRST_BYTE_TIMEOUT),
        idle: cx.time(&place.key("idle"), raw.idle.as_deref(), limits::UPSTREAM_IDLE_TIMEOUT),
        tunnel_idle: cx.time(&place.key("tunnel_idle"), raw.tunnel_idle.as_deref(), limits::TUNNEL_IDLE_TIMEOUT),
    }
}

fn keepalive(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Keepalive) -> KeepalivePlan {
    KeepalivePlan {
        idle: cx.time(&place.key("idle"), raw.idle.as_deref(), limits::KEEPALIVE_IDLE),
        max_age: cx.time(&place.key("max_age"), raw.max_age.as_deref(), limits::KEEPALIVE_MAX_AGE),
    }
}
