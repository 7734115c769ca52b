"""Runs every test of this folder against a binary: run.py path/to/dms-worker

Needs the packages of requirements.txt, and promtool (Debian package prometheus). One module alone, or one test:
DMS_WORKER=path/to/dms-worker python -m unittest test_delivery.Outage (in this folder).
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parent


def run(module):
    """How many tests of a module were run, and its output where one failed."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "unittest", module]
    ended = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)
    count = re.search(r"Ran (\d+) test", ended.stderr)
    return int(count.group(1)) if count else 0, ended.stderr if ended.returncode or not count else ""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.environ["DMS_WORKER"] = str(pathlib.Path(sys.argv[1]).resolve())
    started = time.monotonic()
    modules = sorted(path.stem for path in FOLDER.glob("test_*.py"))
    # They wait more than they work.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, modules))
    failures = [output for _, output in results if output]
    print("\n".join(failures), file=sys.stderr, end="")
    tests = sum(count for count, _ in results)
    print(f"{tests} tests in {len(modules)} modules, {len(failures)} modules failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
