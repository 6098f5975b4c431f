#!/usr/bin/env python3
"""docs/getting-started.md, walked with an application that is not ours: pretalx, a conference planner, from PyPI.

    walk.py [--pgsluice BINARY]

Does what the page tells its reader to do, in its order and with its words: runs pgsluice with DATABASE_URL, changes
HOST and PORT of the application, looks whether it works, uses the application for a while, and lets findings name the
view. Then it says, from pgsluice's API, which view is worst, why, and what to change, and how long that took from the
first step. Fails when a step is not in the page any more, when anything of the application fails, or when the answer is
missing: a view by its route, with a finding of medium or high confidence and its advice.

Standard library only; pretalx and what it needs come from PyPI into a cache, PostgreSQL from tools/postgres.sh.
"""

import argparse
import collections
import http.client
import json
import pathlib
import re
import subprocess
import sys
import time

from private import Servers, free_port, wait_for, without_ours
from python_env import python_env

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs/getting-started.md"
PACKAGES = ["pretalx[postgres]==2025.2.2", "Faker==37.12.0", "freezegun==1.5.5", "gunicorn==23.0.0"]
ROUNDS = 3
WORKERS = 2
MAIL = "reader@example.org"

# The reader's own settings, changed as the page says (5. Let findings name the view); HOST and PORT come from pretalx's
# own variables. Static files are not what is walked: they are not collected.
SETTINGS = """
from pretalx.settings import *

STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
VITE_IGNORE = True
INSTALLED_APPS = ["django_pgsluice", *INSTALLED_APPS]
MIDDLEWARE = ["django_pgsluice.Middleware", *MIDDLEWARE]
"""

# What the organiser of the test event looks at, and its visitors.
ORGANISER = ["orga/event/", "orga/event/democon/", "orga/event/democon/submissions/", "orga/event/democon/submissions/statistics/",
             "orga/event/democon/speakers/", "orga/event/democon/reviews/", "orga/event/democon/mails/outbox/",
             "orga/event/democon/schedule/rooms/", "orga/event/democon/cfp/types/", "orga/event/democon/history/"]
VISITOR = ["democon/", "democon/schedule/", "democon/talk/", "democon/speaker/", "democon/schedule/export/schedule.json"]

# Logs the organiser in, as the login form does; prints the session's key.
LOGIN = f"""
import django
django.setup()
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from pretalx.person.models import User
user = User.objects.get(email="{MAIL}")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print("session " + session.session_key)
"""


def say(text=""):
    print(text, flush=True)


class Guide:
    """The page: a step that is taken must stand in it."""

    def __init__(self):
        self.text = GUIDE.read_text()

    def step(self, heading, *words):
        for word in (f"## {heading}", *words):
            if word not in self.text:
                raise SystemExit(f"{GUIDE.name} does not say {word!r} any more: walk it as it is now")
        say(f"{heading}")


class Pretalx:
    """The reader's application: its commands, and its views under gunicorn."""

    def __init__(self, servers, python, db_host, db_port):
        self.servers, self.python = servers, python
        self.home = servers.dir / "pretalx"
        self.home.mkdir()
        (self.home / "reader_settings.py").write_text(SETTINGS)
        self.env = {
            "DJANGO_SETTINGS_MODULE": "reader_settings", "PYTHONPATH": f"{self.home}:{ROOT / 'django-pgsluice'}",
            "PYTHONDONTWRITEBYTECODE": "1", "PRETALX_DATA_DIR": str(self.home / "data"), "PRETALX_DEBUG": "False",
            "PRETALX_SITE_URL": "http://localhost", "PRETALX_MAIL_HOST": "localhost",
            "PRETALX_DB_TYPE": "postgresql", "PRETALX_DB_NAME": "app", "PRETALX_DB_USER": "app", "PRETALX_DB_PASS": "secret",
            "PRETALX_DB_HOST": db_host, "PRETALX_DB_PORT": str(db_port),
            "DJANGO_SUPERUSER_EMAIL": MAIL, "DJANGO_SUPERUSER_PASSWORD": "a-password-of-the-walk-1",
            "PRETALX_INIT_ORGANISER_NAME": "The Organiser", "PRETALX_INIT_ORGANISER_SLUG": "organiser",
        }

    def run(self, *arguments):
        done = subprocess.run([self.python, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, cwd=self.home, env={**without_ours(), **self.env}, timeout=900)
        if done.returncode:
            raise SystemExit(f"pretalx {arguments[:4]} failed:\n{done.stdout[-3000:]}")
        return done.stdout

    def command(self, *arguments):
        return self.run("-m", "django", *arguments)

    def fill(self):
        self.command("migrate", "--verbosity=0")
        self.command("init", "--noinput")
        self.command("create_test_event", "--seed", "1")
        self.session = re.search(r"^session (\w+)$", self.run("-c", LOGIN), re.MULTILINE)[1]

    def serve(self):
        self.port = free_port(8000)
        self.servers.spawn("pretalx", [self.python, "-m", "gunicorn", "--workers", WORKERS, "--bind", f"127.0.0.1:{self.port}",
                                       "--log-level", "warning", "pretalx.wsgi"], env=self.env, cwd=self.home, port=self.port)

    def get(self, path, cookie):
        """A page as a browser gets it: redirects are followed."""
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", path, headers={"Host": "localhost", **cookie})
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status not in (301, 302):
                break
            path = re.sub(r"^https?://[^/]*", "", answer.headers["Location"])
        if answer.status != 200:
            raise SystemExit(f"GET {path}: {answer.status} {body[:300]!r}\n{self.servers.tail('pretalx', 40)}")
        if cookie and "/login" in path:
            raise SystemExit(f"{path}: the organiser is not logged in")

    def use(self):
        cookie = {"Cookie": f"pretalx_session={self.session}"}
        for _ in range(ROUNDS):
            for path in ORGANISER:
                self.get(f"/{path}", cookie)
            for path in VISITOR:
                self.get(f"/{path}", {})
        return ROUNDS * (len(ORGANISER) + len(VISITOR))


class Sluice:
    """pgsluice as the page starts it: one variable. Ports only where its own are taken."""

    def __init__(self, servers, binary, postgres):
        self.port, self.http_port = free_port(6432), free_port(9127)
        servers.spawn("pgsluice", [binary, "run"], port=self.port, env={
            "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
            "PGSLUICE_LISTEN": f"127.0.0.1:{self.port}", "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{self.http_port}"})

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def items(self, place):
        """All items of one list of the API."""
        status, body = self.get(f"/api/v1/{place}?limit=1000")
        if status != 200:
            raise SystemExit(f"/api/v1/{place}: {status} {body[:200]}")
        return json.loads(body)["items"]


def works(sluice, postgres):
    """3. See that it works: a list of sentences, what does not."""
    wrong = []
    if sluice.get("/readyz")[0] != 200:
        wrong.append("/readyz is not 200")
    if "pgsluice_pool" not in sluice.get("/metrics")[1]:
        wrong.append("/metrics has no pgsluice_pool")
    shown = subprocess.run([postgres.bin / "psql", "-h", "127.0.0.1", "-p", str(sluice.port), "-U", "app", "pgsluice", "-c", "SHOW POOLS"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**without_ours(), "PGPASSWORD": "secret"})
    if shown.returncode or "app" not in shown.stdout:
        wrong.append(f"SHOW POOLS: {shown.stdout}")
    return wrong


def each(finding):
    """Seconds lost each time, at least: what the page ranks views by."""
    return finding["avoidable_floor_seconds"] / max(1, finding["bursts"])


def answer(findings, routes):
    """What the page says, in lines; and what is wrong with it, in sentences."""
    sure = [finding for finding in findings if finding["confidence"] != "low" and finding["route"]]
    views = sorted((finding for finding in sure if not finding["job"]), key=each, reverse=True)
    if not views:
        return [], ["no view has a finding of medium or high confidence"]
    worst = views[0]
    numbers = next(route for route in routes if route["route"] == worst["route"])
    lines = [f"The worst view    {worst['route']}",
             f"  loses           at least {each(worst) * 1e3:.1f} ms each time, round trips included; a request spends {numbers['db_seconds_per_request'] * 1e3:.1f} ms"
             f" at the database in {numbers['queries_per_request']:.0f} queries a request",
             f"  because         {worst['kind']} ({worst['confidence']} confidence): {', '.join(worst['tables'])} {worst['n_max']} times",
             f"  change          {worst['advice']}",
             f"  as code         {worst['mend'] or '-'}"]
    for finding in views[1:6]:
        lines.append(f"Next              {finding['route']}: {finding['kind']}, {', '.join(finding['tables'])} {finding['n_max']} times, "
                     f"{each(finding) * 1e3:.1f} ms; {finding['advice']}")
    kinds = collections.Counter(finding["kind"] for finding in views)
    lines.append(f"In all            {len(views)} findings in views ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}), "
                 f"{len(sure) - len(views)} in commands")
    wrong = [f"finding {finding['id']} has no advice" for finding in views if not finding["advice"]]
    if worst["route"] not in {route["route"] for route in routes if not route["job"]}:
        wrong.append(f"{worst['route']} is no view")
    return lines, wrong


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", default=ROOT / "target/release/pgsluice", type=pathlib.Path)
    arguments.add_argument("--findings", type=pathlib.Path, help="write the findings there as JSON")
    options = arguments.parse_args()
    python = python_env("walk", PACKAGES)
    guide = Guide()
    begin = time.monotonic()
    with Servers() as servers:
        postgres = servers.postgres(max_connections=50)
        guide.step("1. Run it", "DATABASE_URL=postgres://app:secret@", "pgsluice run")
        sluice = Sluice(servers, options.pgsluice.resolve(), postgres)
        guide.step("2. Point Django at it", '"HOST": "127.0.0.1"', '"PORT": "6432"', "Only `HOST` and `PORT` change")
        guide.step("5. Let findings name the view", '"django_pgsluice"', '"django_pgsluice.Middleware"')
        pretalx = Pretalx(servers, python, "127.0.0.1", sluice.port)
        pretalx.fill()
        pretalx.serve()
        filled = time.monotonic()
        guide.step("3. See that it works", "/readyz", "/metrics | grep pgsluice_pool", "'SHOW POOLS'")
        wrong = works(sluice, postgres)
        guide.step("4. Read the first finding", "Use the application for a minute")
        asked = pretalx.use()
        judged = wait_for("the requests to be judged",
                          lambda: sum(route["requests"] for route in sluice.items("routes") if not route["job"] and route["route"]) >= asked)
        lines, more = answer(sluice.items("findings"), sluice.items("routes"))
        end = time.monotonic()
        if options.findings:
            options.findings.write_text(json.dumps(sluice.items("findings"), indent=1))
        wrong += more
        wrong += [f"a statement failed {query['errors']} times: {query['text'][:200]}" for query in sluice.items("queries") if query["errors"]]
        log = servers.log("pretalx").read_text(errors="replace")
        wrong += [f"pretalx's log: {line}" for line in log.splitlines() if re.search(r"Traceback|ERROR|CRITICAL", line)]
    say()
    for line in lines:
        say(line)
    say()
    for sentence in wrong:
        say(f"WRONG: {sentence}")
    say(f"{'Failed' if wrong or not judged else 'All as expected'}: {end - begin:.0f} s from start to answer, {filled - begin:.0f} s of them "
        f"pretalx's migrations, test event and start; {asked} requests of {len(ORGANISER) + len(VISITOR)} views")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
