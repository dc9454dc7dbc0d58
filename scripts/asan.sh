#!/bin/sh
# Runs the ring's tests, the torture among them, under AddressSanitizer. Needs a nightly toolchain.
#
# The standard library is not instrumented, nor is the kernel, and the receive buffers are mapped memory that AddressSanitizer does not know: what it
# sees is what Rust code does with operations, messages, packets and wakers. What the kernel does with them too late shows in the torture's bytes.
#
#   scripts/asan.sh                                  all of them
#   TORTURE_ROUNDS=500 scripts/asan.sh torture       only what has this in its name, and for longer
set -eu
cd "$(dirname "$0")/.."

target=$(rustc +nightly -vV | sed -n 's/^host: //p')
# One test sees to it that memory is left to the kernel rather than freed.
mkdir -p target/asan
echo 'leak:leaks_what_the_kernel_may_use' >target/asan/deliberate-leaks
export LSAN_OPTIONS="suppressions=$PWD/target/asan/deliberate-leaks:print_suppressions=0"
RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_stack_use_after_return=1:${ASAN_OPTIONS:-}" \
    cargo +nightly test --lib --target "$target" --target-dir target/asan -- "ring::${1:+tests::$1}"
