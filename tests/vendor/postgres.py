"""A PostgreSQL server for one test: in a directory that goes with it, behind a socket in that directory."""

import contextlib
import glob
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import tempfile
import time


@contextlib.contextmanager
def running():
    """Its connection string."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    if not found:
        sys.exit("PostgreSQL is not installed: apt-get install postgresql")
    programs = pathlib.Path(found[-1])
    # PostgreSQL refuses to be run by root.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    with tempfile.TemporaryDirectory(prefix="dms-pg-") as folder:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, log = pathlib.Path(folder, "data"), pathlib.Path(folder, "log")
        initdb = [programs / "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres", "-D", data]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
        command = [programs / "postgres", "-D", data, "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        with open(log, "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, start_new_session=True, **identity)
        try:
            until = time.monotonic() + 60
            while subprocess.run([programs / "pg_isready", "-q", "-h", folder]).returncode:
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"PostgreSQL does not start: {log.read_text()}")
                time.sleep(0.05)
            yield f"host={folder} user=postgres dbname=postgres"
        finally:
            # At once, and not after the last client.
            process.send_signal(signal.SIGINT)
            process.wait(60)
