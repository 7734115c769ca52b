"""What both suites need: a server in its own process, and checks that are counted.

Usage of a suite: SUITE.py path/to/dms-worker          with DMS_STORE=postgres, the messages are in PostgreSQL instead of a directory
or, against a server that runs already with the credentials below: SUITE.py http://127.0.0.1:9400
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

import postgres

PROJECT = "b78a90ae2a134b4b8b2ba30acab4e23a"
PROJECT_NAME = "eu-de"
ACCESS_KEY, SECRET_KEY = "EXAMPLEKEY", "example-secret"
TEMPORARY_KEY, TEMPORARY_SECRET, SECURITY_TOKEN = "TEMPORARYKEY", "temporary-secret", "security-token"
OTHER_PROJECT, OTHER_KEY, OTHER_SECRET = "other-project", "OTHERKEY", "other-secret"
USER, PASSWORD, DOMAIN = "user", "password", "domain"

CONFIG = f"""
server:
  listen: 127.0.0.1:%(port)d
  admin: 127.0.0.1:%(admin)d
  %(store)s
  token_lifetime: %(token_lifetime)s
  projects:
    - id: {PROJECT}
      name: {PROJECT_NAME}
      auth:
        access_keys:
          - {{access_key: {ACCESS_KEY}, secret_key: {SECRET_KEY}}}
          - {{access_key: {TEMPORARY_KEY}, secret_key: {TEMPORARY_SECRET}, security_token: {SECURITY_TOKEN}}}
        users:
          - {{user: {USER}, password: {PASSWORD}, domain: {DOMAIN}}}
    - id: {OTHER_PROJECT}
      auth:
        access_keys:
          - {{access_key: {OTHER_KEY}, secret_key: {OTHER_SECRET}}}
"""


class Checks:
    """Counts what passed and what failed; a failure says where and goes on."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def true(self, what, condition, shown=None):
        if condition:
            self.passed += 1
            return
        self.failed += 1
        caller = traceback.extract_stack(limit=3)[0]
        print(f"FAILED line {caller.lineno}: {what}: {shown!r}", file=sys.stderr)

    def equal(self, what, found, wanted):
        self.true(what, found == wanted, f"found {found!r}, wanted {wanted!r}")

    def section(self, scene, *arguments):
        """Runs one scene; an exception in it is one failure and ends only that scene."""
        try:
            scene(self, *arguments)
        except Exception:  # noqa: BLE001 - whatever a client throws, the other scenes are run
            self.failed += 1
            print(f"FAILED {scene.__name__}", file=sys.stderr)
            traceback.print_exc()

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


@contextlib.contextmanager
def server(token_lifetime="24h"):
    """The URL of a server: the one that was named, or a new process of the binary that was named."""
    target = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
    if target.startswith("http"):
        yield target.rstrip("/")
        return
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        port, admin = free_port(), free_port()
        config = pathlib.Path(directory, "config.yaml")
        store = stack.enter_context(store_in(pathlib.Path(directory, "data")))
        config.write_text(CONFIG % {"port": port, "admin": admin, "store": store, "token_lifetime": token_lifetime})
        process = subprocess.Popen([target, "serve", "-c", str(config)])
        try:
            wait_for(port, process)
            wait_until_ready(admin, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            code = process.wait(timeout=30)
        if code != 0:
            sys.exit(f"the server ended with {code} on SIGTERM")


@contextlib.contextmanager
def store_in(directory):
    """The line of the configuration that says where the messages are."""
    if os.environ.get("DMS_STORE") == "postgres":
        with postgres.running() as url:
            yield f'postgres: {{url: "{url}"}}'
    else:
        yield f"data_dir: {directory}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the server ended at once with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the server did not listen within {seconds} s")


def wait_until_ready(admin, process, seconds=30):
    """A server on PostgreSQL listens before it has the messages."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the server ended at once with {process.returncode}")
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5):
            return
        time.sleep(0.05)
    sys.exit(f"the server was not ready within {seconds} s")
