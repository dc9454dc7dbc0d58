//! Listeners.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Context, Seen, narrow, syntax, tls};
use crate::config::complaint::Place;
use crate::config::plan::{ForwardedPlan, ListenerLimits, ListenerPlan, ListenerTimeouts, SocketAddress};
use crate::config::{limits, raw, units};

/// What routes may refer to, known even of listeners that have something wrong with them.
pub(super) struct ListenerName {
    pub name: String,
    pub admin: bool,
}

/// Both lists are in the order of the file; if something is wrong, the plans are fewer than the names.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    listeners: &[Option<raw::Listener>],
) -> (Vec<ListenerName>, Vec<ListenerPlan>) {
    let place = Place::ROOT.key("listeners");
    let mut names = Vec::new();
    let mut plans = Vec::new();
    let (mut seen_names, mut seen_addresses) = (Seen::new(), Seen::new());
    if listeners.len() > limits::LISTENERS {
        cx.complain(&place, "there are too many", format!("define {} listeners at most", limits::LISTENERS));
        return (names, plans);
    }
    for (index, raw) in listeners.iter().enumerate() {
        let Some(raw) = raw else { continue };
        let place = place.index(index);
        let address = address(cx, &place.key("address"), raw.address.as_deref());
        let name = match raw.name.as_deref().and_then(|name| cx.expand(&place.key("name"), name)) {
            Some(name) => {
                cx.check_name(&place.key("name"), &name.text);
                name.text.to_string()
            }
            None => address.as_ref().map(address_text).unwrap_or_default(),
        };
        if let Some(address) = &address {
            let is_free_port = matches!(address, SocketAddress::Ip(address) if address.port() == 0);
            let same_address = seen_addresses.earlier(address_text(address), index).filter(|_| !is_free_port);
            let same_name = seen_names.earlier(name.clone(), index);
            if let Some(first) = same_address {
                let problem = format!("listeners[{first}] listens on it already");
                cx.complain(&place.key("address"), problem, "use another address");
            } else if let Some(first) = same_name {
                let problem = format!("listeners[{first}] has that name already");
                cx.complain(&place.key("name"), problem, "use another name");
            }
        }
        let admin = raw.admin.unwrap_or(false);
        let tls = raw.tls.as_ref().map(|raw| tls::of_listener(cx, &place.key("tls"), raw));
        let forwarded = forwarded(cx, &place.key("forwarded"), &raw.forwarded);
        let proxy_headers_from = networks(cx, &place.key("proxy_protocol").key("trust"), &raw.proxy_protocol.trust);
        let limits = limits(cx, &place.key("limits"), &raw.limits);
        let timeouts = timeouts(cx, &place.key("timeouts"), &raw.timeouts);
        plans.extend(address.map(|address| ListenerPlan {
            name: name.clone(),
            address,
            admin,
            tls,
            http2: raw.http2.unwrap_or(raw.tls.is_some()),
            forwarded,
            proxy_headers_from,
            limits,
            timeouts,
        }));
        names.push(ListenerName { name, admin });
    }
    if names.len() == listeners.len() && names.iter().all(|listener| listener.admin) {
        let remedy = "add { \"address\": \"127.0.0.1:8080\" }";
        cx.complain(&place, "none of them serves routes", remedy);
    }
    (names, plans)
}

fn address(cx: &mut Context<'_>, place: &Place<'_>, written: Option<&str>) -> Option<SocketAddress> {
    let expanded = cx.expand(place, written?)?;
    match syntax::read_socket_address(&expanded.text) {
        Ok(address) => Some(address),
        Err((problem, remedy)) => {
            cx.complain(place, problem, remedy);
            None
        }
    }
}

fn address_text(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Ip(address) => address.to_string(),
        SocketAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn forwarded(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Forwarded) -> ForwardedPlan {
    let trust = networks(cx, &place.key("trust"), &raw.trust);
    ForwardedPlan { trust, x_forwarded: raw.x_forwarded.unwrap_or(true), forwarded: raw.forwarded.unwrap_or(false) }
}

fn networks(cx: &mut Context<'_>, place_of_all: &Place<'_>, raw: &[Option<String>]) -> Vec<IpNet> {
    if raw.len() > limits::TRUSTED_NETWORKS {
        let remedy = format!("name {} networks at most; one prefix covers many addresses", limits::TRUSTED_NETWORKS);
        cx.complain(place_of_all, "there are too many", remedy);
    }
    let mut networks = Vec::new();
    for (index, written) in raw.iter().enumerate() {
        let place = place_of_all.index(index);
        let Some(expanded) = written.as_deref().and_then(|written| cx.expand(&place, written)) else { continue };
        let text = expanded.text.as_str();
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network.trunc()),
            Err(_) => cx.complain(&place, "it is no network", "write \"10.0.0.0/8\", \"2001:db8::/32\" or one address"),
        }
    }
    networks
}

fn limits(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::ListenerLimits) -> ListenerLimits {
    let max_head = cx.size(&place.key("max_head"), raw.max_head.as_ref(), limits::MAX_HEAD);
    let mut max_target = cx.size(&place.key("max_target"), raw.max_target.as_ref(), limits::MAX_TARGET);
    if raw.max_target.is_none() {
        max_target = max_target.min(max_head);
    } else if max_target > max_head {
        let remedy = format!("write {} or less, or raise max_head", units::write_size(max_head));
        cx.complain(&place.key("max_target"), "it is more than max_head, of which the target is a part", remedy);
    }
    let requests = raw.max_requests_per_connection;
    ListenerLimits {
        max_connections: narrow(cx.count(&place.key("max_connections"), raw.max_connections, limits::MAX_CONNECTIONS)),
        max_head: narrow(max_head),
        max_fields: narrow(cx.count(&place.key("max_fields"), raw.max_fields, limits::MAX_FIELDS)),
        max_target: narrow(max_target),
        max_body: cx.size(&place.key("max_body"), raw.max_body.as_ref(), limits::MAX_BODY),
        max_requests_per_connection: cx.count(
            &place.key("max_requests_per_connection"),
            requests,
            limits::MAX_REQUESTS_PER_CONNECTION,
        ),
        max_concurrent_streams: narrow(cx.count(
            &place.key("max_concurrent_streams"),
            raw.max_concurrent_streams,
            limits::MAX_CONCURRENT_STREAMS,
        )),
    }
}

fn timeouts(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::ListenerTimeouts) -> ListenerTimeouts {
    ListenerTimeouts {
        tls_handshake: cx.time(
            &place.key("tls_handshake"),
            raw.tls_handshake.as_deref(),
            limits::TLS_HANDSHAKE_TIMEOUT,
        ),
        header: cx.time(&place.key("header"), raw.header.as_deref(), limits::HEADER_TIMEOUT),
        body: cx.time(&place.key("body"), raw.body.as_deref(), limits::BODY_TIMEOUT),
        write: cx.time(&place.key("write"), raw.write.as_deref(), limits::WRITE_TIMEOUT),
        idle: cx.time(&place.key("idle"), raw.idle.as_deref(), limits::CLIENT_IDLE_TIMEOUT),
    }
}
