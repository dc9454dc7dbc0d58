#!/bin/sh
# Compares Postern with nginx, HAProxy, Envoy and h2o: scripts/bench/run.sh --help
set -eu
scripts="$(cd "$(dirname "$0")/.." && pwd)"
# Debian keeps nginx and haproxy where only root looks.
PATH="$PATH:/usr/sbin"

missing=
for pair in nginx:nginx-light haproxy:haproxy h2o:h2o wrk:wrk h2load:nghttp2-client openssl:openssl gcc:gcc \
    taskset:util-linux python3:python3; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -e /usr/include/nghttp2/nghttp2.h ] || missing="$missing libnghttp2-dev"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "bench: as root, run: apt-get install$missing" >&2
        exit 2
    fi
    echo "installing$missing" >&2
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing libc6-dev python3-venv >&2
fi

export PYTHONPATH="$scripts" PYTHONPYCACHEPREFIX="$scripts/../target/bench/pycache"
exec python3 -m bench "$@"
