"""The first steps of the README, as a newcomer takes them."""

import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import unittest

from harness import PATIENCE, Case, Process, call, until

TOP = pathlib.Path(__file__).parents[2]
PORTS = [8080, 9400, 9402, 9403]


class FirstSteps(Case):
    def setUp(self):
        super().setUp()
        self.free = dict(zip(PORTS, free_ports(len(PORTS))))

    def elsewhere(self, text):
        """The text with ports that are free now in place of those that it names."""
        for port, free in self.free.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def start_app(self, *command):
        file = pathlib.Path(command[-1])
        copy = pathlib.Path(self.directory, file.name)
        copy.write_text(self.elsewhere(file.read_text()))
        app = subprocess.Popen([*command[:-1], str(copy)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(app.stdout.readline, "")), daemon=True)
        reader.start()

        def stop():
            app.kill()
            app.wait()
            reader.join(PATIENCE)
            app.stdout.close()

        self.addCleanup(stop)
        return lines, stop

    def walk(self, *command):
        lines, stop = self.start_app(*command)
        config = self.elsewhere((TOP / "examples/sidecar/config.yaml").read_text())
        environment = {"DMS_WORKER_SERVER__LISTEN": f"127.0.0.1:{self.free[9400]}",
                       "DMS_WORKER_PUBLISHERS__0__LISTEN": f"127.0.0.1:{self.free[9403]}"}
        process = Process(self.directory, config, environment=environment)
        self.addCleanup(process.close)
        process.line("running orders/billing")
        publisher, admin = (f"127.0.0.1:{self.free[port]}" for port in (9403, 9402))
        form = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl -d sends it
        self.assertEqual(call(publisher, "POST", "/", '{"body": {"id": 1}}', form).status, 200)
        until(lambda: 'got {"id": 1}\n' in lines, "the first message")
        stop()
        self.assertEqual(call(publisher, "POST", "/", '{"body": {"id": 2}}', form).status, 200)
        until(lambda: call(admin, "GET", "/readyz").text.startswith("orders/billing: the application cannot be reached: http"), "it says why")
        lines, _ = self.start_app(*command)
        until(lambda: 'got {"id": 2}\n' in lines, "the second message, which waited")
        process.until(consumed_messages=2)
        self.assertEqual(process.group()["produced_deadletters"], 0)
        self.assertEqual(process.end(), 0)

    def test_with_python(self):
        self.walk(sys.executable, "-u", TOP / "examples/sidecar/app.py")

    @unittest.skipUnless(shutil.which("node"), "node is not installed")
    def test_with_node(self):
        self.walk("node", TOP / "examples/sidecar/app.js")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
