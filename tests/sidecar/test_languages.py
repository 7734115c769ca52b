"""The applications of the guide in other languages, each as a process behind a real sidecar (docs/languages).

Flask and FastAPI need requirements.txt, Express the packages below NODE_PATH or target/express, Go a toolchain, Java a JDK, and Spring Maven with
a repository that can be reached. An application whose tools are missing is skipped.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import unittest

from harness import Case, Process, call, until
from test_readme import free_ports

TOP = pathlib.Path(__file__).parents[2]
EXAMPLES = TOP / "examples/sidecar"
KEY = "a key of this test"
NODE_PATH = os.environ.get("NODE_PATH", str(TOP / "target/express/node_modules"))


class Languages(Case):
    def setUp(self):
        super().setUp()
        self.free = dict(zip([8080, 9400, 9402, 9403], free_ports(4)))

    def elsewhere(self, file):
        """The text of the file with ports that are free now in place of those that it names."""
        text = file.read_text()
        for port, free in self.free.items():
            text = re.sub(rf"(?<![\d.]){port}\b", str(free), text)
        return text

    def copy(self, *names):
        """Copies of these example files in the directory of the test; the last one."""
        for name in names:
            target = pathlib.Path(self.directory, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.elsewhere(EXAMPLES / name))
        return target

    def start(self, command, environment=None):
        environment = {**os.environ, "SIGNATURE_KEY": KEY, **(environment or {})}
        app = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.directory, env=environment)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(app.stdout.readline, "")), daemon=True)
        reader.start()

        def stop():
            app.kill()
            app.wait()
            reader.join()
            app.stdout.close()

        self.addCleanup(stop)
        return lines

    def judge(self, lines, configuration="signed.yaml", path="/orders"):
        """A genuine message is handled, an impossible one is rejected, a forged request is refused."""
        process = Process(self.directory, self.elsewhere(EXAMPLES / configuration),
                          environment={"SIGNATURE_KEY": KEY, "DMS_WORKER_SERVER__LISTEN": f"127.0.0.1:{self.free[9400]}",
                                       "DMS_WORKER_PUBLISHERS__0__LISTEN": f"127.0.0.1:{self.free[9403]}"})
        self.addCleanup(process.close)
        process.line("running orders/billing")
        publisher, app = (f"127.0.0.1:{self.free[port]}" for port in (9403, 8080))
        sent = call(publisher, "POST", "/", '[{"body": {"id": 1}}, {"body": {"number": 2}}]', {"Content-Type": "application/json"})
        self.assertEqual(sent.status, 200, sent.text)
        until(lambda: any(re.match(r"got 1 \S{10,}\n", line) for line in lines), "the message with its id")
        process.until(consumed_messages=1, produced_deadletters=1)
        forged = '[{"body": {"id": 3}, "message_id": "forged"}]' if path.endswith("batch") else '{"id": 3}'
        self.assertEqual(call(app, "POST", path, forged, {"Content-Type": "application/json"}).status, 401)
        self.assertEqual(len([line for line in lines if line.startswith("got")]), 1, lines)
        self.assertEqual(process.end(), 0)

    def judge_batches_too(self, lines):
        self.judge(lines)
        lines.clear()
        self.judge(lines, "batch.yaml", "/orders/batch")

    def test_flask(self):
        self.copy("signature.py")
        self.judge_batches_too(self.start([sys.executable, str(self.copy("flask_app.py"))]))

    def test_fastapi(self):
        self.copy("signature.py")
        self.judge_batches_too(self.start([sys.executable, str(self.copy("fastapi_app.py"))]))

    @unittest.skipUnless(shutil.which("node") and os.path.isdir(f"{NODE_PATH}/express"), "Express is not installed")
    def test_express(self):
        self.judge_batches_too(self.start(["node", str(self.copy("express_app.js"))], {"NODE_PATH": NODE_PATH}))

    @unittest.skipUnless(shutil.which("go"), "Go is not installed")
    def test_go(self):
        self.copy("go/go.mod", "go/main.go")
        folder = pathlib.Path(self.directory, "go")
        environment = {**os.environ, "GOCACHE": str(TOP / "target/go"), "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
        for command in (["go", "vet", "."], ["go", "build", "-o", "orders", "."]):
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        self.judge(self.start([str(folder / "orders")]))

    @unittest.skipUnless(shutil.which("javac"), "the JDK is not installed")
    def test_java(self):
        self.judge(self.start(["java", "-XX:TieredStopAtLevel=1", str(self.copy("java/Orders.java"))]))

    @unittest.skipUnless(shutil.which("javac"), "the JDK is not installed")
    def test_the_signature_of_the_spring_application_compiles(self):
        """Spring itself cannot be had everywhere. The check of the signature needs nothing of it, and is that of the plain application, which runs above."""
        source = self.copy("spring/src/main/java/com/example/orders/Signature.java")
        subprocess.run(["javac", "-Xlint:all", "-Werror", "-d", self.directory, str(source)], check=True, capture_output=True)
        plain = (EXAMPLES / "java/Orders.java").read_text()
        for method in ("static boolean isGenuine(", "private static Map<String, String> lower("):
            start = source.read_text().index("  " + method)
            body = source.read_text()[start:]
            self.assertIn(body[:body.index("\n  }\n")], plain)

    @unittest.skipUnless(shutil.which("mvn") and os.environ.get("DMS_TEST_SPRING"), "DMS_TEST_SPRING is not set, or there is no Maven")
    def test_spring(self):
        self.copy("spring/pom.xml", "spring/src/main/java/com/example/orders/Signature.java", "spring/src/main/java/com/example/orders/Orders.java")
        folder = pathlib.Path(self.directory, "spring")
        subprocess.run(["mvn", "-q", "-B", "package"], cwd=folder, check=True, capture_output=True)
        self.judge(self.start(["java", "-jar", str(folder / "target/orders.jar")]))


if __name__ == "__main__":
    unittest.main()
