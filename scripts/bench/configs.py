"""The configuration of the origin and of each proxy: one worker, keep-alive on both sides, no access log, and the
documented tuning for this job, so that each is measured at its best."""

import json
from dataclasses import dataclass
from pathlib import Path

from . import certificates
from .cases import LARGE, SMALL, Protocol, Setup
from .settings import IDLE_SECONDS, SMALL_BODY, WORK, is_root


@dataclass(frozen=True)
class Site:
    """What a proxy is started for."""

    setup: Setup
    port: int
    origin_port: int
    """The one where the origin speaks what the setup has behind the proxy."""
    descriptors: int


def origin(port: int, tls_port: int) -> str:
    """nginx as the server behind proxies that speak HTTP/1.1 through TLS to it. /status counts what reached it, on both
    ports; the plain one is for that."""
    return _nginx(f"""
        open_file_cache max=16 inactive=1h;
        open_file_cache_valid 1h;
        server {{
            listen 127.0.0.1:{port} backlog=4096;
            listen 127.0.0.1:{tls_port} ssl backlog=4096;
            ssl_certificate {certificates.SERVER};
            ssl_certificate_key {certificates.SERVER_KEY};
            ssl_client_certificate {certificates.AUTHORITY};
            ssl_verify_client on;
            ssl_protocols TLSv1.3;
            ssl_conf_command Ciphersuites {certificates.CIPHER_SUITE};
            ssl_ecdh_curve {certificates.GROUP};
            location = {SMALL} {{ default_type text/plain; return 200 "{SMALL_BODY}"; }}
            location = {LARGE} {{ default_type application/octet-stream; root {WORK}/www; }}
            location = /status {{ stub_status; }}
        }}""", "origin", connections=4096)


def nginx(site: Site) -> str:
    """`proxy_buffers` hold the large response whole: the default writes what the client is slow to take to a temporary
    file, which nearly doubles its price. HTTP/2 behind it is for gRPC only."""
    listen = {Protocol.HTTP: "", Protocol.TLS: " ssl", Protocol.H2C: " http2"}[site.setup.front]
    tls = "" if site.setup.front is not Protocol.TLS else f"""
            ssl_certificate {certificates.SERVER};
            ssl_certificate_key {certificates.SERVER_KEY};
            ssl_protocols TLSv1.3;"""
    forward = {
        Protocol.HTTP: """
                proxy_pass http://origin;""",
        Protocol.TLS: f"""
                proxy_pass https://origin;
                proxy_ssl_certificate {certificates.CLIENT};
                proxy_ssl_certificate_key {certificates.CLIENT_KEY};
                proxy_ssl_trusted_certificate {certificates.AUTHORITY};
                proxy_ssl_verify on;
                proxy_ssl_name {certificates.ORIGIN_NAME};
                proxy_ssl_server_name on;
                proxy_ssl_protocols TLSv1.3;""",
        Protocol.H2C: """
                grpc_pass grpc://origin;""",
    }[site.setup.back]
    if site.setup.back is not Protocol.H2C:
        forward += """
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_buffers 16 8k;"""
    return _nginx(f"""
        upstream origin {{
            server 127.0.0.1:{site.origin_port};
            keepalive 256;
            keepalive_requests 1000000000;
            keepalive_time 1d;
            keepalive_timeout {IDLE_SECONDS}s;
        }}
        server {{
            listen 127.0.0.1:{site.port}{listen} backlog=4096;{tls}
            location / {{{forward}
            }}
        }}""", f"nginx-{site.port}", connections=site.descriptors)


def _nginx(http: str, name: str, connections: int) -> str:
    user = "user root root;" if is_root() else ""
    return f"""{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {connections};
pid {WORK}/{name}.pid;
error_log {WORK}/{name}.log warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout {IDLE_SECONDS}s;
    keepalive_requests 1000000000;
    keepalive_time 1d;
    client_body_temp_path {WORK}/{name}-body;
    proxy_temp_path {WORK}/{name}-proxy;
    fastcgi_temp_path {WORK}/{name}-fastcgi;
    uwsgi_temp_path {WORK}/{name}-uwsgi;
    scgi_temp_path {WORK}/{name}-scgi;
{http}
}}
"""


def haproxy(site: Site) -> str:
    """A client's connection and an idle upstream connection are a descriptor each. HAProxy would reserve two for each
    of `maxconn` and refuse to start, though idle clients hold none upstream: hence no strict limits. It would also
    close upstream connections when a quarter of the descriptors is in use: hence the ratios. Splicing takes about a
    fifth off the large responses and nothing off the small ones."""
    front = {
        Protocol.HTTP: "",
        Protocol.TLS: f" ssl crt {certificates.SERVER_BUNDLE} ssl-min-ver TLSv1.3",
        Protocol.H2C: " proto h2",
    }[site.setup.front]
    back = {
        Protocol.HTTP: "",
        Protocol.TLS: f" ssl crt {certificates.CLIENT_BUNDLE} ca-file {certificates.AUTHORITY} verify required"
                      f" sni str({certificates.ORIGIN_NAME}) ssl-min-ver TLSv1.3",
        Protocol.H2C: " proto h2",
    }[site.setup.back]
    return f"""global
    nbthread 1
    maxconn {site.descriptors - 1000}
    ulimit-n {site.descriptors}
    no strict-limits
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95

defaults
    mode http
    no log
    option http-keep-alive
    option splice-response
    http-reuse always
    timeout connect 5s
    timeout client {IDLE_SECONDS}s
    timeout server {IDLE_SECONDS}s
    timeout http-keep-alive {IDLE_SECONDS}s

frontend public
    bind 127.0.0.1:{site.port} backlog 4096{front}
    default_backend origin

backend origin
    server origin 127.0.0.1:{site.origin_port}{back}
"""


_ENVOY = "type.googleapis.com/envoy.extensions"


def envoy(site: Site) -> str:
    """Envoy reads JSON as it reads YAML. Its circuit breakers default to 1,024, its idle timeouts to one hour."""
    breaker = {name: 100_000 for name in ("max_connections", "max_pending_requests", "max_requests")}
    manager = {
        "@type": f"{_ENVOY}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "codec_type": "HTTP2" if site.setup.front is Protocol.H2C else "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": f"{_ENVOY}.filters.http.router.v3.Router"}}],
    }
    chain: dict = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if site.setup.front is Protocol.TLS:
        chain["transport_socket"] = _envoy_tls(
            "DownstreamTlsContext", {}, certificates.SERVER, certificates.SERVER_KEY, {})
    listener = {"name": "public", "address": _envoy_address(site.port), "tcp_backlog_size": 4096,
                "filter_chains": [chain]}
    cluster: dict = {
        "name": "origin", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [breaker]},
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": _envoy_address(site.origin_port)}}]}]},
    }
    if site.setup.back is Protocol.TLS:
        cluster["transport_socket"] = _envoy_tls(
            "UpstreamTlsContext", {"sni": certificates.ORIGIN_NAME}, certificates.CLIENT, certificates.CLIENT_KEY,
            {"validation_context": {
                "trusted_ca": {"filename": str(certificates.AUTHORITY)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": certificates.ORIGIN_NAME}}],
            }})
    if site.setup.back is Protocol.H2C:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {options: {
            "@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=2)


def _envoy_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_tls(context: str, names: dict, certificate: Path, key: Path, checks: dict) -> dict:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": f"{_ENVOY}.transport_sockets.tls.v3.{context}", **names,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": str(certificate)},
                                  "private_key": {"filename": str(key)}}],
            **checks,
        },
    }}


def h2o(site: Site) -> str:
    """h2o reads YAML. A listener without TLS speaks HTTP/2 as soon as a client begins with its preface. It would hand
    each private key operation to a process of its own: that is for safety, which is not compared here."""
    tls = "" if site.setup.front is not Protocol.TLS else f"""
  ssl:
    certificate-file: {certificates.SERVER}
    key-file: {certificates.SERVER_KEY}
    minimum-version: TLSv1.3
    ocsp-update-interval: 0
    neverbleed: OFF"""
    return f"""{"user: root" if is_root() else ""}
num-threads: 1
max-connections: {site.descriptors - 1000}
http1-request-timeout: {IDLE_SECONDS}
http2-idle-timeout: {IDLE_SECONDS}
proxy.timeout.keepalive: {1000 * IDLE_SECONDS}
listen:
  host: 127.0.0.1
  port: {site.port}{tls}
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://127.0.0.1:{site.origin_port}
"""


POSTERN_H2_LISTENER = {"http2": True}
POSTERN_H2_UPSTREAM = {"protocol": "h2"}
"""The keys that make Postern speak HTTP/2 by prior knowledge."""


def postern(site: Site, admin_port: int, shards: list[int]) -> str:
    """Defaults everywhere, but for the bounds that the load would meet."""
    listener: dict = {"address": f"127.0.0.1:{site.port}", "limits": {"max_connections": site.descriptors}}
    match site.setup.front:
        case Protocol.TLS:
            listener["tls"] = {"certificates": [_postern_certificate(certificates.SERVER, certificates.SERVER_KEY)],
                               "min_version": "1.3"}
        case Protocol.H2C:
            listener |= POSTERN_H2_LISTENER
    scheme = "https" if site.setup.back is Protocol.TLS else "http"
    upstream: dict = {"endpoints": [f"{scheme}://127.0.0.1:{site.origin_port}"], "limits": {"max_connections": 512}}
    match site.setup.back:
        case Protocol.TLS:
            upstream["tls"] = {"ca": str(certificates.AUTHORITY), "server_name": certificates.ORIGIN_NAME,
                               "min_version": "1.3",
                               "certificate": _postern_certificate(certificates.CLIENT, certificates.CLIENT_KEY)}
        case Protocol.H2C:
            upstream |= POSTERN_H2_UPSTREAM
    return json.dumps({
        "shards": shards,
        "listeners": [listener, {"address": f"127.0.0.1:{admin_port}", "admin": True}],
        "upstreams": {"origin": upstream},
        "routes": [{"match": {"path": "/{*rest}"}, "upstream": "origin"}],
    }, indent=2)


def _postern_certificate(chain: Path, key: Path) -> dict:
    return {"chain": str(chain), "key": str(key)}
