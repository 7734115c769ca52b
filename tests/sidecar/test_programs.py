"""Delivery to programs: one process per message, and one that stays."""

import json
import os
import pathlib
import signal
import sys
import textwrap

from harness import Case, until

EXITS = """
import json, pathlib, sys
message = json.load(sys.stdin)
with open("seen", "a") as seen:
    seen.write(json.dumps(message) + "\\n")
print("this is for nobody")
sys.exit(message["body"]["code"])
"""

STAYS = """
import json, pathlib, sys, time
with open("starts", "a") as starts:
    starts.write("start\\n")
print("hello from the program", file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    what = message["body"]["do"]
    if what == "crash":
        sys.exit(9)
    if what == "hang":
        time.sleep(3600)
    if what == "garbage":
        print("this is no JSON", flush=True)
        sys.stdout.buffer.write(b"\\xff\\xfe nor this\\n")
        print(json.dumps({"id": 10**9, "outcome": "done"}), flush=True)
        what = "done"
    print(json.dumps({"id": message["id"], "outcome": what, "error": "so it is"}), flush=True)
pathlib.Path("ended").write_text("in order")
"""


class Programs(Case):
    def program(self, text):
        path = pathlib.Path(self.directory, "handle.py")
        path.write_text(textwrap.dedent(text))
        return f"['{sys.executable}', '{path}']"

    def seen(self):
        path = pathlib.Path(self.directory, "seen")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def starts(self):
        return pathlib.Path(self.directory, "starts").read_text().count("start")


class PerMessage(Programs):
    def test_the_exit_code_is_the_answer(self):
        process = self.run_worker(f"{{command: {self.program(EXITS)}}}", failures=2,
                                  worker="    on_reject: discard\n    max_messages: 1")
        for code in [0, 65, 75, 1]:
            process.send({"code": code}, tags=["red"], attributes={"a": 1})
        process.until(available_messages=0, consumed_messages=2, produced_deadletters=2)
        codes = [message["body"]["code"] for message in self.seen()]
        # A program that ends before it has recorded its run counts as failed too; then its output is in the log.
        self.assertEqual(sorted(codes), [0, 1, 1, 65, 75, 75], "\n".join(process.lines[-40:]))
        first = self.seen()[0]
        self.assertEqual((first["queue"], first["group"], first["tags"]), ("orders", "billing", ["red"]))
        self.assertEqual((first["attributes"], first["attempt"]), ({"a": 1}, 1))
        self.assertTrue(0 < first["deadline_ms"] <= 30_000)
        self.assertEqual(process.end(), 0)

    def test_one_that_hangs_is_ended_with_all_it_has_started(self):
        handler = "{command: {run: [sh, -c, 'sleep 3600 & echo $! > child; wait'], timeout: 500ms}}"
        process = self.run_worker(handler, failures=1)
        process.send("x")
        process.until(produced_deadletters=1)
        child = int(pathlib.Path(self.directory, "child").read_text())
        until(lambda: not alive(child), "the program's own child ends")

    def test_one_gets_the_chance_to_end_by_itself(self):
        handler = "{command: {run: [sh, -c, 'trap \"echo told > told; exit 0\" TERM; sleep 3600 & wait'], timeout: 3s}}"
        process = self.run_worker(handler)
        process.send("x")
        process.until(consumed_messages=1)
        self.assertEqual(pathlib.Path(self.directory, "told").read_text(), "told\n")

    def test_ctrl_c_is_for_the_worker_and_lets_the_program_finish(self):
        handler = "{command: [sh, -c, 'echo > begun; while [ ! -e go ]; do sleep 0.02; done']}"
        process = self.run_worker(handler, start_new_session=True)
        process.send("x")
        until(pathlib.Path(self.directory, "begun").exists, "the program begins")
        os.killpg(process.popen.pid, signal.SIGINT)
        process.line("stopping")
        pathlib.Path(self.directory, "go").touch()
        self.assertEqual(process.end(None), 0)
        process.line("1 done, 0 failed, 1 acknowledged")

    def test_orphans_of_programs_are_taken_in(self):
        # As process 1 of a container; here as a subreaper, which adopts orphans too.
        handler = "{command: [sh, -c, '(sleep 0.2 & echo $! >> orphans) ; exit 0']}"
        process = self.run_worker(handler, preexec_fn=become_subreaper)
        process.send(*range(20))
        process.until(consumed_messages=20)
        orphans = [int(line) for line in pathlib.Path(self.directory, "orphans").read_text().split()]
        self.assertEqual(len(orphans), 20)
        until(lambda: not any(alive(orphan) for orphan in orphans), "no orphan is left, as a zombie either")
        self.assertEqual(process.end(), 0)


    def test_one_that_is_not_there_is_found_out_at_the_start(self):
        pathlib.Path(self.directory, "data").touch()
        for program, reason in [("./nothing", "`./nothing` is not there"), ("nothing-of-this-name", "is not in PATH"),
                                ("./data", "`./data` cannot be run")]:
            process = self.run_worker(f"{{command: ['{program}']}}")
            self.assertEqual(process.end(None), 78)
            self.assertIn(reason, process.line("worker orders/billing: handler.command:"))


class Staying(Programs):
    def stay(self, more="", **options):
        return self.run_worker(f"{{command: {{run: {self.program(STAYS)}, mode: json_lines{more}}}}}", **options)

    def test_one_process_answers_line_by_line(self):
        process = self.stay(failures=2,
                                  worker="    on_reject: discard\n    max_messages: 1")
        process.send(*[{"do": "done"}] * 30, {"do": "reject"}, {"do": "retry"})
        process.until(available_messages=0, consumed_messages=31, produced_deadletters=1)
        self.assertEqual(self.starts(), 1)
        process.line("hello from the program")
        self.assertIn("so it is", [error["error"] for error in process.status()["last_errors"]])
        self.assertEqual(process.end(), 0)
        self.assertEqual(pathlib.Path(self.directory, "ended").read_text(), "in order")

    def test_garbage_is_no_answer_and_no_harm(self):
        process = self.stay()
        process.send({"do": "garbage"}, {"do": "done"})
        process.until(consumed_messages=2)
        process.line("a line that is no answer")
        process.line("a message that is not open")
        self.assertEqual(self.starts(), 1)

    def test_one_that_crashes_is_started_again(self):
        process = self.stay(failures=1)
        process.send({"do": "crash"})
        process.until(produced_deadletters=1)
        process.send({"do": "done"})
        process.until(consumed_messages=1)
        self.assertEqual(self.starts(), 2)

    def test_the_message_that_ends_it_is_the_one_that_fails(self):
        for what in ["crash", "hang"]:
            with self.subTest(what):
                # Each message is a separate batch, and one failure makes a dead letter.
                process = self.stay(", timeout: 1s", failures=1, worker="    max_messages: 1\n    concurrency: 8")
                process.send(*[{"do": "done"}] * 10, {"do": what}, *[{"do": "done"}] * 20)
                process.until(consumed_messages=30, available_messages=0, produced_deadletters=1)
                counts = process.status()
                self.assertEqual((counts["failed"], counts["timed_out"]), (1, 0) if what == "crash" else (0, 1))
                self.assertEqual(process.end(), 0)

    def test_one_that_hangs_is_started_again(self):
        process = self.stay(", timeout: 1s", failures=1)
        process.send({"do": "hang"})
        process.until(produced_deadletters=1)
        process.line("it does not answer")
        process.send({"do": "done"})
        process.until(consumed_messages=1)
        self.assertEqual(self.starts(), 2)


def alive(pid):
    """Whether there is such a process, be it a zombie."""
    return pathlib.Path(f"/proc/{pid}").exists()


def become_subreaper():
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
