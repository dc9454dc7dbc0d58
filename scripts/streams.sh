#!/bin/sh
# Large bodies through every pairing of protocols, and what memory that takes: scripts/streams.sh --help
set -eu
scripts="$(cd "$(dirname "$0")" && pwd)"
# Debian keeps nginx where only root looks.
PATH="$PATH:/usr/sbin"
export PYTHONPATH="$scripts" PYTHONPYCACHEPREFIX="$scripts/../target/streams/pycache"
exec python3 -m streams "$@"
