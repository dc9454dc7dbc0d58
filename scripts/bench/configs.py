"""The configuration of the origin and of each proxy: one worker, keep-alive on both sides, no access log, and the
documented tuning for this job, so that each is measured at its best."""

import json

from .cases import LARGE, SMALL
from .settings import IDLE_SECONDS, SMALL_BODY, WORK, is_root


def origin(port: int) -> str:
    """nginx as the server behind all proxies. /status counts what reached it."""
    return _nginx(f"""
        open_file_cache max=16 inactive=1h;
        open_file_cache_valid 1h;
        server {{
            listen 127.0.0.1:{port} backlog=4096;
            location = {SMALL} {{ default_type text/plain; return 200 "{SMALL_BODY}"; }}
            location = {LARGE} {{ default_type application/octet-stream; root {WORK}/www; }}
            location = /status {{ stub_status; }}
        }}""", "origin", connections=4096)


def nginx(port: int, origin_port: int, descriptors: int) -> str:
    """`proxy_buffers` hold the large response whole: the default writes what the client is slow to take to a temporary
    file, which nearly doubles its price."""
    return _nginx(f"""
        upstream origin {{
            server 127.0.0.1:{origin_port};
            keepalive 256;
            keepalive_requests 1000000000;
            keepalive_time 1d;
            keepalive_timeout {IDLE_SECONDS}s;
        }}
        server {{
            listen 127.0.0.1:{port} backlog=4096;
            location / {{
                proxy_pass http://origin;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_buffers 16 8k;
            }}
        }}""", f"nginx-{port}", connections=descriptors)


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


def haproxy(port: int, origin_port: int, descriptors: int) -> str:
    """A client's connection and an idle upstream connection are a descriptor each. HAProxy would reserve two for each
    of `maxconn` and refuse to start, though idle clients hold none upstream: hence no strict limits. It would also
    close upstream connections when a quarter of the descriptors is in use: hence the ratios. Splicing takes about a
    fifth off the large responses and nothing off the small ones."""
    return f"""global
    nbthread 1
    maxconn {descriptors - 1000}
    ulimit-n {descriptors}
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
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin

backend origin
    server origin 127.0.0.1:{origin_port}
"""


_ENVOY = "type.googleapis.com/envoy.extensions.filters"


def envoy(port: int, origin_port: int) -> str:
    """Envoy reads JSON as it reads YAML. Its circuit breakers default to 1,024, its idle timeouts to one hour."""
    breaker = {name: 100_000 for name in ("max_connections", "max_pending_requests", "max_requests")}
    manager = {
        "@type": f"{_ENVOY}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": f"{_ENVOY}.http.router.v3.Router"}}],
    }
    listener = {
        "name": "public", "address": _envoy_address(port), "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    cluster = {
        "name": "origin", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [breaker]},
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": _envoy_address(origin_port)}}]}]},
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=2)


def _envoy_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def postern(port: int, admin_port: int, origin_port: int, shards: list[int], connections: int) -> str:
    """Defaults everywhere, but for the bounds that the load would meet."""
    return json.dumps({
        "shards": shards,
        "listeners": [
            {"address": f"127.0.0.1:{port}", "limits": {"max_connections": connections}},
            {"address": f"127.0.0.1:{admin_port}", "admin": True},
        ],
        "upstreams": {"origin": {
            "endpoints": [f"http://127.0.0.1:{origin_port}"],
            "limits": {"max_connections": 512},
        }},
        "routes": [{"match": {"path": "/{*rest}"}, "upstream": "origin"}],
    }, indent=2)
