#!/usr/bin/env python3
"""Drives the server by docs/openapi.yaml: each operation with valid and invalid requests, as schemathesis makes them up. No answer may be a
failure of the server, and each has to be one that the document describes.

Usage: run.py path/to/dms-worker [EXAMPLES]
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"

# A document cannot say everything: which members exclude each other, which ids a server knows, or that two names must differ. The server
# is more lenient than the document where the reference is: an empty parameter stands for its default, and null for a member that is left
# out. And the path of one operation is also the path of another one: a tag may have the key `action`.
LEFT_OUT = "positive_data_acceptance,negative_data_rejection,allow_header_conformance"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def wait_until_ready(url):
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def prepared(api, name):
    """A queue of this name with a group, and two messages: operations need something to work on."""
    queue = post(f"{api}/v2/local/queues", {"name": name, "redrive_policy": "enable", "max_consume_count": 3})["id"]
    group = post(f"{api}/v2/local/queues/{queue}/groups", {"groups": [{"name": "billing"}]})["groups"][0]["id"]
    sent = post(
        f"{api}/v2/local/queues/{queue}/messages",
        {"messages": [{"body": {"order": 1}, "tags": ["red"]}, {"body": 2, "delay_time": 3_600_000}], "return_id": True},
    )
    return {
        "path.version": "v2",
        "path.project_id": "local",
        "path.queue_id": queue,
        "path.group_id": group,
        "path.message_id": sent["messages"][0]["id"],
        "query.time_wait": 1,
        # Another value is documented to be answered with 500.
        "query.tag_type": "or",
        "query.project": "local",
    }


def prepared_topic(mqs):
    """A topic with a message. Other topics and groups would use up the quotas."""
    post(f"{mqs}/v1/topic/payments/messages", {"messages": [{"content": "paid", "id": "1"}]})
    return {"path.topic": "payments", "path.group": "billing", "query.time_wait": 1}


def drive(program, directory, url, paths, known, examples):
    config = directory / "schemathesis.toml"
    config.write_text("[parameters]\n" + "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in known.items()))
    command = [
        program, "--config-file", config, "run", DOCUMENT, "--url", url, "--include-path-regex", paths,
        "--exclude-checks", LEFT_OUT, "--phases", "examples,coverage,fuzzing", "--seed", "1", "-n", examples,
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, cwd=directory)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode == 0


def main():
    worker = pathlib.Path(sys.argv[1]).resolve()
    examples = sys.argv[2] if len(sys.argv) > 2 else "20"
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    api, admin, mqs = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        config = directory / "config.yaml"
        config.write_text(f"server: {{mqs: {{listen: '{mqs.removeprefix('http://')}'}}}}\n")
        serve = [worker, "serve", "--config", config, "--listen", api.removeprefix("http://"), "--admin", admin.removeprefix("http://")]
        with open(directory / "log", "w") as log:
            server = subprocess.Popen([*serve, "--data-dir", directory / "data"], stdout=log, stderr=log, cwd=directory)
        try:
            wait_until_ready(f"{admin}/readyz")
            passed = drive(program, directory, api, r"^/(\{version\}|v3)", prepared(api, "orders"), examples)
            passed &= drive(program, directory, mqs, "^/v1/topic/", prepared_topic(mqs), examples)
            passed &= drive(program, directory, admin, "^/(admin|metrics|livez|readyz)", prepared(api, "invoices"), examples)
            wait_until_ready(f"{admin}/readyz")
        finally:
            server.terminate()
            server.wait(timeout=30)
        if not passed:
            print((directory / "log").read_text()[-5_000:], file=sys.stderr)
            raise SystemExit(1)


main()
