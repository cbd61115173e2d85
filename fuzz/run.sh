#!/usr/bin/env bash
# Runs each target for a time, one after the other, and prints a line for each.
#
#   fuzz/run.sh SECONDS [TARGET…]
#
# SECONDS is the time a target has, 10 for a look, 600 for the full figure; without TARGET all of
# them run. Ends with 1 at the first crash, time-out or exhausted memory, and says where the input
# is. What is found on the way goes into a scratch folder, never into the committed corpus.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?"usage: fuzz/run.sh SECONDS [TARGET...]"}
shift
[ $# -gt 0 ] || set -- notify ajo bearer jwt signature configuration cursor seal settle fixtures

# The sanitizer and the coverage counters are unstable flags of rustc; this lets a stable one take
# them, so that no second toolchain is needed.
export RUSTC_BOOTSTRAP=1
sanitizer=${FUZZ_SANITIZER:-address}
scratch=${FUZZ_SCRATCH:-target/scratch}

mkdir -p target
for target; do
  cargo fuzz build --sanitizer "$sanitizer" "$target" 2> target/build.log ||
    { cat target/build.log >&2; exit 1; }
  mkdir -p "$scratch/$target" "artifacts/$target"
  log=target/$target.log
  began=$SECONDS
  status=0
  cargo fuzz run --sanitizer "$sanitizer" "$target" \
    "$scratch/$target" "corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 > "$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  found=$(sed -n 's/^stat::new_units_added: *//p' "$log")
  # A slow unit is written down too, but is no crash: the machine may have been busy.
  crashes=$(grep -cE 'Test unit written to .*/(crash|timeout|oom|leak)-' "$log" || true)
  printf '%-14s %10s executions %5d s %6s new inputs %d crashes\n' \
    "$target" "${runs:-?}" "$((SECONDS - began))" "${found:-?}" "$crashes"
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    echo "$target failed: the input is in fuzz/artifacts/$target, the log in fuzz/$log" >&2
    exit 1
  fi
done
