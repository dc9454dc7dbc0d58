#!/usr/bin/env bash
# Builds the binary to deploy, target/pgo/postern: as `cargo build --release` does, but laid out by what a training run has shown to be used.
# Takes about five minutes, and as root installs what the training's load needs: see scripts/bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$PWD/target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
# The one that belongs to this compiler: the format of profiles changes from version to version.
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools

build() { # FLAG DIRECTORY
  # Naming the target keeps the flag from the build scripts.
  RUSTFLAGS="${RUSTFLAGS-} $1" cargo build --release --bin postern --target "$host" --target-dir "$2"
}

rm -rf "$out/profiles"
echo "==> a binary that counts"
build "-Cprofile-generate=$out/profiles" "$out/training"
echo "==> training"
scripts/bench/run.sh --binary "$out/training/$host/release/postern" \
  --proxies postern --cases c64,c1,large,newconn --rounds 1
"$profdata" merge -o "$out/postern.profdata" "$out"/profiles/*.profraw
echo "==> the binary laid out by what was counted"
build "-Cprofile-use=$out/postern.profdata" "$out/final"
cp "$out/final/$host/release/postern" "$out/postern"
ls -lh "$out/postern"
