"""What an application gets, and what its answers do."""

import email.utils
import hashlib
import hmac
import json
import threading
import time

from harness import Case


class Delivery(Case):
    def test_a_message_is_one_post_with_its_properties_in_headers(self):
        app = self.app()
        process = self.deliver(app, ", headers: {X-From: dms}")
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        process.send({"id": 1, "名": "值"}, attributes={"n": 1, "名": "值", "traceparent": trace}, tags=["red", "big"])
        (request,) = app.wait(1)
        self.assertEqual(request.path, "/orders")
        self.assertEqual(request.json, {"id": 1, "名": "值"})
        wanted = {"Content-Type": "application/json", "Dms-Queue": "orders", "Dms-Group": "billing", "Dms-Attempt": "1",
                  "Dms-Tags": "red,big", "X-From": "dms", "traceparent": trace}
        self.assertEqual({name: request.headers[name] for name in wanted}, wanted)
        self.assertEqual(json.loads(request.headers["Dms-Attributes"]), {"n": 1, "名": "值", "traceparent": trace})
        self.assertTrue(0 < int(request.headers["Dms-Deadline-Ms"]) <= 20_000)
        process.until(consumed_messages=1)
        self.assertEqual(process.end(), 0)

    def test_every_answer_has_its_meaning(self):
        def answer(request):
            status = request.json["status"]
            return (status, {"Location": "/elsewhere"}) if 300 <= status < 400 else status
        app = self.app(answer)
        process = self.deliver(app, failures=2, worker="    on_reject: discard\n    max_messages: 1")
        once = [200, 201, 202, 204, 400, 401, 403, 404, 409, 410, 413, 415, 422, 451]
        twice = [408, 425, 429, 500, 501, 502, 503, 504, 301, 302, 307, 308]
        process.send(*[{"status": status} for status in once + twice])
        process.until(available_messages=0, consumed_messages=len(once), produced_deadletters=len(twice))
        app.wait(len(once) + 2 * len(twice))
        self.assertEqual(process.end(), 0)
        seen = [body["status"] for body in app.bodies()]
        self.assertEqual(sorted(seen), sorted(once + 2 * twice))
        self.assertEqual({request.path for request in app.requests}, {"/orders"}, "no redirect is followed")
        self.assertEqual(sorted({int(request.headers["Dms-Attempt"]) for request in app.requests}), [1, 2])

    def test_retry_after_pauses_fetching_in_seconds_and_as_a_date(self):
        for as_date in [False, True]:
            with self.subTest(as_date=as_date):
                app = self.app()
                asked = []

                def answer(request):
                    if asked:
                        return 200
                    asked.append(time.time())
                    # A date has whole seconds only.
                    date = email.utils.formatdate(time.time() + 3, usegmt=True)
                    return 503, {"Retry-After": date if as_date else "2"}

                app.answer = answer
                process = self.deliver(app, failures=1)
                process.send("first")
                app.wait(1)
                process.line("asks for a pause")
                # A poll that was out may still bring some of them: those are delivered.
                process.send(*range(20))
                first, *_, last = app.wait(22)
                self.assertGreater(last.at - first.at, 1.5)
                group = process.until(available_messages=0)
                self.assertEqual(group["produced_deadletters"], 0, "one failure would have been enough")
                self.assertEqual(process.end(), 0)

    def test_a_request_is_signed(self):
        app = self.app()
        process = self.deliver(app, ", signature_key: k3y")
        process.send({"n": 1})
        (request,) = app.wait(1)
        time_part, signature = request.headers["Dms-Signature"].split(",")
        stamp = time_part.removeprefix("t=")
        wanted = hmac.new(b"k3y", stamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
        self.assertEqual(signature, f"v1={wanted}")
        self.assertLess(abs(int(stamp) - time.time()), 60)
        # The second version, as docs/sidecar.md verifies it.
        stamp, signature = (part.split("=", 1)[1] for part in request.headers["Dms-Signature-V2"].split(","))
        lines = sorted((name.lower(), value) for name, value in request.headers.items())
        lines = [line for line in lines if line[0].startswith(("dms-", "ce-")) and not line[0].startswith("dms-signature")]
        self.assertIn(("dms-queue", request.headers["Dms-Queue"]), lines)
        text = stamp + "\n" + "".join(f"{name}:{value}\n" for name, value in lines) + "\n"
        wanted = hmac.new(b"k3y", text.encode() + request.body, hashlib.sha256).hexdigest()
        self.assertEqual(signature, wanted)

    def test_connections_are_kept(self):
        app = self.app()
        process = self.deliver(app, worker="    concurrency: 4")
        process.send(*range(100))
        app.wait(100)
        process.until(consumed_messages=100)
        self.assertLessEqual(app.connections, 10, "a few, for a hundred messages")

    def test_a_unix_socket_is_an_address(self):
        path = f"{self.directory}/app.sock"
        app = self.app(unix=path)
        process = self.run_worker(f"{{http: {{url: 'http://app/orders', unix_socket: '{path}'}}}}")
        process.send("x")
        (request,) = app.wait(1)
        self.assertEqual((request.path, request.json, request.headers["Host"]), ("/orders", "x", "app"))
        process.until(consumed_messages=1)

    def test_an_application_that_does_not_answer_is_given_up(self):
        never = threading.Event()
        self.addCleanup(never.set)
        app = self.app(lambda request: never.wait(60) and 200)
        process = self.deliver(app, ", timeout: 200ms", failures=1)
        process.send("x")
        process.until(produced_deadletters=1)
        status = process.status()
        self.assertIn("did not answer within 200ms", status["last_errors"][0]["error"])
        self.assertEqual((status["failed"], status["timed_out"]), (0, 1))

    def test_dead_letters_have_a_worker_of_their_own(self):
        app = self.app(lambda request: 422 if request.path == "/orders" else 200)
        second = f"""
  - name: repair
    queue: orders
    group: billing
    source: dead_letters
    poll_wait: 1s
    handler: {{http: {{url: '{app.url("/repair")}'}}}}
"""
        process = self.deliver(app, failures=2, worker="    max_messages: 1" + second)
        process.send(*range(5))
        app.wait(10)
        process.until(available_messages=0, produced_deadletters=5, available_deadletters=0)
        paths = sorted(request.path for request in app.requests)
        self.assertEqual(paths, ["/orders"] * 5 + ["/repair"] * 5, "a rejected message is not delivered again")
        self.assertEqual(sorted(request.json for request in app.requests if request.path == "/repair"), list(range(5)))


class Log(Case):
    def test_bodies_are_logged_only_where_that_is_asked_for(self):
        process = self.run_worker("{log: {}}")
        process.send("private")
        process.until(consumed_messages=1)
        self.assertNotIn("private", process.line('"message":"message"'))
        self.assertEqual(process.end(), 0)
        process = self.run_worker("{log: {body: true}}")
        process.send("public")
        self.assertIn("public", process.line('"message":"message"'))


class Outage(Case):
    """An application that is not there costs no message an attempt: one failure would make each a dead letter."""

    def test_down_and_up_again(self):
        app = self.app()
        process = self.deliver(app, failures=1)
        process.send("before")
        process.until(consumed_messages=1)
        app.stop()
        process.send(*range(100))
        process.line("the application is down")
        ready = process.admin("GET", "/readyz")
        self.assertEqual(ready.status, 503)
        self.assertRegex(ready.text, rf"^orders/billing: the application cannot be reached: {app.url()}.*: Connection refused.*, since 2.*Z\n$")
        waiting = process.group()["available_messages"]
        self.assertGreater(waiting, 0, "nothing is fetched any more")
        app.start()
        group = process.until(available_messages=0, consumed_messages=group_total(process))
        self.assertEqual(group["produced_deadletters"], 0)
        self.assertEqual(sorted(app.bodies()[1:]), list(range(100)), "each came once")
        self.assertEqual(process.admin("GET", "/readyz").status, 200)
        self.assertEqual(process.end(), 0)

    def test_down_from_the_start(self):
        app = self.app()
        app.stop()
        process = self.deliver(app, failures=1)
        process.send(*range(20))
        process.line("the application is down")
        self.assertEqual(process.admin("GET", "/readyz").status, 503)
        self.assertEqual(process.group()["available_messages"], 20)
        app.start()
        group = process.until(consumed_messages=20)
        self.assertEqual((group["produced_deadletters"], sorted(app.bodies())), (0, list(range(20))))

    def test_a_health_url_that_fails_stops_fetching_while_connections_are_taken(self):
        app = self.app()
        process = self.deliver(app, f", health_url: '{app.url('/health')}'", failures=1)
        process.send("well")
        process.until(consumed_messages=1)
        app.health = 503
        self.assertIn(f"GET {app.url('/health')} answered 503", process.line("the application is down"))
        process.send(*range(100))
        self.assertEqual(process.admin("GET", "/readyz").status, 503)
        self.assertGreater(process.group()["available_messages"], 0, "polls that were out bring some")
        self.assertEqual(len(app.requests), 1)
        app.health = 200
        group = process.until(available_messages=0, consumed_messages=101)
        self.assertEqual(group["produced_deadletters"], 0)

    def test_a_process_that_ends_meanwhile_keeps_what_waits(self):
        data = self.kept()
        app = self.app()
        process = self.deliver(app, failures=1, server=data)
        process.send("before")
        process.until(consumed_messages=1)
        app.stop()
        process.send(*range(30))
        process.line("the application is down")
        self.assertEqual(process.end(), 0)
        app.start()
        process = self.deliver(app, failures=1, server=data)
        app.wait(31)
        process.until(available_messages=0, produced_deadletters=0, consumed_messages=group_total(process))
        self.assertEqual(sorted(app.bodies()[1:]), list(range(30)))

    def test_a_startup_probe_does_not_wait_for_the_application(self):
        app = self.app()
        app.stop()
        process = self.deliver(app)
        process.line("the application is down")
        self.assertEqual(process.admin("GET", "/startupz").status, 200)
        self.assertEqual(process.admin("GET", "/readyz").status, 503)

    def test_a_single_message_tries_it_out(self):
        go_on, held = threading.Event(), []
        self.addCleanup(go_on.set)

        def answer(request):
            held.append(request)
            go_on.wait(60)
            return 200

        app = self.app(answer)
        process = self.deliver(app)
        process.send(*range(10))
        app.wait(1)
        self.assertEqual(process.status()["concurrency"], 1)
        self.assertEqual(len(held), 1)
        go_on.set()
        process.until(consumed_messages=10)
        self.assertEqual(process.status()["concurrency"], 32)

    def test_connections_that_break_take_it_down(self):
        app = self.app()
        process = self.deliver(app, failures=100)
        process.send("well")
        process.until(consumed_messages=1)
        app.answer = lambda request: "cut"
        process.send("breaks")
        process.line("the application is down")
        self.assertEqual(len(app.requests), 4, "three in a row")
        app.answer = lambda request: 200
        process.until(consumed_messages=2)


def group_total(process):
    """Every message that was sent counts as consumed in the end, copies that waited included."""
    return process.api("GET", f"/queues/{process.queue()}")["produced_messages"]

