#!/usr/bin/env python3
"""The load whose profile guides the release build (tools/guided.sh): what applications send, not what the benchmark measures alone.

    train.py BINARY     an instrumented pgsluice; LLVM_PROFILE_FILE says where it writes its profile at its end

pgbench's own transactions and the benchmark's scripts in all three protocols, few clients and many, logins with and
without TLS, COPY both ways, long results, cursors, errors, and readers of the HTTP endpoints.
"""

import os
import pathlib
import subprocess
import sys
import urllib.request

from run import HERE, PASSWORD, Servers, pgbench, say, start_pgsluice

SECONDS = 2
LOADS = [("simple", 1), ("simple", 32), ("extended", 1), ("extended", 32), ("prepared", 8), ("prepared", 32), ("django", 8), ("django", 32),
         ("django", 100), ("reconnect", 8), ("reconnect-tls", 8)]
# What pgbench does not send.
STATEMENTS = """
SELECT n, repeat('x', 100), n * 2.5, now() FROM generate_series(1, 50000) n;
COPY shop_book TO STDOUT;
CREATE TABLE copied (LIKE shop_book);
\\copy (SELECT * FROM shop_book) TO 'rows'
\\copy copied FROM 'rows'
BEGIN; DECLARE c CURSOR FOR SELECT * FROM shop_book; FETCH 500 FROM c; FETCH 500 FROM c; CLOSE c; COMMIT;
BEGIN; SAVEPOINT a; SELECT 1/0; ROLLBACK TO a; INSERT INTO copied SELECT * FROM shop_book LIMIT 10; COMMIT;
SET TimeZone = 'Europe/Berlin'; SELECT now(); RESET ALL; SELECT 'no'::int;
DROP TABLE copied;
"""


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    with Servers() as servers:
        postgres = servers.postgres(max_connections=100)
        postgres.psql("SET ROLE app;\n" + (HERE / "schema.sql").read_text(), database="app")
        env = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable", "PGHOST": "127.0.0.1", "PGUSER": "app"}
        direct = [postgres.bin / "pgbench", "-i", "-q", "-p", str(postgres.port), "app"]
        subprocess.run(direct, env=env, cwd="/", check=True, stdin=subprocess.DEVNULL, capture_output=True)
        pooler = start_pgsluice(servers, binary, postgres, 20)
        for kind, clients in LOADS:
            say(f"  {kind}, {clients} clients")
            pgbench(postgres, pooler.port, kind, clients, SECONDS)
        # No more clients than servers: pgbench prepares with a call that blocks all clients of its thread, in a transaction.
        for protocol in ("simple", "extended", "prepared"):
            say(f"  transactions that write, {protocol}")
            command = [postgres.bin / "pgbench", "-n", "-M", protocol, "-b", "tpcb-like", "-c", "16", "-T", str(SECONDS), "-p", str(pooler.port), "app"]
            subprocess.run(command, env=env, cwd="/", check=True, stdin=subprocess.DEVNULL, capture_output=True)
        say("  COPY, long results, cursors, errors")
        for _ in range(3):
            subprocess.run([postgres.bin / "psql", "-Xq", "-p", str(pooler.port), "app"], env=env, cwd=servers.dir, check=True,
                           input=STATEMENTS.encode(), capture_output=True)
        for path in ("metrics", "api/v1/queries", "api/v1/findings", "api/v1/pools"):
            urllib.request.urlopen(f"http://127.0.0.1:{pooler.http}/{path}", timeout=10).read()
        pooler.process.terminate()
        if pooler.process.wait(30):
            raise SystemExit(f"pgsluice ended with {pooler.process.returncode}:\n{servers.tail('pgsluice')}")


main()
