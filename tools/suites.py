"""Runs external suites through pgsluice: suites.py BINARY DIRECTORY [SUITE...]; see suites.sh."""

import os
import pathlib
import re
import subprocess
import sys

from private import Servers, free_port

CONFIG = """
listen = ["127.0.0.1:{port}"]
http_listen = "127.0.0.1:{http_port}"
auth_type = "scram-sha-256"
admin_users = ["django"]
# Suites make roles and log in as them.
auth_user = "django"

[databases."*"]
host = "127.0.0.1"
port = {postgres}

[users.django]
password = "django"

[pool]
pool_mode = "{mode}"
pool_size = {size}
query_wait_timeout = "60s"
"""


def main(binary, directory, *names):
    directory = pathlib.Path(directory).resolve()
    # Those that measure something else than an endpoint print no count.
    suites = list(names) or sorted(path.stem[4:] for path in directory.glob("run_*.sh")
                                   if path.stem not in ("run_wire", "run_fingerprints"))
    totals = [0, 0, 0]
    with Servers() as servers:
        postgres = servers.postgres(
            max_connections=200, max_prepared_transactions=10, wal_level="logical", max_locks_per_transaction=256,
            shared_preload_libraries="pg_stat_statements", autovacuum="on")
        postgres.psql("CREATE ROLE django SUPERUSER LOGIN PASSWORD 'django'")
        postgres.psql("CREATE DATABASE django OWNER django")
        port, http_port = free_port(), free_port()
        config = servers.dir / "pgsluice.toml"
        mode = os.environ.get("POOL_MODE", "transaction")
        # A pool smaller than the clients, so that transactions of one client fall on several servers.
        size = os.environ.get("POOL_SIZE", "5" if mode == "transaction" else "60")
        config.write_text(CONFIG.format(port=port, http_port=http_port, postgres=postgres.port, mode=mode, size=size))
        servers.spawn("pgsluice", [pathlib.Path(binary).resolve(), "run", "--config", config], port=port)
        for suite in suites:
            print(f"== {suite}", flush=True)
            # Other clients keep the pool moving; alone, a suite gets the same server each time and proves little.
            env = {"SUITE_NEIGHBOURS": "3", "SUITE_TAG": "pgsluice", **os.environ}
            done = subprocess.run(["bash", directory / f"run_{suite}.sh", "127.0.0.1", str(port), "django", "django", "django"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=env)
            last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
            counts = re.match(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
            counts = [int(number) for number in counts.groups()] if counts else [0, 1, 0]
            totals = [total + count for total, count in zip(totals, counts)]
            print(f"   {last}", flush=True)
        (pathlib.Path("target") / f"suites-{mode}.log").write_bytes(servers.log("pgsluice").read_bytes())
    print("{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
