#!/usr/bin/env python3
"""Runs the commands of the READMEs and the guide as they are written, and waits for the output that their comments promise.

Usage: run.py path/to/dms-worker [--cluster-venv FOLDER] [--only PART OF A PLACE]

The blocks of a page run one after the other in one folder, as for a reader, in a network namespace of their own where this user may make
one, because they name ports. `cargo run` starts the example that is built already. A block that is not run is in LEFT_OUT with the reason;
a block that is in neither list is an error.
"""

import argparse
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60
END = "the block has ended: "

SERVE = "dms-worker serve &\n"
READY = "curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:9401/readyz\n"
ADMIN = "dms-worker serve --data-dir dms-data --admin 127.0.0.1:9401 &\n" + READY
SEND = ["order 1: 250 cents"]
SIDECAR = ['got {"id": 1}', "the application cannot be reached", 'got {"id": 2}']
ONE = ['{"body":{"id": 1}']


class Run:
    """How a block is run. `says`: what a comment of the block promises, and the commands print. `prints`: what they print, too."""

    def __init__(self, says=(), prints=(), before="", replace=(), stays=False, cluster=False, sdk=False):
        self.says, self.prints, self.before, self.replace = list(says), list(prints), before, list(replace)
        self.stays, self.cluster, self.sdk = stays, cluster, sdk


CLUSTER = "python3 -m venv venv"
RUN = {
    ("README.md", "cargo run &"): Run(SEND),
    ("README.md", "examples/sidecar/app.py"): Run(SIDECAR),
    ("README.md", "--data-dir ./dms-data"): Run(ONE),
    ("README.md", CLUSTER): Run(prints=["STANDBY", "serving"], cluster=True),
    ("README.zh-CN.md", "cargo run &"): Run(SEND),
    ("README.zh-CN.md", "examples/sidecar/app.py"): Run(SIDECAR),
    ("README.zh-CN.md", "--data-dir ./dms-data"): Run(ONE),
    ("docs/capacity.md", "bench"): Run(prints=["SENT/S"], replace=[("5s", "200ms"), ("/tmp/bench", "bench")]),
    ("docs/certificates.md", "tls.key"): Run(),
    ("docs/certificates.md", "hop-ca"): Run(),
    ("docs/certificates.md", "key add OPERATOR"): Run(prints=["SHOP"]),
    ("docs/certificates.md", "--like SHOP"): Run(replace=[("key remove", "key remove --yes")]),
    ("docs/cluster.md", CLUSTER): Run(prints=["STANDBY", "1 message received"], cluster=True),
    ("docs/concepts/queues.md", "queue create"): Run(prints=["1 message received"], before=SERVE),
    ("docs/languages/programs.md", "programs.yaml"): Run(prints=["running orders/billing"]),
    ("docs/languages/python.md", "examples/sidecar/app.py"): Run(['got {"id": 1}']),
    ("docs/migrating/redis-streams.md", "XRANGE"): Run(
        prints=["2 sent to orders"],
        before="redis-server --save '' >/dev/null &\n" + SERVE + "dms-worker queue create orders --group billing\n"
        "until redis-cli ping 2>/dev/null; do sleep 0.1; done\nredis-cli xgroup create orders billing 0 mkstream\n"
        "for id in 1 2 3 4; do redis-cli xadd orders '*' id $id; done\n"
        "redis-cli xreadgroup group billing consumer count 2 streams orders '>'\n",
    ),
    ("docs/operations.md", "key add OPERATOR"): Run(
        prints=["SHOP-2"],
        before="echo 'server: {auth: {access_keys_file: keys.yaml}}' >server.yaml\n",
        replace=[("/etc/dms-worker/", ""), ("dms-worker key list -c server.yaml\n", ""), ("key remove SHOP", "key list -c server.yaml\ndms-worker key remove --yes SHOP")],
    ),
    ("docs/operations.md", "d/dms.db"): Run(prints=["20000 sent"], replace=[("sleep 1", "true"), ("wait; ", "wait %1 || true; ")]),
    ("docs/operations.md", "queue purge orders "): Run(
        before="echo 'server: {admin: 127.0.0.1:9401}' >admin.yaml\nexport DMS_WORKER_CONFIG=admin.yaml\n" + SERVE + READY + "dms-worker queue create orders --group billing\n",
        replace=[("queue purge", "queue purge -y")],
    ),
    ("docs/runbook.md", "DMS_WORKER_CONFIG"): Run(
        ["ok"],
        prints=["orders/billing", "all there"],
        before="echo 'server: {admin: 127.0.0.1:9401, project_id: shop, auth: {access_keys: [{access_key: A, secret_key_file: \"${CREDENTIALS_DIRECTORY}/s\"}]},"
        " queues: [{name: orders, groups: [billing]}]}' >server.yaml\nmkdir -p credstore; echo secret >credstore/s\n"
        "CREDENTIALS_DIRECTORY=credstore dms-worker serve -c server.yaml &\n" + READY,
        replace=[("/etc/", "./"), ("./dms-worker/server", "server")],
    ),
    ("docs/schedules.md", "schedule add"): Run(prints=["monday", "nightly"], before="dms-worker serve -c server.yaml &\n" + READY),
    ("docs/server.md", "serve --data-dir"): Run(["http://127.0.0.1:9400"], stays=True),
    ("docs/server.md", "orders.py"): Run(["{'order': 1}"], sdk=True),
    ("docs/storage.md", "data backup"): Run(before=ADMIN, replace=[("/backup/", "backup-")]),
    ("docs/upgrading.md", "data backup"): Run(before=ADMIN, replace=[("/backup/", "backup-"), ("systemctl restart dms-server", "true")]),
}

EXAMPLES = "crates/cli/tests/it/examples.rs runs the examples"
LANGUAGES = "tests/sidecar/test_languages.py runs the application with this configuration"
MEASURES = "it measures for minutes"
LEFT_OUT = {
    ("README.md", "cargo new"): "it compiles the library for a new package",
    ("README.md", "-- demo"): "crates/cli/tests/it/guide/programs.rs runs the tour",
    ("README.zh-CN.md", "cargo new"): "it compiles the library for a new package",
    ("README.zh-CN.md", "-- demo"): "crates/cli/tests/it/guide/programs.rs runs the tour",
    ("README.zh-CN.md", CLUSTER): "the commands are those of README.md",
    ("deploy/README.md", "credstore"): "it needs systemd",
    ("deploy/README.md", "kubectl"): "it needs Kubernetes",
    ("deploy/README.md", ".ci/release"): "the job `packages` of CI runs it",
    ("docs/cluster.md", "--faults 400"): MEASURES,
    ("docs/cluster.md", "--only queues"): MEASURES,
    ("docs/cluster.md", "data export"): "crates/cli/tests/it/cli moves between a directory and PostgreSQL",
    ("docs/commands.md", "context add"): "recipes with services that are not there",
    ("docs/dashboard.md", "demo --keep"): "tests/dashboard/run.py drives the dashboard",
    ("docs/dashboard.md", "dashboard_cost.py"): MEASURES,
    ("docs/languages/go.md", "go build"): LANGUAGES,
    ("docs/languages/java.md", "Orders.java"): LANGUAGES,
    ("docs/languages/java.md", "mvn"): LANGUAGES,
    ("docs/languages/node.md", "express_app.js"): LANGUAGES,
    ("docs/languages/python.md", "flask_app.py"): LANGUAGES,
    ("docs/languages/python.md", "batch.yaml"): LANGUAGES,
    ("docs/migrating/rabbitmq.md", "rabbitmqadmin"): "it needs RabbitMQ",
    ("docs/migrating/vendor-sdks.md", "queue move"): "it needs the old service",
    ("docs/mqs.md", "queue move"): "it needs a service that speaks MQS",
    ("docs/operations.md", "queue move"): "it needs another server",
    ("docs/performance.md", "benches/peers/run.py      "): MEASURES,
    ("docs/performance.md", "--only cluster"): MEASURES,
    ("docs/performance.md", "--sweep"): MEASURES,
    ("docs/rust/failures.md", "inbox_outbox"): EXAMPLES,
    ("docs/rust/producer.md", "dms-worker-actix-example"): "it has a test of its own",
    ("docs/storage.md", "data export"): "crates/cli/tests/it/cli moves between a directory and PostgreSQL",
}

# Starts bash in a network without other programs, whose loopback is up.
ALONE = """import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh", b"lo", 1 | 0x40))
os.execvp("bash", ["bash", *sys.argv[1:]])"""

CARGO = """#!/bin/sh
# `cargo run` of a package that a reader has made is the example of the README.
[ "$*" = run ] && exec "{examples}/first_worker"
echo "cargo $* is not expected here" >&2; exit 1
"""


def blocks(page):
    """The blocks of a page, as (language, text)."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", (TOP / page).read_text(), re.DOTALL | re.MULTILINE)


def plan():
    """The blocks to run by page, in their order; refuses a block that no list has, and an entry without a block."""
    pages = ["README.md", "README.zh-CN.md", "deploy/README.md", *sorted(str(path.relative_to(TOP)) for path in (TOP / "docs").rglob("*.md"))]
    found, used, unknown = {}, set(), []
    for page in pages:
        for language, text in blocks(page):
            if language not in ("sh", "bash") or all(line.startswith("cargo run --example ") for line in text.splitlines()):
                continue
            keys = [key for key in [*RUN, *LEFT_OUT] if key[0] == page and key[1] in text]
            if len(keys) != 1:
                unknown.append(f"{page}: {len(keys)} entries fit the block that begins with {text.splitlines()[0]!r}")
            for key in keys:
                used.add(key)
                if key in RUN:
                    found.setdefault(page, []).append((key, text))
    unknown += [f"no block of {page} has {text!r}" for page, text in {*RUN, *LEFT_OUT} - used]
    if unknown:
        sys.exit("\n".join(unknown))
    return found


def script(run, text):
    """The commands of a block, each of which has to succeed and to print what its comment promises."""
    lines = ["set -eo pipefail", f"trap 'echo \"{END}$?\"' EXIT", run.before]
    promised = 0
    for old, new in run.replace:
        text = text.replace(old, new)
    for line in text.replace("\\\n", " ").splitlines():
        promise = next((said for said in run.says if "#" in line and said in line.split("#", 1)[1]), None)
        command = line.split("  #")[0].rstrip()
        if promise:
            promised += 1
            quoted = shlex.quote(promise)
            if command.startswith("curl http") or command.startswith("curl -s "):
                # A reader would ask again.
                lines.append(f"until {command} | tee answer; grep -qF -- {quoted} answer; do sleep 0.2; done")
            else:
                lines += [command, f"until grep -qF -- {quoted} output; do sleep 0.1; done"]
        else:
            lines.append(command)
    lines += [f"until grep -qF -- {shlex.quote(printed)} output; do sleep 0.1; done" for printed in run.prints]
    return "\n".join(lines) + "\n", promised


def namespace():
    """The words before a command that give it a network of its own."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return [*words, sys.executable, "-c", ALONE]
    return ["bash"]


def end(session):
    """Ends what a block has started."""
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue


def try_out(key, text, folder, environment, prefix):
    run = RUN[key]
    commands, promised = script(run, text)
    if promised != len(run.says):
        return f"the comments do not promise {run.says}"
    (folder / "output").unlink(missing_ok=True)
    (folder / "block.sh").write_text(commands)
    with open(folder / "output", "w", encoding="utf-8") as output:
        child = subprocess.Popen([*prefix, "block.sh"], cwd=folder, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            printed = (folder / "output").read_text(errors="replace")
            ended = re.search(f"{END}(\\d+)", printed)
            if ended or child.poll() is not None:
                code = ended.group(1) if ended else child.returncode
                return None if code == "0" else f"it ended with {code}:\n{printed}"
            if run.stays and all(said in printed for said in run.says + run.prints):
                return None
            time.sleep(0.1)
        return f"it did not end or print {run.says + run.prints}:\n{printed}"
    finally:
        end(child.pid)
        child.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--cluster-venv", type=pathlib.Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    program, failed, count = arguments.program.absolute(), 0, 0
    prefix = namespace()
    sdk = TOP / "target/vendor-clients"
    for page, found in plan().items():
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            folder.chmod(0o711)
            bin = folder / "bin"
            bin.mkdir()
            (bin / "dms-worker").symlink_to(program)
            (bin / "cargo").write_text(CARGO.format(examples=program.parent / "examples"))
            (bin / "cargo").chmod(0o755)
            for link in ("examples", "tests"):
                (folder / link).symlink_to(TOP / link)
            for language, text in blocks(page):
                named = re.match(r"# ([\w-]+\.(?:yaml|py))\n", text)
                if named:
                    (folder / named.group(1)).write_text(text)
            environment = {key: value for key, value in os.environ.items() if not key.startswith(("DMS_", "HUAWEICLOUD_"))}
            environment |= {"PATH": f"{bin}:{environment['PATH']}", "HOME": str(folder), "PYTHONUNBUFFERED": "1"}
            for key, text in found:
                run, place = RUN[key], f"{page}: {key[1]}"
                venv = arguments.cluster_venv if run.cluster else sdk if run.sdk else None
                if arguments.only not in place or (run.cluster and not venv):
                    continue
                if venv:
                    (folder / "venv").unlink(missing_ok=True)
                    (folder / "venv").symlink_to(venv.resolve())
                    text = "\n".join(line for line in text.splitlines() if not line.startswith("python3 -m venv"))
                started = time.monotonic()
                problem = try_out(key, text, folder, environment, prefix)
                count += 1
                print(f"{place} {'FAILED: ' + problem if problem else f'ok ({time.monotonic() - started:.1f} s)'}", flush=True)
                failed += problem is not None
    print(f"{count} blocks, {failed} failed")
    sys.exit(1 if failed or not count else 0)


if __name__ == "__main__":
    main()
