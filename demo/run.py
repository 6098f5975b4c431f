#!/usr/bin/env python3
"""The demo: a Django shop behind pgsluice, and what pgsluice finds in it.

Starts a private PostgreSQL, pgsluice in transaction mode and Django under gunicorn, asks for every view several
times, and prints for each what was found, what it costs and what its mended twin costs:

1. without tags: Django as it is, only HOST and PORT changed;
2. with django-pgsluice installed, so that findings carry the route.

Fails when an N+1 query is not found, or when a view without one is blamed with medium or high confidence.
KEEP=1 leaves everything up until Ctrl-C. Standard library only; Django and psycopg come from PyPI into a cache.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import statistics
import sys
import time

DEMO = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(DEMO.parent / "tools"), str(DEMO / "shop")]

from private import Servers, free_port  # noqa: E402
from python_env import python_env, requirements  # noqa: E402
from routes import BOOK, INNOCENT, PAIRS, routes  # noqa: E402

WORKERS = 3
REPEATS = 4
SETTLE = 2.0  # seconds: a unit of work ends after one of silence, looked at a few times a second
BLAME = ("medium", "high")


def say(text=""):
    print(text, flush=True)


# === The shop ===

class Shop:
    """Django under gunicorn, and how its answers went."""

    def __init__(self, servers, python, db_port, tags, mended=False):
        self.port = free_port(8000)
        env = environment(db_port)
        env["SHOP_TAGS"] = "1" if tags else "0"
        env["SHOP_MENDED"] = "1" if mended else "0"
        self.process = servers.spawn(
            "django", [python, "-m", "gunicorn", "--workers", WORKERS, "--bind", f"127.0.0.1:{self.port}",
                       "--log-level", "warning", "project.wsgi"], env=env, cwd=DEMO, port=self.port)
        self.costs = {}

    def stop(self):
        self.process.terminate()
        self.process.wait(15)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 200:
            raise SystemExit(f"GET {path}: {response.status} {body[:300]!r}")
        route = BOOK if path.startswith("/book/") else path[1:]
        cost = (int(response.headers["X-Queries"]), float(response.headers["X-Milliseconds"]))
        self.costs.setdefault(route, []).append(cost)

    def get_all(self, paths):
        """All of them, from as many clients as there are workers."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as clients:
            list(clients.map(self.get, paths))

    def cost(self, route):
        """Median queries and milliseconds of a response."""
        queries, milliseconds = zip(*self.costs[route])
        return int(statistics.median(queries)), statistics.median(milliseconds)


def environment(db_port):
    return {"SHOP_DB_HOST": "127.0.0.1", "SHOP_DB_PORT": str(db_port), "DJANGO_SETTINGS_MODULE": "project.settings",
            "PYTHONDONTWRITEBYTECODE": "1"}


def paths_of(route, times):
    if route == BOOK:
        return [f"/book/{1 + number}/" for number in range(times * 5)]
    return [f"/{route}"] * times


# === What pgsluice says ===

class Sluice:
    """A running pgsluice: its metrics and its findings."""

    def __init__(self, servers, binary, postgres, **settings):
        self.port, self.http_port = free_port(6432), free_port(9127)
        self.log = servers.log("pgsluice")
        self.process = servers.spawn("pgsluice", [binary, "run"], port=self.port, env={
            "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
            "PGSLUICE_LISTEN": f"127.0.0.1:{self.port}",
            "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "PGSLUICE_POOL_MODE": "transaction",
            "PGSLUICE_POOL_SIZE": "4",
            "PGSLUICE_LOG_FORMAT": "json",
            **settings,
        })

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def bursts(self):
        """How often each finding was seen so far, by its id. A request counts when its connection has been silent for
        a while."""
        time.sleep(SETTLE)
        text = self.metrics()
        return {labels["finding"]: value for labels, value in series(text, "pgsluice_nplusone_finding_bursts_total")}

    def findings(self):
        """Findings by id: what their last log line says. Each is logged when first seen."""
        found = {}
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if "finding" in record and record.get("message") != "burst":
                found[record["finding"]] = record
        return found


def series(text, name):
    """The series of one metric: labels and value."""
    for line in text.splitlines():
        match = re.match(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if match:
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[1] or ""))
            yield labels, float(match[2])


def fits(finding, pair):
    return finding.get("kind") in pair.kinds and bool(set(pair.tables) & set(finding.get("tables", "").split(",")))


def blamed(finding):
    return finding.get("confidence") in BLAME


def filled(servers, python):
    """PostgreSQL with the shop in it."""
    postgres = servers.postgres(max_connections=50)
    done = servers.spawn("migrate", [python, "manage.py", "migrate", "--verbosity=0"], env=environment(postgres.port), cwd=DEMO)
    if done.wait(120):
        raise SystemExit(servers.tail("migrate"))
    postgres.psql("SET ROLE app;\n" + (DEMO / "shop/fill.sql").read_text(), database="app")
    return postgres


# === The two passes ===

def without_tags(shop, sluice):
    """Route by route, so that what is found is known to be the route's; those without an N+1 together, and one by
    one only if something is found in them. Then all mixed, which must blame no other tables."""
    found = {route: set() for route in routes()}
    before = sluice.bursts()

    def ask(asked):
        nonlocal before
        shop.get_all([path for route in asked for path in paths_of(route, REPEATS)])
        after = sluice.bursts()
        new = {id for id, count in after.items() if count > before.get(id, 0) and id != "other"}
        before = after
        return new

    for route in (route for route, bad in routes().items() if bad):
        found[route] = ask([route])
        say(f"  /{route:<24} {len(found[route])} found")
    clean = [route for route, bad in routes().items() if not bad]
    say(f"  {len(clean)} views without an N+1")
    new = ask(clean)
    if any(id in new and blamed(finding) for id, finding in sluice.findings().items()):
        for route in clean:
            found[route] = ask([route])
            say(f"  /{route:<24} {len(found[route]) or '-'}")
    known = set().union(*found.values())
    mixed(shop)
    sluice.bursts()
    findings = sluice.findings()
    # A view's N+1 may come with another query before it, which makes another finding: right all the same.
    spurious = [finding for id, finding in findings.items()
                if id not in known and blamed(finding) and not any(fits(finding, pair) for pair in PAIRS)]
    return {route: [findings[id] for id in ids if id in findings] for route, ids in found.items()}, spurious


def with_tags(shop, sluice):
    """All mixed at once: the route is in the finding."""
    mixed(shop)
    sluice.bursts()
    found = {route: [] for route in routes()}
    for finding in sluice.findings().values():
        if finding.get("route") in found:
            found[finding["route"]].append(finding)
    return found, []


def mixed(shop):
    paths = [path for route in routes() for path in paths_of(route, REPEATS)]
    random.Random(1).shuffle(paths)
    shop.get_all(paths)


def judge(title, found, spurious):
    """What is wrong with a pass: a list of sentences."""
    wrong = []
    expected = {f"{pair.name}/": pair for pair in PAIRS}
    for route, findings in found.items():
        if route in expected:
            pair = expected[route]
            if not any(fits(finding, pair) for finding in findings):
                wrong.append(f"{title}: /{route}: its N+1 was not found ({describe(findings)})")
        else:
            bad = [finding for finding in findings if blamed(finding)]
            if bad:
                wrong.append(f"{title}: /{route}: blamed without reason: {describe(bad)}")
    if spurious:
        wrong.append(f"{title}: mixed requests were blamed: {describe(spurious)}")
    return wrong


def describe(findings):
    return "; ".join(f"{f.get('kind')} {f.get('relation', '')} on {f.get('tables')} {f.get('confidence', '')}" for f in findings) or "nothing"


def table(title, shop, found):
    say()
    say(title)
    say(f"  {'route':<14} {'what the view does':<34} {'found':<26} {'queries':>7} {'ms':>7}   {'mended':>7} {'ms':>6}  by")
    for pair in PAIRS:
        findings = sorted(found.get(f"{pair.name}/", []), key=lambda f: BLAME.index(f["confidence"]) if blamed(f) else -1)
        what = f"{findings[-1].get('kind')}, {findings[-1].get('confidence', '?')}" if findings else "-"
        if len(findings) > 1:
            what += f" (+{len(findings) - 1})"
        (queries, ms), (few, less) = shop.cost(f"{pair.name}/"), shop.cost(f"{pair.name}/mended/")
        say(f"  {pair.name:<14} {pair.what:<34} {what:<26} {queries:>7} {ms:>7.1f}   {few:>7} {less:>6.1f}  {pair.mend}")
    clean = [route for route, bad in routes().items() if not bad]
    quiet = sum(not any(blamed(finding) for finding in found.get(route, [])) for route in clean)
    say(f"  {quiet} of {len(clean)} views without an N+1 are not blamed: the mended twins, {', '.join(INNOCENT)}, book")


def show_metrics(sluice):
    say()
    say(f"In /metrics (http://127.0.0.1:{sluice.http_port}/metrics), among others:")
    wanted = ("pgsluice_nplusone_bursts_total", "pgsluice_nplusone_queries_total", "pgsluice_nplusone_avoidable_seconds_total")
    for line in sluice.metrics().splitlines():
        if line.startswith(wanted):
            say(f"  {line}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", default=DEMO.parent / "target/release/pgsluice", type=pathlib.Path)
    arguments.add_argument("--direct", action="store_true", help="Django on PostgreSQL itself: a check of the views")
    options = arguments.parse_args()
    begin = time.monotonic()
    python = python_env("demo", requirements(DEMO / "requirements.txt"))
    with Servers() as servers:
        say("Starting PostgreSQL and filling the shop")
        postgres = filled(servers, python)
        if options.direct:
            shop = Shop(servers, python, postgres.port, tags=True)
            mixed(shop)
            table("Without pgsluice", shop, {})
            return 0
        sluice = Sluice(servers, options.pgsluice.resolve(), postgres)
        say(f"pgsluice listens on 127.0.0.1:{sluice.port}; Django uses it with {WORKERS} workers and kept connections")
        wrong = []
        for title, tags, go in (("Without tags: only HOST and PORT changed", False, without_tags),
                                ("With django-pgsluice: findings name the route; all views mixed", True, with_tags)):
            say()
            say(f"{title} ...")
            shop = Shop(servers, python, sluice.port, tags)
            found, spurious = go(shop, sluice)
            table(title, shop, found)
            wrong += judge(title, found, spurious)
            if not (tags and os.environ.get("KEEP") == "1"):
                shop.stop()
        show_metrics(sluice)
        say()
        for sentence in wrong:
            say(f"WRONG: {sentence}")
        say(f"{'Failed' if wrong else 'All as expected'} after {time.monotonic() - begin:.0f} s")
        if os.environ.get("KEEP") == "1":
            keep(shop, sluice, postgres)
        return 1 if wrong else 0


def keep(shop, sluice, postgres):
    say()
    say(f"  Django      http://127.0.0.1:{shop.port}/ (lists its views)")
    say(f"  metrics     http://127.0.0.1:{sluice.http_port}/metrics")
    say(f"  console     PGPASSWORD=secret {postgres.bin}/psql -h 127.0.0.1 -p {sluice.port} -U app pgsluice -c 'SHOW NPLUSONE'")
    say(f"  log         {sluice.log}")
    say("Ctrl-C ends all.")
    try:
        while sluice.process.poll() is None:
            time.sleep(1)
        say("pgsluice ended by itself")
    except KeyboardInterrupt:
        say()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
