#!/usr/bin/env bash
# run.sh [SECONDS]: builds the fuzz targets and runs each for SECONDS (default 60), two at a time. Findings are kept in fuzz/artifacts,
# inputs that reach new code in fuzz/corpus. Needs cargo-fuzz and a C++ compiler, and no nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

# One target: its seeds, and what earlier runs have learnt.
fuzz() {
    local target=$1 log
    log=$(mktemp)
    mkdir -p "fuzz/corpus/$target"
    if cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096 >"$log" 2>&1; then
        echo "$target: $(grep -a '^Done' "$log")"
    else
        cat "$log"
        echo "FAILED: $target"
        return 1
    fi
    rm -f "$log"
}
export -f fuzz
export seconds

cargo fuzz build --sanitizer none
cargo fuzz list | xargs -P 2 -I '{}' bash -c 'fuzz {}'
