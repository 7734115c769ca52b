"""The command line in a terminal: what a person sees, and what a pipe gets."""

import contextlib
import fcntl
import http.server
import json
import os
import pathlib
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
import unicodedata
import unittest

import harness
from harness import PATIENCE, Case


# A one-character sequence, right to left, other ends of lines, colours, the clipboard, the start of the line.
TRICK = "a\x9b31m\u202e\u2028\x7f\u2066\x1b[31m\x1b]52;c;ZXZpbA==\x07\r\nERROR"


class Terminal:
    """A command in a pseudo-terminal of 80 columns."""

    def __init__(self, directory, *arguments, environment=None, columns=80, pipe=False, program=None):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "RUST_LOG", "CI")}
        environment = {**kept, "TERM": "xterm-256color", **(environment or {})}
        self.popen = subprocess.Popen([program or harness.BINARY, *arguments], stdin=slave, stderr=slave,
                                      stdout=subprocess.PIPE if pipe else slave, cwd=directory, env=environment, start_new_session=True)
        os.close(slave)
        self.master, self.shown = master, ""

    def until(self, text):
        """Reads until the text is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            if not self.read(deadline):
                raise AssertionError(f"{text!r} does not come:\n{self.shown}")

    def read(self, deadline):
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        with contextlib.suppress(OSError):
            chunk = os.read(self.master, 65536).decode(errors="replace")
            self.shown += chunk
            return bool(chunk)
        return False

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        """The exit code, when everything that was shown is read."""
        piped = []
        if self.popen.stdout:
            reader = threading.Thread(target=lambda: piped.append(self.popen.stdout.read()), daemon=True)
            reader.start()
        deadline = time.monotonic() + PATIENCE
        while self.read(deadline):
            pass
        code = self.popen.wait(timeout=PATIENCE)
        if self.popen.stdout:
            reader.join(PATIENCE)
            self.popen.stdout.close()
        os.close(self.master)
        self.piped = b"".join(piped).decode()
        return code


class InATerminal(Case):
    def serve(self):
        config = """
server:
  listen: 127.0.0.1:0
  queues: [{name: orders, max_consume_count: 1, groups: [billing]}]
"""
        self.server = self.process(config, command="serve")
        self.endpoint = "http://" + self.server.address("serving")

    def terminal(self, *arguments, **options):
        return Terminal(self.directory, *arguments, **options)

    def client(self, *arguments, **options):
        return self.terminal("--endpoint", self.endpoint, *arguments, **options)

    def test_help_fits_and_has_colours_unless_they_are_not_wanted(self):
        coloured = self.terminal("--help")
        self.assertEqual(coloured.end(), 0)
        self.assertIn("\x1b[", coloured.shown)
        plain = self.terminal("--help", environment={"NO_COLOR": "1"})
        self.assertEqual(plain.end(), 0)
        self.assertNotIn("\x1b[", plain.shown)
        self.assertLessEqual(max(len(line) for line in plain.shown.splitlines()), 80)

    def test_a_table_fits_the_terminal(self):
        self.serve()
        listed = self.client("--color", "never", "queue", "list", columns=60)
        self.assertEqual(listed.end(), 0, listed.shown)
        self.assertIn("orders", listed.shown)
        self.assertLessEqual(max(len(line) for line in listed.shown.splitlines()), 60)

    def test_what_messages_hold_is_shown_and_not_obeyed(self):
        self.serve()
        body = json.dumps(TRICK, ensure_ascii=False)
        sent = self.client("send", "orders", body, pipe=True)
        self.assertEqual(sent.end(), 0, sent.shown)
        printed = self.client("receive", "orders", "billing", "--no-ack", "--ack-wait", "15s", "--wait", "1s", pipe=True)
        self.assertEqual(printed.end(), 0, printed.shown)
        self.assertIn("\u009b31m\u202e\u2028", printed.piped, "a program gets each byte as it is")
        group = f"/queues/{self.server.queue()}/groups/{self.server.group()['id']}"
        self.server.api("POST", f"{group}/ack", {"message": [{"handler": json.loads(printed.piped)["handler"], "status": "fail"}]})
        for arguments in [["dlq", "dump", "orders", "billing"], ["dlq", "show", "orders", "billing"],
                          ["-o", "json", "dlq", "show", "orders", "billing"], ["receive", "orders", "billing", "--dead-letters"]]:
            shown = self.client("--color", "never", *arguments)
            self.assertEqual(shown.end(), 0, shown.shown)
            self.assertHarmless(shown.shown)
            self.assertIn("202e", shown.shown, "and it can be seen")
            if arguments[0] == "receive" or arguments[1] == "dump":
                [line] = [line for line in shown.shown.splitlines() if line.startswith("{")]
                self.assertEqual(json.loads(line)["body"], TRICK, "the same JSON")

    def test_what_a_service_says_is_shown_and_not_obeyed(self):
        class Hostile(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = json.dumps({"error_code": "DMS.10240015", "error_msg": TRICK, "request_id": TRICK}, ensure_ascii=False).encode()
                self.send_response(400)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        for arguments in [["queue", "list"], ["-v", "queue", "list"], ["-o", "json", "queue", "list"], ["queue", TRICK.replace("\0", "")]]:
            shown = self.terminal("--color", "never", "--endpoint", f"http://127.0.0.1:{server.server_port}", *arguments)
            self.assertNotEqual(shown.end(), 0)
            self.assertHarmless(shown.shown)
            self.assertIn("202e", shown.shown)

    def assertHarmless(self, shown):
        obeyed = [c for c in shown.replace("\r\n", "\n") if c != "\n" and (unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in "\u202e\u2066")]
        self.assertEqual(obeyed, [], shown)

    def test_sending_a_file_shows_its_progress_and_keeps_stdout_clean(self):
        self.serve()
        file = pathlib.Path(self.directory, "orders.jsonl")
        file.write_text("".join(json.dumps({"body": {"n": n}}) + "\n" for n in range(5000)))
        sent = self.client("send", "orders", "--file", str(file), pipe=True)
        self.assertEqual(sent.end(), 0, sent.shown)
        self.assertIn("\r", sent.shown, "a bar is drawn over itself")
        self.assertIn("5000", sent.shown)
        self.assertEqual(sent.piped, "", "data only")

    def test_wide_tables_fit_and_nothing_is_cut_off(self):
        self.serve()
        name = "a-long-name-" * 5
        made = self.client("queue", "create", name, "--group", "billing", pipe=True)
        self.assertEqual(made.end(), 0, made.shown)
        for arguments in [("queue", "list"), ("queue", "show", name)]:
            listed = self.client("--color", "never", *arguments)
            self.assertEqual(listed.end(), 0, listed.shown)
            self.assertLessEqual(max(len(line) for line in listed.shown.splitlines()), 80)
            self.assertIn(name, listed.shown)
        self.assertIn(made.piped.strip(), listed.shown, "the whole identifier")

    def test_dead_letters_and_measurements_show_their_progress(self):
        self.serve()
        self.server.send(*range(6))
        queue = self.server.queue()
        group = f"/queues/{queue}/groups/{self.server.group()['id']}"
        for _ in range(6):
            [message] = self.server.api("GET", f"{group}/messages?max_msgs=1")
            self.server.api("POST", f"{group}/ack", {"message": [{"handler": message["handler"], "status": "fail"}]})
        self.assertEqual(self.server.group()["produced_deadletters"], 6)
        measured = ["bench", "--against", self.endpoint, "--run", "produce", "--duration", "1s"]
        for arguments in [["dlq", "redrive", "orders", "billing", "--rate", "2/s"], measured]:
            shown = self.client(*arguments, pipe=True)
            self.assertEqual(shown.end(), 0, shown.shown)
            self.assertIn("\u2591" * 10, shown.shown, "a bar that is not full yet")
            self.assertIn("\u2588", shown.shown, "and grows")
            self.assertNotIn("\u2591", shown.piped, "data only")
            self.assertNotIn("\x1b", shown.piped)

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish_completes(self):
        for words, offered in [("dms-worker qu", ["queue", "quota"]), ("dms-worker queue cr", ["create"]),
                               ("dms-worker send -o j", ["json"]), ("dms-worker serve --data", ["--data-dir"])]:
            script = f"{harness.BINARY} completions fish | source; complete -C '{words}'"
            completed = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual((completed.returncode, completed.stderr), (0, ""))
            self.assertEqual([line.split("\t")[0] for line in completed.stdout.splitlines()], offered)

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_completes(self):
        functions = pathlib.Path(self.directory, "functions")
        functions.mkdir()
        script = subprocess.run([harness.BINARY, "completions", "zsh"], capture_output=True, check=True).stdout
        (functions / "_dms-worker").write_bytes(script)
        shell = Terminal(self.directory, "-f", environment={"TERM": "dumb", "PS1": "$ "}, program="zsh")
        shell.type(f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -D -u; print rea''dy\n")
        shell.until("ready")
        for words, completed in [("dms-worker queue cr", "queue create"), ("dms-worker send -o js", "-o json"),
                                 ("dms-worker serve --data", "--data-dir")]:
            shell.type(f"\x15{words}\t")
            shell.until(completed)
        shell.type("\x15exit\n")
        shell.end()

    @unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
    def test_the_manual_pages_are_well_formed(self):
        for words in [[], ["run"], ["queue"], ["queue", "create"], ["send"], ["dlq", "redrive"], ["bench"]]:
            page = subprocess.run([harness.BINARY, "man", *words], capture_output=True, check=True).stdout
            lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, timeout=PATIENCE)
            complaints = [line for line in lint.stdout.decode().splitlines() if "missing date" not in line]
            self.assertEqual(complaints, [], words)

    def test_what_destroys_is_asked_for(self):
        self.serve()
        for answer, code in [("n\n", 1), ("\n", 1), ("y\n", 0)]:
            asked = self.client("queue", "delete", "orders")
            asked.until("[y/N]")
            asked.type(answer)
            self.assertEqual(asked.end(), code, asked.shown)
        listed = self.client("queue", "list")
        self.assertEqual(listed.end(), 0)
        self.assertNotIn("orders", listed.shown)

    def test_following_ends_with_ctrl_c(self):
        self.serve()
        self.server.send({"n": 1})
        followed = self.client("receive", "orders", "billing", "--follow")
        followed.until('"n"')
        os.killpg(followed.popen.pid, signal.SIGINT)
        self.assertEqual(followed.end(), 0, followed.shown)

    def test_logs_are_text_in_a_terminal_and_json_elsewhere(self):
        app = self.app()
        process = self.deliver(app, environment={"RUST_LOG": "debug"})
        process.send("x")
        app.wait(1)
        process.line(r'^\{"timestamp":')
        self.assertEqual(process.end(), 0)
        shown = self.terminal("run", "-c", str(process.file))
        shown.until("running orders/billing")
        shown.popen.send_signal(signal.SIGTERM)
        shown.until("INFO")
        self.assertEqual(shown.end(), 0)
        self.assertNotIn('{"timestamp"', shown.shown)
