#!/usr/bin/env python3
"""What a login costs a client of libpq (psycopg 3's own, or another), by iterations of SCRAM and by method: its CPU time, and the time it takes.

    logins.py [--pgsluice target/release/pgsluice] [--logins 300]

Needs psycopg: it is fetched into an environment of its own (tools/python_env.py).
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))

from private import Servers, free_port  # noqa: E402
from python_env import python_env  # noqa: E402

CLIENT = """
import sys, time
conninfo, count, library = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if library:
    import ctypes
    libpq = ctypes.CDLL(library)
    libpq.PQconnectdb.restype = ctypes.c_void_p
    libpq.PQstatus.argtypes = libpq.PQfinish.argtypes = [ctypes.c_void_p]
    def login():
        connection = libpq.PQconnectdb(conninfo.encode())
        assert libpq.PQstatus(connection) == 0
        libpq.PQfinish(connection)
else:
    import psycopg
    def login():
        psycopg.connect(conninfo).close()
for _ in range(20):
    login()
cpu, wall = time.process_time(), time.perf_counter()
for _ in range(count):
    login()
print((time.process_time() - cpu) / count * 1000, (time.perf_counter() - wall) / count * 1000)
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", type=pathlib.Path, default="target/release/pgsluice")
    arguments.add_argument("--logins", type=int, default=300)
    arguments.add_argument("--libpq", default="", help="this libpq.so.5 instead of the one that psycopg brings")
    options = arguments.parse_args()
    python = python_env("drivers", ["psycopg[binary]>=3.2", "asyncpg>=0.30", "pg8000>=1.31"])
    with Servers() as servers:
        postgres = servers.postgres()
        rules = servers.dir / "hba.conf"
        rules.write_text("local all app peer map=m\nhost all app 127.0.0.1/32 scram-sha-256\n")
        (servers.dir / "ident.conf").write_text(f"m {os.environ.get('USER', 'root')} app\n")
        print(f"{'login':<28} {'client CPU ms':>14} {'time ms':>9}")
        for name, settings, unix in [
            ("SCRAM, 4096 iterations", {"PGSLUICE_SCRAM_ITERATIONS": "4096"}, False),
            ("SCRAM, 1024 iterations", {"PGSLUICE_SCRAM_ITERATIONS": "1024"}, False),
            ("SCRAM, 256 iterations", {"PGSLUICE_SCRAM_ITERATIONS": "256"}, False),
            ("SCRAM, 1 iteration", {"PGSLUICE_SCRAM_ITERATIONS": "1"}, False),
            ("peer, Unix socket", {"PGSLUICE_AUTH_TYPE": "hba", "PGSLUICE_AUTH_HBA_FILE": str(rules),
                                   "PGSLUICE_AUTH_IDENT_FILE": str(servers.dir / "ident.conf")}, True),
            ("trust, TCP", {"PGSLUICE_AUTH_TYPE": "trust"}, False),
        ]:
            port = free_port()
            process = servers.spawn("pgsluice", [options.pgsluice.resolve(), "run"], port=port, env={
                "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
                "PGSLUICE_LISTEN": f"127.0.0.1:{port},{servers.dir}", "PGSLUICE_HTTP_LISTEN": "off",
                "PGSLUICE_LOG_LEVEL": "warn", **settings})
            host = servers.dir if unix else "127.0.0.1"
            conninfo = f"host={host} port={port} user=app password=secret dbname=app sslmode=disable gssencmode=disable"
            done = subprocess.run([str(python), "-c", CLIENT, conninfo, str(options.logins), options.libpq], stdout=subprocess.PIPE,
                                  text=True, check=True)
            cpu, wall = map(float, done.stdout.split())
            print(f"{name:<28} {cpu:>14.2f} {wall:>9.2f}", flush=True)
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
