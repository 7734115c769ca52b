from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class App(BaseHTTPRequestHandler):
    def do_POST(self):
        order = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print("got", order, flush=True)
        self.send_response(204)
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", 8080), App).serve_forever()
