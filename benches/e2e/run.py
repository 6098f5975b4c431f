#!/usr/bin/env python3
"""pgsluice and PgBouncer side by side on one machine, in one run: throughput, CPU, latency, memory, system calls.

Both stand in front of one private PostgreSQL with equal settings (transaction mode, SCRAM, one thread). Rounds
alternate between them, medians are printed, and what counts is the ratio: absolute figures are those of the machine
and of what else it does. Standard library only; pgbench comes with PostgreSQL.

    run.py [--quick] [--only throughput,memory,syscalls] [--clients 1,8] [--rounds 5] [--seconds 5]
"""

import argparse
import glob
import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))

from private import NOBODY, Servers, free_port, wait_for  # noqa: E402

PASSWORD = "secret"
SCRIPTS = {
    # name: pgbench's protocol, script, other flags
    "simple": ("simple", "select.sql", []),
    "extended": ("extended", "select.sql", []),
    "prepared": ("prepared", "select.sql", []),
    "django": ("simple", "django.sql", []),
    "reconnect": ("simple", "select.sql", ["-C"]),
    "reconnect-tls": ("simple", "select.sql", ["-C"]),
}


def certificate(servers):
    """A certificate and its key that both poolers show: ECDSA P-256."""
    files = servers.dir / "pooler.pem", servers.dir / "pooler.key"
    if not files[0].exists():
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-subj", "/CN=localhost", "-days", "2", "-keyout", files[1], "-out", files[0]],
                       check=True, stderr=subprocess.DEVNULL)
        for file in files:
            file.chmod(0o644)
    return files


def say(text=""):
    print(text, flush=True)


# === The poolers ===

class Pooler:
    """A pooler process and what the kernel knows of it."""

    def __init__(self, name, process, port, http=None):
        self.name, self.process, self.port, self.http = name, process, port, http

    def cpu(self):
        """Seconds of CPU so far, of all threads, in nanosecond steps (utime and stime have ticks of 10 ms)."""
        total = 0
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            try:
                total += int(pathlib.Path(path).read_text().split()[0])
            except OSError:
                continue  # a thread that ended meanwhile
        return total / 1e9

    def memory(self):
        """Kilobytes: resident, proportional."""
        values = {}
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            words = line.split()
            if words[0] in ("Rss:", "Pss:"):
                values[words[0]] = int(words[1])
        return values["Rss:"], values["Pss:"]


def start_pgsluice(servers, binary, postgres, pool_size, insight=True, name="pgsluice"):
    port, http_port = free_port(), free_port()
    cert, key = certificate(servers)
    process = servers.spawn(name, [binary, "run"], port=port, env={
        "DATABASE_URL": f"postgres://app:{PASSWORD}@127.0.0.1:{postgres.port}/app",
        "PGSLUICE_LISTEN": f"127.0.0.1:{port}", "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PGSLUICE_POOL_MODE": "transaction", "PGSLUICE_POOL_SIZE": str(pool_size),
        "PGSLUICE_MAX_CLIENT_CONN": "12000", "PGSLUICE_INSIGHT_ENABLED": str(insight).lower(),
        "PGSLUICE_LOG_LEVEL": "warn", "PGSLUICE_QUERY_WAIT_TIMEOUT": "60s",
        "PGSLUICE_CLIENT_TLS_CERT_FILE": str(cert), "PGSLUICE_CLIENT_TLS_KEY_FILE": str(key),
    })
    return Pooler(name, process, port, http_port)


def start_pgbouncer(servers, binary, postgres, pool_size):
    port = free_port()
    home = servers.dir / "pgbouncer"
    home.mkdir(exist_ok=True)
    cert, key = certificate(servers)
    (home / "users.txt").write_text(f'"app" "{PASSWORD}"\n')
    (home / "pgbouncer.ini").write_text("\n".join([
        "[databases]", f"app = host=127.0.0.1 port={postgres.port} dbname=app",
        "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =", "pool_mode = transaction",
        "auth_type = scram-sha-256", f"auth_file = {home}/users.txt", f"default_pool_size = {pool_size}",
        "max_client_conn = 12000", "max_prepared_statements = 200", "server_round_robin = 0", "query_wait_timeout = 60",
        "client_tls_sslmode = allow", f"client_tls_cert_file = {cert}", f"client_tls_key_file = {key}",
        # As quiet as pgsluice at level warn.
        "log_connections = 0", "log_disconnections = 0", "log_stats = 0",
        "ignore_startup_parameters = extra_float_digits", ""]))
    user = None
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        user = NOBODY
        for path in (home, *home.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    process = servers.spawn("pgbouncer", [binary, "-q", home / "pgbouncer.ini"], user=user, port=port)
    return Pooler("pgbouncer", process, port)


# === pgbench ===

def pgbench(postgres, port, kind, clients, seconds, log_dir=None):
    """One run: transactions per second, and the latencies in milliseconds of a sample when `log_dir` is given."""
    protocol, script, flags = SCRIPTS[kind]
    command = [postgres.bin / "pgbench", "-n", "-h", "127.0.0.1", "-p", port, "-U", "app", "-M", protocol, "-f", HERE / script,
               "-c", clients, "-j", min(clients, 2), "-T", seconds, *flags, "app"]
    if log_dir:
        # Every transaction of short runs, a tenth of others: the log itself must not be the load.
        command[1:1] = ["-l", f"--log-prefix={log_dir}/latency", "--sampling-rate=0.2"]
    done = subprocess.run([str(word) for word in command], cwd="/",
                          env={**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "require" if kind.endswith("-tls") else "disable"},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tps = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps = ")]
    count = [line.rsplit(None, 1)[1].split("/")[0] for line in done.stdout.splitlines()
             if line.startswith("number of transactions actually processed")]
    if done.returncode or not tps:
        raise SystemExit(f"pgbench failed on port {port} ({kind}, {clients} clients): status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    latencies = []
    if log_dir:
        for path in glob.glob(f"{log_dir}/latency.*"):
            with open(path) as log:
                latencies += [int(line.split()[2]) / 1000 for line in log]
            os.unlink(path)
    return float(tps[0]), int(count[0]), sorted(latencies)


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def throughput(postgres, poolers, kinds, client_counts, rounds, seconds, log_dir):
    say()
    say(f"Throughput: medians of {rounds} rounds of {seconds} s, alternating. CPU is the pooler's own, per transaction.")
    say(f"{'script':<10} {'clients':>7}   {'pooler':<12} {'tps':>8} {'cpu us/tx':>10} {'p50 ms':>8} {'p99 ms':>8}   ratio: tps, cpu, p99")
    results = []
    for kind in kinds:
        for clients in client_counts:
            runs = {pooler.name: [] for pooler in poolers}
            for pooler in poolers:  # warm: servers connected, plans and caches filled
                # Logins alone (SCRAM, in pgbench) take longer than a second when there are many.
                pgbench(postgres, pooler.port, kind, clients, 1 + clients // 50)
            for number in range(rounds):
                for pooler in poolers if number % 2 == 0 else reversed(poolers):
                    before = pooler.cpu()
                    tps, count, latencies = pgbench(postgres, pooler.port, kind, clients, seconds, log_dir)
                    cpu = (pooler.cpu() - before) / max(count, 1) * 1e6
                    runs[pooler.name].append((tps, cpu, percentile(latencies, 0.5), percentile(latencies, 0.99)))
            medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in runs.items()}
            base = medians.get("pgbouncer")
            for name, (tps, cpu, p50, p99) in medians.items():
                ratio = ""
                if base and name != "pgbouncer":
                    ratio = f"{tps / base[0]:.2f}  {cpu / base[1]:.2f}  {p99 / base[3]:.2f}"
                say(f"{kind:<10} {clients:>7}   {name:<12} {tps:>8.0f} {cpu:>10.1f} {p50:>8.2f} {p99:>8.2f}   {ratio}")
                results.append({"script": kind, "clients": clients, "pooler": name, "tps": tps, "cpu_us": cpu, "p50_ms": p50, "p99_ms": p99})
    return results


# === Memory ===

def login(port):
    """A client that logs in and stays: enough SCRAM for the purpose, by the standard library."""
    import base64
    import hashlib
    import hmac

    def frame(tag, body):
        return tag + struct.pack("!i", len(body) + 4) + body

    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    body = struct.pack("!i", 196608) + b"user\0app\0database\0app\0\0"
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    stream = client.makefile("rb", buffering=4096)
    first = "n=,r=benchmark"
    while True:
        tag, length = struct.unpack("!ci", stream.read(5))
        body = stream.read(length - 4)
        if tag == b"E":
            raise SystemExit(f"login refused: {body!r}")
        if tag == b"Z":
            stream.close()
            return client
        if tag != b"R":
            continue
        method = struct.unpack("!i", body[:4])[0]
        if method == 10:
            initial = b"n,," + first.encode()
            client.sendall(frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial))
        elif method == 11:
            challenge = body[4:].decode()
            part = dict(item.split("=", 1) for item in challenge.split(","))
            salted = salted_password(part["s"], int(part["i"]))
            key = hmac.digest(salted, b"Client Key", "sha256")
            last = f"c=biws,r={part['r']}"
            signature = hmac.digest(hashlib.sha256(key).digest(), f"{first},{challenge},{last}".encode(), "sha256")
            proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
            client.sendall(frame(b"p", f"{last},p={proof}".encode()))


_salted = {}


def salted_password(salt, rounds):
    """PBKDF2 once for each salt: a pooler may use one salt for a user, PgBouncer makes one a login."""
    import base64
    import hashlib
    if (salt, rounds) not in _salted:
        _salted[salt, rounds] = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(salt), rounds)
    return _salted[salt, rounds]


def query(client, sql):
    """A simple query to its end."""
    body = sql.encode() + b"\0"
    client.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        part = client.recv(65536)
        if not part:
            raise SystemExit("the pooler closed the connection")
        data += part


def memory(poolers, counts):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    say()
    say("Memory for each idle client that has run one query (KiB; growth of Rss and Pss over that of 10 clients):")
    say(f"{'clients':>8}   {'pooler':<12} {'rss KiB/client':>15} {'pss KiB/client':>15} {'total MiB':>10}")
    results = []
    for count in counts:
        if count + 200 > limit:
            say(f"{count:>8}   skipped: ulimit -n is {limit}")
            continue
        for pooler in poolers:
            clients = [login(pooler.port) for _ in range(10)]
            for client in clients:
                query(client, "SELECT 1")
            before = pooler.memory()
            clients += [login(pooler.port) for _ in range(count)]
            for client in clients[10:]:
                query(client, "SELECT 1")
            time.sleep(3)  # what is lent to busy clients is given back
            after = pooler.memory()
            for client in clients:
                client.close()
            rss, pss = ((new - old) / count for new, old in zip(after, before))
            say(f"{count:>8}   {pooler.name:<12} {rss:>15.2f} {pss:>15.2f} {after[0] / 1024:>10.1f}")
            results.append({"clients": count, "pooler": pooler.name, "rss_kib": rss, "pss_kib": pss})
            time.sleep(1)
    return results


# === System calls ===

# What a pooler may use for the same purpose, counted together.
GROUPS = {
    "recv": ("recvfrom", "recvmsg", "read", "readv"),
    "send": ("sendto", "sendmsg", "write", "writev"),
    "wait": ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"),
    "ctl": ("epoll_ctl",),
    "futex": ("futex",),
}


def count_with_perf(pid, run):
    events = [f"syscalls:sys_enter_{name}" for names in GROUPS.values() for name in names]
    # perf mounts tracefs itself at its first use.
    subprocess.run(["perf", "stat", "-e", "syscalls:sys_enter_read", "--", "true"], capture_output=True)
    known = [event for event in events if os.path.exists(f"/sys/kernel/tracing/events/syscalls/{event.split(':')[1]}")
             or os.path.exists(f"/sys/kernel/debug/tracing/events/syscalls/{event.split(':')[1]}")]
    if not known:
        return None
    perf = subprocess.Popen(["perf", "stat", "-x", ";", "-e", ",".join(known), "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    transactions = run()
    perf.send_signal(2)
    counts = {}
    for line in perf.communicate()[1].splitlines():
        fields = line.split(";")
        if len(fields) > 2 and "sys_enter_" in fields[2] and fields[0].isdigit():
            counts[fields[2].split("sys_enter_")[1]] = int(fields[0])
    return (counts, transactions) if counts else None


def count_with_strace(pid, run, log):
    names = ",".join(name for names in GROUPS.values() for name in names)
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", str(log), "-e", f"trace={names}", "-p", str(pid)],
                              stderr=subprocess.PIPE, text=True)
    strace.stderr.readline()  # "Process ... attached"
    transactions = run()
    strace.send_signal(2)
    strace.wait(10)
    counts = {}
    for line in pathlib.Path(log).read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and words[-1] in names.split(",") and words[3].isdigit():
            counts[words[-1]] = int(words[3])
    return counts, transactions


def syscalls(servers, postgres, starters, seconds):
    say()
    tool = "perf" if shutil.which("perf") else "strace" if shutil.which("strace") else None
    if not tool:
        say("System calls: skipped, neither perf nor strace is installed")
        return []
    say("System calls per transaction (pgbench simple, SELECT by key). Targets for pgsluice: 6.0 at 1 client, 5.0 at 8 on 4, 4.4 at 32 on 20.")
    say(f"{'clients':>7} {'pool':>5}   {'pooler':<12} {'recv':>6} {'send':>6} {'wait':>6} {'ctl':>6} {'futex':>6} {'all':>7}   by")
    results = []
    for clients, pool in ((1, 4), (8, 4), (32, 20)):
        for name, start in starters:
            pooler = start(pool)
            pgbench(postgres, pooler.port, "simple", clients, 1)

            def run():
                return pgbench(postgres, pooler.port, "simple", clients, seconds)[1]
            counted = (count_with_perf(pooler.process.pid, run) if tool == "perf" else None)
            by = "perf"
            if counted is None and shutil.which("strace"):
                counted, by = count_with_strace(pooler.process.pid, run, servers.dir / "strace"), "strace (slows the process: fewer wake-ups)"
            pooler.process.terminate()
            pooler.process.wait(20)
            if counted is None:
                say("         skipped: perf has no syscall tracepoints here and strace is not installed")
                return results
            counts, transactions = counted
            row = {group: sum(counts.get(name, 0) for name in names) / transactions for group, names in GROUPS.items()}
            say(f"{clients:>7} {pool:>5}   {name:<12} " + " ".join(f"{row[group]:>6.2f}" for group in GROUPS) + f" {sum(row.values()):>7.2f}   {by}")
            results.append({"clients": clients, "pool": pool, "pooler": name, "all": sum(row.values()), **row})
    return results


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    return f"{os.cpu_count()} x {model}, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", type=pathlib.Path, default="target/release/pgsluice")
    arguments.add_argument("--quick", action="store_true", help="a few minutes: fewer scripts, clients, rounds")
    arguments.add_argument("--only", default="throughput,memory,syscalls")
    arguments.add_argument("--scripts", default=None, help=f"of {','.join(SCRIPTS)}")
    arguments.add_argument("--clients", default=None)
    arguments.add_argument("--rounds", type=int, default=None)
    arguments.add_argument("--seconds", type=int, default=None)
    arguments.add_argument("--idle", default=None, help="numbers of idle clients")
    arguments.add_argument("--no-insight", action="store_true", help="also pgsluice without insight: what insight costs")
    arguments.add_argument("--without-pgsluice", action="store_true", help="PgBouncer alone: a check of this script")
    arguments.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    options = arguments.parse_args()
    quick = options.quick
    scripts = (options.scripts or ("simple,prepared,django" if quick else ",".join(SCRIPTS))).split(",")
    clients = [int(n) for n in (options.clients or ("1,32" if quick else "1,8,32,200")).split(",")]
    idle = [int(n) for n in (options.idle or ("2000" if quick else "2000,10000")).split(",")]
    rounds, seconds = options.rounds or (3 if quick else 5), options.seconds or (2 if quick else 5)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if os.geteuid() == 0:
        hard = max(hard, 24000)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 1_000_000 else 1_000_000, hard))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))

    found = subprocess.run([str(HERE.parent.parent / "tools/pgbouncer.sh")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    bouncer = found.stdout.strip() if found.returncode == 0 else None
    with Servers() as servers:
        postgres = servers.postgres(max_connections=100)
        postgres.psql("SET ROLE app;\n" + (HERE / "schema.sql").read_text(), database="app")
        say(f"{machine()}; PostgreSQL {postgres.psql('SHOW server_version').split()[0]}")
        starters = []
        if bouncer:
            version = subprocess.run([bouncer, "--version"], stdout=subprocess.PIPE, text=True).stdout.split()[1]
            say(f"PgBouncer {version}; pool of 20, transaction mode, SCRAM")
            if tuple(int(part) for part in version.split(".")[:2]) < (1, 21) and "prepared" in scripts:
                say("Script prepared is skipped: this PgBouncer knows no prepared statements in transaction mode")
                scripts.remove("prepared")
            starters.append(("pgbouncer", lambda pool: start_pgbouncer(servers, bouncer, postgres, pool)))
        else:
            say("No PgBouncer: pgsluice alone, without ratios")
        if not options.without_pgsluice:
            binary = options.pgsluice.resolve()
            starters.append(("pgsluice", lambda pool: start_pgsluice(servers, binary, postgres, pool)))
            if options.no_insight:
                starters.append(("no insight", lambda pool: start_pgsluice(servers, binary, postgres, pool, insight=False, name="no insight")))
        only = options.only.split(",")
        results = {}
        if "throughput" in only or "memory" in only:
            poolers = [start(20) for _, start in starters]
            if "throughput" in only:
                results["throughput"] = throughput(postgres, poolers, scripts, clients, rounds, seconds, servers.dir)
            if "memory" in only:
                results["memory"] = memory(poolers, idle)
            for pooler in poolers:
                pooler.process.terminate()
                wait_for(f"{pooler.name} to end", lambda: pooler.process.poll() is not None)
        if "syscalls" in only:
            results["syscalls"] = syscalls(servers, postgres, starters, seconds)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine(), **results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
