#!/usr/bin/env bash
# Builds the binary to deploy, target/tuned/postern: as `cargo build --release` does, but laid out twice by what training runs have shown to be used, by
# the compiler (PGO) and then by LLVM's BOLT. A request that comes alone runs from cold caches, so what counts is how little of them it touches.
# Takes about eight minutes, and as root installs BOLT and what the training's load needs: see scripts/bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$PWD/target/tuned
host=$(rustc -vV | sed -n 's/^host: //p')
llvm=/usr/lib/llvm-19/bin
if [ ! -x "$llvm/llvm-bolt" ] && [ "$(id -u)" = 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends bolt-19 >/dev/null
fi
[ -x "$llvm/llvm-bolt" ] || { echo "release: $llvm/llvm-bolt is missing: install Debian's bolt-19" >&2; exit 1; }
# The one that belongs to this compiler: the format of profiles changes from version to version.
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools

build() { # FLAGS DIRECTORY
  # Naming the target keeps the flags from the build scripts.
  RUSTFLAGS="${RUSTFLAGS-} $1" cargo build --release --bin postern --target "$host" --target-dir "$2"
}
train() { # BINARY
  scripts/bench/run.sh --binary "$1" --output "$out/training-report" \
    --proxies postern --cases c64,c1,large,newconn,tls,mtls,h2,grpc --rounds 1 --seconds 3
}

rm -rf "$out/profiles"
mkdir -p "$out"
echo "==> a binary that counts for the compiler"
build "-Cprofile-generate=$out/profiles" "$out/counting"
train "$out/counting/$host/release/postern"
"$profdata" merge -o "$out/postern.profdata" "$out"/profiles/*.profraw

echo "==> the binary that the compiler lays out"
# BOLT moves functions, and so needs the relocations.
build "-Cprofile-use=$out/postern.profdata -Clink-arg=-Wl,--emit-relocs" "$out/final"
compiled=$out/final/$host/release/postern

bolt() { # ARGUMENTS
  "$llvm/llvm-bolt" "$compiled" "$@" >"$out/bolt.log" 2>&1 || { cat "$out/bolt.log" >&2; return 1; }
}

echo "==> a binary that counts for BOLT"
rm -rf "$out/counts"
mkdir "$out/counts"
# Each process of the training, down to the one that only tells its version, counts for itself.
bolt -o "$out/counting-blocks" -instrument -instrumentation-file="$out/counts/of" -instrumentation-file-append-pid
train "$out/counting-blocks"
"$llvm/merge-fdata" "$out"/counts/* -o "$out/postern.fdata" 2>/dev/null

echo "==> the binary that BOLT lays out"
bolt -o "$out/postern" -data="$out/postern.fdata" -update-debug-sections -use-gnu-stack -icf=1 \
  -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold -split-eh
ls -lh "$out/postern"
