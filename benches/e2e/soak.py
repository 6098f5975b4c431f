#!/usr/bin/env python3
"""Soak: idle and busy clients for minutes. Memory and descriptors must stay put after the start, and no query may fail.

SOAK_MINUTES (10), SOAK_IDLE (2000), SOAK_BUSY (100).
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "tools"), str(HERE)]

from private import Servers  # noqa: E402
from run import PASSWORD, login, query, say, start_pgsluice  # noqa: E402


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pgsluice", type=pathlib.Path, default="target/release/pgsluice")
    options = arguments.parse_args()
    minutes = float(os.environ.get("SOAK_MINUTES", 10))
    idle, busy = int(os.environ.get("SOAK_IDLE", 2000)), int(os.environ.get("SOAK_BUSY", 100))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Servers() as servers:
        postgres = servers.postgres(max_connections=100, autovacuum="on")
        postgres.psql("SET ROLE app;\n" + (HERE / "schema.sql").read_text(), database="app")
        pooler = start_pgsluice(servers, options.pgsluice.resolve(), postgres, 20)
        say(f"{idle} idle and {busy} busy clients for {minutes:g} minutes")
        clients = [login(pooler.port) for _ in range(idle)]
        for client in clients:
            query(client, "SELECT 1")
        # Half of the busy ones reconnect for each transaction, as CONN_MAX_AGE=0 does.
        loads = [subprocess.Popen(
            [str(word) for word in (postgres.bin / "pgbench", "-n", "-h", "127.0.0.1", "-p", pooler.port, "-U", "app", "-f", HERE / script,
                                    "-c", count, "-T", int(minutes * 60), *flags, "app")],
            env={**os.environ, "PGPASSWORD": PASSWORD}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for script, count, flags in (("django.sql", max(1, busy // 2), []), ("select.sql", max(1, busy // 2), ["-C"]))]
        samples = []
        while any(load.poll() is None for load in loads) and pooler.process.poll() is None:
            time.sleep(min(5, minutes * 6))
            samples.append((pooler.memory()[0] / 1024, len(os.listdir(f"/proc/{pooler.process.pid}/fd"))))
            say(f"  {samples[-1][0]:.1f} MiB, {samples[-1][1]} descriptors")
        wrong = []
        for load in loads:
            out, err = load.communicate()
            say(next((line for line in out.splitlines() if line.startswith("number of transactions")), err[-500:]))
            if load.returncode or "aborted" in err:
                wrong.append(f"a load failed: {err[-300:]}")
        for client in clients:
            query(client, "SELECT 1")  # idle for all that time, and still served
        # The first fifth is the filling of caches.
        early, late = samples[len(samples) // 5], samples[-1]
        if late[0] > early[0] * 1.1 + 4:
            wrong.append(f"memory grew from {early[0]:.1f} to {late[0]:.1f} MiB")
        for client in clients:
            client.close()
        deadline = time.monotonic() + 20
        while (left := len(os.listdir(f"/proc/{pooler.process.pid}/fd"))) > 64 and time.monotonic() < deadline:
            time.sleep(0.2)
        if left > 64:  # 20 servers, listeners, epoll and the like
            wrong.append(f"{left} descriptors after all clients have left")
        for sentence in wrong:
            say(f"WRONG: {sentence}")
        say(f"{2 - min(2, len(wrong))} passed, {len(wrong)} failed, 0 skipped")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
