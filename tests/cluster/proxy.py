"""A TCP proxy that can stop passing bytes on: a partition of the network, without the rights that a firewall needs."""

import socket
import threading


class Proxy:
    """Passes connections to `target`, a port of this machine, on from a port of its own."""

    def __init__(self, target):
        self.target = target
        self.open = threading.Event()
        self.open.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start(self.accept)

    def cut(self):
        """From now on nothing passes. Connections stay open, as they do when packets are lost."""
        self.open.clear()

    def heal(self):
        """Everything passes again. What was sent meanwhile arrives now."""
        self.open.set()

    @staticmethod
    def start(work, *values):
        threading.Thread(target=work, args=values, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            self.start(self.connect, client)

    def connect(self, client):
        self.open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start(self.copy, client, server)
        self.start(self.copy, server, client)

    def copy(self, source, target):
        try:
            while data := source.recv(1 << 16):
                self.open.wait()
                target.sendall(data)
        except OSError:
            pass
        # The end of a connection is lost, too.
        self.open.wait()
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
