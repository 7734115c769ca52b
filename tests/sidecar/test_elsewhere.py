"""Nothing is asked of anybody whom the configuration does not name."""

import http.server
import signal
import threading
import urllib.request

from harness import Case, until


class Trap:
    """An address that the processes have no business with: it counts who comes."""

    def __init__(self, case):
        trap = self
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def setup(self):
                trap.seen.append(self.client_address)
                super().setup()

            def answer(self):
                self.send_response(204)
                self.end_headers()

            do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        case.addCleanup(self.server.server_close)
        case.addCleanup(self.server.shutdown)

    def proxies(self):
        names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        return {**dict.fromkeys(names, self.url), "NO_PROXY": "", "no_proxy": ""}


class Elsewhere(Case):
    def setUp(self):
        super().setUp()
        self.trap = Trap(self)

    def test_the_trap_would_notice(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(self.trap.url).close()
        self.assertEqual(len(self.trap.seen), 1)

    def test_an_application_cannot_send_the_sidecar_away(self):
        app = self.app(lambda request: (307, {"Location": self.trap.url}) if request.json == "away" else 200)
        process = self.deliver(app, failures=1, environment=self.trap.proxies())
        process.send("away", "here")
        process.until(produced_deadletters=1)
        self.assertIn("here", app.bodies())
        self.assertEqual(process.end(), 0)
        self.assertEqual(self.trap.seen, [])

    def test_a_health_url_cannot(self):
        app = self.app()
        app.health = (302, {"Location": self.trap.url})
        process = self.deliver(app, http=f", health_url: '{app.url('/health')}'", environment=self.trap.proxies())
        process.send("x")
        until(lambda: "cannot be reached" in process.admin("GET", "/readyz").text, "a redirect is no health")
        self.assertEqual(app.bodies(), [])
        process.end(signal.SIGTERM)
        self.assertEqual(self.trap.seen, [])

    def test_a_service_cannot(self):
        """A service, and an IAM, that answer every request with a redirect."""
        for iam in [False, True]:
            asked = []
            case = self

            class Redirecting(http.server.BaseHTTPRequestHandler):
                def answer(self):
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    asked.append(self.path)
                    self.send_response(307)
                    self.send_header("Location", case.trap.url)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

                do_GET = do_POST = answer

                def log_message(self, *_):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            auth = f", auth: {{iam: {{endpoint: '{url}', user: u, password: p, domain: d}}}}" if iam else ""
            config = f"dms: {{endpoint: '{url}', project_id: p{auth}}}\nworkers: [{{queue: q, group: g, handler: {{log: }}}}]\nadmin: {{listen: '127.0.0.1:0'}}\n"
            process = self.process(config, environment=self.trap.proxies())
            until(lambda: asked, "it is asked")
            process.kill(signal.SIGTERM)
            process.end(None)
            server.shutdown()
            server.server_close()
        self.assertEqual(self.trap.seen, [])
