#!/usr/bin/env bash
# Counts the instructions of the hot paths with callgrind and compares them with benches/instructions.txt. Unlike times, they do not
# depend on the load of the machine.
#
#   benches/instructions.sh             fails where a path needs 3 % more than the baseline
#   benches/instructions.sh --update    writes a new baseline
#   benches/instructions.sh worker      only paths whose name contains this
set -euo pipefail
cd "$(dirname "$0")/.."

tolerance=3   # percent
baseline=benches/instructions.txt
few=200       # the difference of two runs removes the cost of the set-up
many=1200

command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 2; }
# program PACKAGE BENCH: the compiled program of a benchmark.
program() {
    cargo bench --locked --package "$1" --bench "$2" --no-run --message-format=json 2>/dev/null |
        sed -n "s/.*\"name\":\"$2\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -1
}
hot_paths=$(program dms-worker hot_paths)
sidecar=$(program dms-worker-cli sidecar)
[ -x "$hot_paths" ] && [ -x "$sidecar" ] || { echo "cargo bench --no-run failed" >&2; exit 2; }

# count NAME TIMES: the instructions of TIMES runs.
count() {
    local program=$hot_paths
    [[ $1 == sidecar_* ]] && program=$sidecar
    HOT_PATH="$1:$2" valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

names="$(sed -n 's/^    ("\([a-z_]*\)", .*/\1/p' benches/hot_paths/paths.rs) sidecar_batch"
filter=${1:-}
update=
[ "$filter" = --update ] && { update=1; filter=; }
worse=0
lines=
for name in $names; do
    [[ $name == *"$filter"* ]] || continue
    each=$((($(count "$name" $many) - $(count "$name" $few)) / (many - few)))
    lines+="$name $each"$'\n'
    before=$(awk -v name="$name" '$1 == name { print $2 }' "$baseline" 2>/dev/null || true)
    verdict=
    if [ -n "$before" ]; then
        verdict=$(awk -v now="$each" -v then="$before" -v most="$tolerance" \
            'BEGIN { change = (now / then - 1) * 100; printf "%+.1f %%%s", change, (change > most ? "  WORSE" : "") }')
        [[ $verdict == *WORSE ]] && worse=1
    fi
    printf '%-20s %8d instructions a batch  %s\n' "$name" "$each" "$verdict"
done
if [ -n "$update" ]; then
    printf '%s' "$lines" >"$baseline"
    exit 0
fi
exit $worse
