"""The process: signals, the service manager, the admin endpoint, what is measured."""

import os
import pathlib
import signal
import socket
import subprocess
import threading

from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from harness import Case, call, configuration, until


class Ending(Case):
    def test_sigterm_in_the_middle_loses_nothing_and_repeats_nothing(self):
        # Kept, so that the second process goes on where the first one ended.
        data = self.kept()
        answering = threading.Event()
        app = self.app(lambda request: answering.wait(0.02) or 200)
        process = self.deliver(app, server=data, worker="    concurrency: 4")
        process.send(*range(400))
        app.wait(100)
        self.assertEqual(process.end(), 0)
        handled = len(app.requests)
        self.assertLess(handled, 400, "it was ended in the middle")
        process.line(f" {handled} done, 0 failed, {handled} acknowledged")
        process = self.deliver(app, server=data)
        process.until(consumed_messages=400, available_messages=0)
        self.assertEqual(process.end(), 0)
        self.assertEqual(sorted(app.bodies()), list(range(400)))

    def test_25_stops_under_load_cost_nothing(self):
        # One allowed failure: a message that is leased to a process that has gone is a dead letter nobody has seen.
        app = self.app()
        server = self.serve("{name: orders, max_consume_count: 1, groups: [billing]}")
        done = threading.Event()
        sent = []

        def load():
            while not done.wait(0.01):
                server.send(len(sent))
                sent.append(len(sent))

        sender = threading.Thread(target=load)
        sender.start()
        try:
            for _ in range(25):
                before = len(app.requests)
                process = self.consume(app, server)
                app.wait(before + 5)
                self.assertEqual(process.end(), 0, process.lines)
        finally:
            done.set()
            sender.join()
        process = self.consume(app, server)
        process.line("running")
        server.until(consumed_messages=len(sent), available_messages=0)
        self.assertEqual(process.end(), 0)
        self.assertEqual(server.group()["available_deadletters"], 0)
        self.assertEqual(sorted(app.bodies()), sent)

    def stuck(self):
        never = threading.Event()
        self.addCleanup(never.set)
        app = self.app(lambda request: never.wait(60) and 200)
        process = self.deliver(app)
        process.send("x")
        app.wait(1)
        return process

    def test_a_second_signal_ends_it_at_once(self):
        for number, code in [(signal.SIGTERM, 143), (signal.SIGINT, 130)]:
            with self.subTest(number=number):
                process = self.stuck()
                process.kill(signal.SIGTERM)
                process.line("a second signal stops at once")
                self.assertEqual(process.end(number), code)

    def test_a_grace_period_that_is_too_short_is_75(self):
        never = threading.Event()
        self.addCleanup(never.set)
        app = self.app(lambda request: never.wait(60) and 200)
        process = self.deliver(app, more="shutdown: {grace: 300ms}")
        process.send("x")
        app.wait(1)
        self.assertEqual(process.end(), 75)
        process.line("not everything was finished within 300ms")

    def test_sighup_reads_the_configuration_again(self):
        app = self.app()
        process = self.deliver(app)
        text = process.file.read_text()
        process.file.write_text(text.replace("poll_wait: 1s", "poll_wait: 1s\n    concurrency: 5") + "log: {filter: debug}\n")
        process.send("x")
        app.wait(1)
        process.kill(signal.SIGHUP)
        process.line("the configuration was read again")
        until(lambda: process.status()["concurrency"] == 5, "the new concurrency")
        process.file.write_text(text.replace("poll_wait: 1s", "poll_wait: 1s\n    concurrency: none of it"))
        process.kill(signal.SIGHUP)
        self.assertIn("concurrency", process.line("was rejected"))
        limited = "poll_wait: 1s\n    concurrency: 5\n    rate_limit: 100/h\n    max_messages: 1\n    max_in_flight_bytes: 600000"
        process.file.write_text(text.replace("poll_wait: 1s", limited))
        process.kill(signal.SIGHUP)
        process.line("worker limits changed.*orders/billing|orders/billing.*worker limits changed")
        process.file.write_text(text.replace("poll_wait: 1s", "poll_wait: 2s") + "limits: {in_flight: 9}\nlog: {format: text}\n")
        process.kill(signal.SIGHUP)
        needed = process.line("need a restart")
        self.assertTrue("log.format" in needed and "limits" not in needed, needed)
        process.send("y")
        app.wait(2)
        self.assertEqual(process.end(), 0)

    def test_the_service_manager_is_told(self):
        path = f"{self.directory}/notify.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(30)
            environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
            process = self.run_worker("{log: {}}", environment=environment)
            told = {manager.recv(100).decode() for _ in range(4)}
            self.assertEqual(told, {"READY=1", "WATCHDOG=1"})
            process.kill(signal.SIGTERM)
            until(lambda: manager.recv(100) == b"STOPPING=1", "it says that it stops")
            self.assertEqual(process.end(None), 0)

    def test_as_process_1(self):
        prefix = ["unshare", "--pid", "--fork", "--kill-child"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            self.skipTest("this machine lets nobody have a process 1 of their own")
        import harness
        app = self.app()
        file = pathlib.Path(self.directory, "config.yaml")
        file.write_text(configuration(f"{{http: {{url: '{app.url()}'}}}}"))
        inner = subprocess.Popen([*prefix, harness.BINARY, "run", "-c", str(file)], stderr=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any("running orders/billing" in line for line in inner.stderr), "it runs")
            children = pathlib.Path(f"/proc/{inner.pid}/task/{inner.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            self.assertEqual(inner.wait(timeout=30), 0, "process 1 has no default action for a signal")
        finally:
            inner.kill()
            inner.wait()
            inner.stderr.close()


class Admin(Case):
    def test_probes_status_and_control(self):
        app = self.app()
        process = self.deliver(app)
        process.send(*range(10))
        process.until(consumed_messages=10)
        for path in ["/livez", "/readyz", "/startupz", "/metrics", "/status", "/scale"]:
            self.assertEqual(process.admin("GET", path).status, 200, path)
        status = process.status()
        self.assertEqual((status["name"], status["queue"], status["group"]), ("orders/billing", "orders", "billing"))
        self.assertEqual((status["state"], status["ready"], status["done"], status["in_flight"]), ("running", True, 10, 0))
        self.assertGreater(status["handled_per_second"], 0)
        self.assertGreater(status["p99_ms"], 0)
        self.assertLess(status["last_poll_seconds_ago"], 30)

        self.assertEqual(process.admin("POST", "/pause?worker=orders%2Fbilling").status, 200)
        self.assertEqual(process.status()["state"], "paused")
        process.send(*range(100))
        scale = process.admin("GET", "/scale").json
        self.assertEqual(scale["total"], scale["backlog"] + scale["in_flight"])
        self.assertGreater(scale["total"], 0)
        self.assertEqual(process.admin("POST", "/resume").status, 200)
        process.until(consumed_messages=110)
        self.assertEqual(process.admin("POST", "/concurrency?messages=7").status, 200)
        self.assertEqual(process.status()["concurrency"], 7)
        for path in ["/pause?worker=nobody", "/concurrency?messages=0", "/concurrency", "/log", "/log?filter=,,="]:
            self.assertEqual(process.admin("POST", path).status, 400, path)
        self.assertEqual(process.admin("POST", "/log?filter=info%2Cdms_worker%3Ddebug").status, 200)
        process.send("x")
        process.line("handled")
        answer = process.admin("POST", "/drain")
        self.assertEqual((answer.status, answer.json), (200, {"drained": True}))
        self.assertEqual(process.admin("GET", "/livez").status, 200)
        self.assertEqual(process.admin("GET", "/readyz").status, 503)
        self.assertEqual(process.end(), 0)

    def test_a_token_is_needed_where_there_is_one_and_off_loopback_there_must_be(self):
        process = self.process(configuration("{log: {}}").replace("'127.0.0.1:0'}\n", "'0.0.0.0:0'}\n"))
        self.assertEqual(process.end(None), 78)
        process.line("admin.listen: `0.0.0.0:0` can be reached from outside and admin.token is not set")
        process.close()
        process = self.process(configuration("{log: {}}").replace("'127.0.0.1:0'}\n", "'127.0.0.1:0', token: t0ken}\n"))
        for path in ["/livez", "/metrics"]:
            self.assertEqual(process.admin("GET", path).status, 200, path)
        for method, path in [("GET", "/status"), ("GET", "/scale"), ("POST", "/pause"), ("POST", "/drain"), ("POST", "/log?filter=info")]:
            self.assertEqual(process.admin(method, path).status, 401, path)
            self.assertEqual(process.admin(method, path, "wrong").status, 401, path)
        self.assertEqual(process.admin("GET", "/status", "t0ken").status, 200)
        self.assertNotIn("t0ken", "\n".join(process.lines) + process.admin("GET", "/status", "t0ken").text)

    def test_a_slow_or_a_wild_caller_harms_nobody_else(self):
        process = self.run_worker("{log: {}}")
        host, port = process.address("admin").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(50)]
        wild = socket.create_connection((host, int(port)))
        wild.sendall(b"\x16\x03\x01\x00" + os.urandom(1000) + b"\r\n\r\n")
        self.assertEqual(process.admin("GET", "/livez").status, 200)
        for connection in [*idle, wild]:
            connection.close()
        self.assertEqual(process.end(), 0)


class Metrics(Case):
    def check(self, address):
        for accept in ["text/plain", "application/openmetrics-text"]:
            answer = call(address, "GET", "/metrics", headers={"Accept": accept})
            self.assertIn(accept, answer.headers["Content-Type"])
            if accept == "text/plain":
                lint = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, timeout=30)
                self.assertEqual((lint.returncode, lint.stderr.decode(), lint.stdout.decode()), (0, "", ""))
            self.parse(accept, answer.text)
        return answer.text

    def parse(self, accept, text):
        """Reads the text as Prometheus' own client does. A histogram needs an infinite bucket: without it its quantiles are NaN."""
        parser = openmetrics if "openmetrics" in accept else prometheus
        families = list(parser.text_string_to_metric_families(text))
        histograms = [family for family in families if family.type == "histogram"]
        self.assertTrue(histograms)
        for family in histograms:
            series = {}
            for sample in family.samples:
                labels = frozenset((name, value) for name, value in sample.labels.items() if name != "le")
                kind = sample.name.removeprefix(family.name)
                if kind == "_count" or sample.labels.get("le") == "+Inf":
                    series.setdefault(labels, {})[kind] = sample.value
            for labels, values in series.items():
                self.assertEqual(values.get("_bucket"), values["_count"], f"{family.name} {labels}")

    def test_promtool_finds_nothing_wrong_with_the_sidecars(self):
        app = self.app()
        process = self.deliver(app)
        process.send(*range(10))
        process.until(consumed_messages=10)
        self.assertIn('dms_worker_messages_received_total{worker="orders/billing",queue="orders",group="billing"} 10',
                      self.check(process.address("admin")))

    def test_promtool_finds_nothing_wrong_with_the_servers(self):
        # Kept, because commits take no time in memory.
        config = f"""
server:
{self.kept()}
  listen: 127.0.0.1:0
  admin: 127.0.0.1:0
  queues: [{{name: orders, max_consume_count: 3, groups: [billing]}}]
"""
        process = self.process(config, command="serve")
        process.send(*range(10))
        self.assertIn("dms_server_produced_messages_total 10", self.check(process.address("admin")))
