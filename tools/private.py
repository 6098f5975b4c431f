"""Private servers for the demo, the benchmarks and Python tests: started on free ports, gone with the program.

Standard library only. Use it as a context:

    with Servers() as servers:
        postgres = servers.postgres(max_connections=300)
        servers.spawn("pgsluice", [...], env={...})

A watchdog shell holds the read end of a pipe; when the program ends in any way, kill -9 included, it ends what was
started and removes the directory.
"""

import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOOLS = pathlib.Path(__file__).resolve().parent
NOBODY = 65534
DEADLINE = 60


def wait_for(what, condition, seconds=DEADLINE):
    """Polls until the condition holds; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"gave up after {seconds} s waiting for {what}")


def free_port(preferred=None):
    """A free TCP port of 127.0.0.1, below the range of outgoing connections."""
    for port in ([preferred] if preferred else []) + [random.randrange(12000, 32000) for _ in range(200)]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no free TCP port")


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def postgres_bin(which=""):
    """The directory of PostgreSQL's binaries: found or fetched by tools/postgres.sh, which says what it does."""
    command = [str(TOOLS / "postgres.sh")] + ([which] if which else [])
    found = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    if found.returncode:
        raise SystemExit("no PostgreSQL: see above, or set PG_BIN")
    return pathlib.Path(found.stdout.strip())


def without_ours():
    """The environment less PGSLUICE_*: the tools' own variables are no settings, and pgsluice refuses unknown ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PGSLUICE_")}


class Servers:
    """Processes that end together."""

    def __init__(self, keep_logs=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pgsluice-"))
        self.dir.chmod(0o755)
        self.processes = []
        # INT: PostgreSQL's fast shutdown, and the polite end of the others.
        script = ('pids=; while read -r word; do [ "$word" = done ] && exit; pids="$pids $word"; done; '
                  f'kill -INT $pids; sleep 1; kill -KILL $pids; rm -rf {shlex.quote(str(self.dir))}')
        self.watchdog = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/", text=True)

    def __enter__(self):
        # As Ctrl-C: the way out of the `with`.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_):
        for name, process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.watchdog.stdin.write("done\n")
        self.watchdog.stdin.close()
        self.watchdog.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self, name):
        """The path of a process's output."""
        return self.dir / f"{name}.log"

    def spawn(self, name, command, env=None, user=None, cwd=None, port=None, extra=None):
        """Starts a process, its output in a log; waits until `port` listens."""
        options = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**without_ours(), **(env or {})}, cwd=cwd or self.dir, **options, **(extra or {}))
        self.processes.append((name, process))
        self.watchdog.stdin.write(f"{process.pid}\n")
        self.watchdog.stdin.flush()
        if port:
            def ready():
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended at its start:\n{self.tail(name)}")
                return listens(port)
            wait_for(f"{name} to listen on port {port}", ready)
        return process

    def tail(self, name, lines=20):
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def postgres(self, name="postgres", bin_dir=None, **settings):
        """Makes a cluster and starts it. Fast rather than durable."""
        return Postgres(self, name, bin_dir or postgres_bin(), settings)


class Postgres:
    """A private cluster: superuser `postgres` without password, `app`/`secret` by SCRAM, database `app`."""

    def __init__(self, servers, name, bin_dir, settings):
        self.bin = bin_dir
        self.dir = servers.dir / f"{name}-data"
        self.dir.mkdir()
        root = os.geteuid() == 0
        if root:
            os.chown(self.dir, NOBODY, NOBODY)
        self.user = NOBODY if root else None
        as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
        data = self.dir / "data"
        made = subprocess.run(
            [bin_dir / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            cwd=self.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **as_user)
        if made.returncode:
            raise SystemExit(f"initdb failed:\n{made.stdout}")
        (data / "pg_hba.conf").write_text(
            "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n"
            "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
        everything = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "128MB",
                      "max_connections": 200, "autovacuum": "off", **settings}
        with open(data / "postgresql.conf", "a") as conf:
            for key, value in everything.items():
                conf.write(f"{key} = '{value}'\n")
        self.port = free_port()
        self.process = servers.spawn(
            name, [bin_dir / "postgres", "-D", data, "-k", self.dir, "-h", "127.0.0.1", "-p", self.port],
            user=self.user, cwd=self.dir, env={"LC_ALL": "C"}, port=self.port)
        wait_for("PostgreSQL", lambda: self.psql("SELECT 1", check=False) == "1")
        self.psql("CREATE ROLE app LOGIN PASSWORD 'secret'")
        self.psql("CREATE DATABASE app OWNER app")

    def psql(self, sql, database="postgres", check=True, user="postgres"):
        """Runs SQL as the superuser by the Unix socket; unaligned rows."""
        command = [self.bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-p", str(self.port), "-U", user,
                   "-d", database, "-f", "-"]
        done = subprocess.run(command, input=sql, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode:
            raise SystemExit(f"psql: {done.stderr}")
        return done.stdout.strip()
