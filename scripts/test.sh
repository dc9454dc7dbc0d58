#!/usr/bin/env bash
# Everything that must hold before a change lands: format, lints, tests, examples, fuzz corpora, documentation.
# Installs what a fresh Debian machine with Rust lacks, when it may (as root). Takes minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -t 1 ]; then bold=$'\e[1m'; green=$'\e[32m'; red=$'\e[31m'; off=$'\e[0m'; else bold=; green=; red=; off=; fi
started=$SECONDS
step() { printf '%s==> %s%s  (%ds)\n' "$bold" "$*" "$off" "$((SECONDS - started))"; }
trap 'printf "%sfailed%s after %ds\n" "$red" "$off" "$((SECONDS - started))"' ERR

# Tests talk to real peers: nginx, HAProxy, curl, nghttp, OpenSSL and Python's grpcio and websockets. The benchmark and the soak are Python. A C compiler builds the executor and the allocator.
packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v make >/dev/null || packages+=(make)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || packages+=(haproxy)
command -v curl >/dev/null || packages+=(curl)
command -v nghttp >/dev/null || packages+=(nghttp2-client)
command -v nghttpd >/dev/null || [ -x /usr/sbin/nghttpd ] || packages+=(nghttp2-server)
command -v openssl >/dev/null || packages+=(openssl)
command -v python3 >/dev/null || packages+=(python3)
/usr/bin/python3 -c 'import grpc' 2>/dev/null || packages+=(python3-grpcio)
/usr/bin/python3 -c 'import websockets' 2>/dev/null || packages+=(python3-websockets)
if [ ${#packages[@]} -gt 0 ]; then
  step "installing ${packages[*]}"
  [ "$(id -u)" = 0 ] || { echo "missing: ${packages[*]}: install them, or run this as root" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

step "format"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
step "lints"
cargo clippy --all-targets --quiet -- -D warnings
step "tests of the comparison benchmark and of the soak"
(cd scripts && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest -q bench.tests soak.tests)
step "tests"
cargo test --quiet
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --quiet
printf '%sall good%s in %ds\n' "$green" "$off" "$((SECONDS - started))"
