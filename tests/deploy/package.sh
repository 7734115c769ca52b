#!/usr/bin/env bash
# Installs the Debian package in a fresh Debian system below target/, starts the server there as its unit does, and removes the package:
#
#   tests/deploy/package.sh target/dist/dms-worker_0.1.0-1_amd64.deb
#
# Needs root and debootstrap. There is no systemd in the system, so the sandbox of the unit is not tested.
set -euo pipefail
deb=$(realpath "${1:?a package}")
cd "$(dirname "$0")/../.."

base=$PWD/target/debian-base
root=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$root"
}
trap finish EXIT
[ -d "$base/usr/bin" ] || debootstrap --variant=minbase --include=ca-certificates,init-system-helpers bookworm "$base" http://deb.debian.org/debian >"$root/log" 2>&1 || { tail "$root/log"; exit 1; }
cp -a "$base/." "$root"
cp "$deb" "$root/package.deb"

inside() { chroot "$root" "$@"; }
expect() { "$@" || { echo "failed: $*" >&2; exit 1; }; }
listens_on() { sed -n "s/^  $1: *//p" "$root/etc/dms-worker/server.yaml"; }

inside dpkg -i /package.deb
expect inside dms-worker --version
for unit in dms-server dms-worker; do
    expect test -f "$root/usr/lib/systemd/system/$unit.service"
    expect test ! -e "$root/etc/systemd/system/multi-user.target.wants/$unit.service"
done
expect test -f "$root/usr/share/doc/dms-worker/docs/runbook.md"

# Other ports than those of a server of this machine; the edited configuration has to survive the upgrade below.
sed -i 's/0\.0\.0\.0:9400/127.0.0.1:19400/; s/127\.0\.0\.1:9401/127.0.0.1:19401/' "$root/etc/dms-worker/server.yaml"
install -d -m 0700 -o 65534 -g 65534 "$root/var/lib/dms-server" "$root/run/credentials"
install -m 0400 -o 65534 -g 65534 /dev/stdin "$root/run/credentials/dms-server.secret_key" <<<"a secret"

# The command of the unit.
command=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/dms-server.service")
start() {
    # shellcheck disable=SC2086
    chroot --userspec=65534:65534 "$root" env CREDENTIALS_DIRECTORY=/run/credentials $command &
    server=$!
    for _ in $(seq 100); do
        inside dms-worker health "http://$(listens_on admin)/readyz" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "the server is not ready" >&2
    exit 1
}
stop() {
    kill -TERM "$server"
    expect wait "$server"
    server=
}
start
queues() { inside env HUAWEICLOUD_SDK_AK=orders HUAWEICLOUD_SDK_SK="a secret" dms-worker queue list --endpoint "http://$(listens_on listen)" --project-id local; }
expect grep -q orders <(queues)
stop

# An upgrade keeps the edited configuration, and the messages.
inside dpkg -i /package.deb
expect grep -q 127.0.0.1:19400 "$root/etc/dms-worker/server.yaml"
start
stop

inside dpkg -r dms-worker
expect test ! -e "$root/usr/bin/dms-worker"
expect test -f "$root/etc/dms-worker/server.yaml"
inside dpkg -P dms-worker
expect test ! -e "$root/etc/dms-worker/server.yaml"
expect test -d "$root/var/lib/dms-server"
echo "installed, started, upgraded, removed and purged"
