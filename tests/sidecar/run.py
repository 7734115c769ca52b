"""Runs every test of this folder against a binary: run.py path/to/dms-worker [MODULE ...]

With DMS_STORE=postgres the servers keep their messages in PostgreSQL instead of memory and data directories.
Needs the packages of requirements.txt, and promtool (Debian package prometheus). One module alone, or one test:
DMS_WORKER=path/to/dms-worker python -m unittest test_delivery.Outage (in this folder).
"""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "vendor"))
import postgres  # noqa: E402


def run(module):
    """How many tests of a module were run, and its output where one failed."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "unittest", module]
    ended = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)
    count = re.search(r"Ran (\d+) test", ended.stderr)
    return int(count.group(1)) if count else 0, ended.stderr if ended.returncode or not count else ""


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    os.environ["DMS_WORKER"] = str(pathlib.Path(sys.argv[1]).resolve())
    started = time.monotonic()
    modules = sys.argv[2:] or sorted(path.stem for path in FOLDER.glob("test_*.py"))
    with contextlib.ExitStack() as stack:
        if os.environ.get("DMS_STORE") == "postgres":
            os.environ["DMS_SIDECAR_POSTGRES"] = stack.enter_context(postgres.running())
        # They wait more than they work.
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(3))
        results = list(pool.map(run, modules))
    failures = [output for _, output in results if output]
    print("\n".join(failures), file=sys.stderr, end="")
    tests = sum(count for count, _ in results)
    print(f"{tests} tests in {len(modules)} modules, {len(failures)} modules failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
