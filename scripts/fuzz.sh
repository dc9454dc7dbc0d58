#!/usr/bin/env bash
# Runs the fuzz targets: scripts/fuzz.sh [SECONDS_EACH [TARGET ..]]. See fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
for target in "${targets[@]}"; do
  printf '==> %s for %ss\n' "$target" "$seconds"
  # The committed corpus is read; what the fuzzer finds new goes to a folder that is not.
  found=target/fuzz-corpus/$target
  log=target/fuzz-corpus/$target.log
  mkdir -p "$found"
  if ! cargo +nightly fuzz run "$target" "$found" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "$target: see fuzz/artifacts/$target" >&2
    exit 1
  fi
  grep -E "^(stat::number_of_executed_units|stat::new_units_added)" "$log"
done
