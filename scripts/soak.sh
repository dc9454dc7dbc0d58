#!/bin/sh
# Minutes of load on Postern between clients and backends that go away at any moment: scripts/soak.sh --help
set -eu
scripts="$(cd "$(dirname "$0")" && pwd)"
export PYTHONPATH="$scripts" PYTHONPYCACHEPREFIX="$scripts/../target/soak/pycache"
exec python3 -m soak "$@"
