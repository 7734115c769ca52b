"""What the load runs share: the program, a durable server of its own, and a consumer."""

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse


class Server:
    """`dms-worker serve` on a data directory and a free port of this machine."""

    def __init__(self, program, directory):
        self.program = program
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", os.path.join(directory, "data")]
        self.log = open(os.path.join(directory, "server.log"), "ab")
        self.process = subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE)
        line = self.process.stderr.readline().decode()
        if "serving on " not in line:
            sys.exit(f"the server did not start: {line}")
        self.url = line.split("serving on ")[1].split(" ")[0]
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        for line in self.process.stderr:
            self.log.write(line)

    def run(self, *args, check=True):
        """Runs a command against the server, and gives its standard output."""
        done = subprocess.run([self.program, "--endpoint", self.url, *args], capture_output=True, text=True)
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(args)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Child:
    """A command that can be killed, and whose largest memory is known: the kernel's own count (`VmHWM`)."""

    def __init__(self, server, directory, name, *args):
        self.stderr_path = os.path.join(directory, f"{name}.stderr")
        self.stdout_path = os.path.join(directory, f"{name}.stdout")
        with open(self.stderr_path, "wb") as stderr, open(self.stdout_path, "wb") as stdout:
            command = [server.program, "--endpoint", server.url, *args]
            self.process = subprocess.Popen(command, cwd=directory, stderr=stderr, stdout=stdout)
        self.peak_kib = 0

    def watch(self):
        """Notes the memory, and says whether it still runs."""
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                for line in status:
                    if line.startswith("VmHWM:"):
                        self.peak_kib = max(self.peak_kib, int(line.split()[1]))
        except FileNotFoundError:
            pass
        return self.process.poll() is None

    def kill_when(self, reached):
        """Kills it with SIGKILL as soon as `reached()` holds; false if it ended before."""
        while self.watch():
            if reached():
                self.process.kill()
                self.process.wait()
                return True
            time.sleep(0.02)
        return False

    def wait(self):
        while self.watch():
            time.sleep(0.05)
        return self.process.returncode

    def stderr(self):
        with open(self.stderr_path, errors="replace") as stderr:
            return stderr.read().splitlines()

    def stdout(self):
        with open(self.stdout_path, errors="replace") as stdout:
            return stdout.read()


class Consumer:
    """Consumes a stream of a group until nothing comes, with several threads."""

    def __init__(self, server, queue, group):
        self.address = urllib.parse.urlparse(server.url).netloc
        queues = json.loads(server.run("-o", "json", "queue", "show", queue))
        group_id = next(entry["id"] for entry in queues["groups"] if entry["name"] == group)
        self.base = f"/v2/local/queues/{queues['id']}/groups/{group_id}"

    def drain(self, see):
        """Calls `see(message)` for every message, one at a time, then acknowledges it."""
        lock = threading.Lock()

        def judge(messages):
            with lock:
                for message in messages:
                    see(message)
            return "success"

        self._each_batch("max_msgs=10&ack_wait=300", judge)

    def bury(self):
        """Fails every message once: with `max_consume_count` 1 they are dead letters then."""
        self._each_batch("max_msgs=1&ack_wait=15", lambda messages: "fail")

    def _each_batch(self, options, judge, threads=4):
        def work():
            connection = http.client.HTTPConnection(self.address)
            while True:
                connection.request("GET", f"{self.base}/messages?time_wait=1&{options}")
                batch = json.loads(connection.getresponse().read())
                if not batch:
                    return
                status = judge([entry["message"] for entry in batch])
                acks = [{"handler": entry["handler"], "status": status} for entry in batch]
                headers = {"Content-Type": "application/json"}
                connection.request("POST", f"{self.base}/ack", body=json.dumps({"message": acks}), headers=headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status >= 300:
                    sys.exit(f"an acknowledgement was answered {answer.status}: {text}")

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def main(parser, run):
    """Calls `run(args, directory)` with a directory that goes afterwards; exit code 0 if it gives true."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--program", default="target/release/dms-worker")
    parser.add_argument("--directory", help="where the files go; a temporary directory by default")
    args = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="dms-load-", dir=args.directory)
    try:
        ok = run(args, directory)
    finally:
        shutil.rmtree(directory)
    sys.exit(0 if ok else 1)


def verdict(checks):
    """Prints what held and what did not; whether all did."""
    for check, holds in checks.items():
        print(("ok      " if holds else "FAILED  ") + check)
    return all(checks.values())
