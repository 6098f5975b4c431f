"""The web page in a real browser: no console error, nothing that axe finds, keys, login, every place in four looks.

`make ui-test` fetches a browser when there is none; `make test` runs this only where one is installed. Screenshots go to
out/page (UI_OUT chooses another directory): look at them. FINGERPRINTS is how many statements the page is filled with.
"""

import json
import os
import pathlib
import subprocess
import time
import unittest
import urllib.request

from test_deploy import ROOT, binary

from private import Servers, free_port
from python_env import python_env, requirements

FETCH = os.environ.get("UI_FETCH") == "1"
FINGERPRINTS = int(os.environ.get("FINGERPRINTS", "5000"))
TOKEN = "the-token-of-the-page-test"
TAG = "/*route='^books/$'*/"


def browser():
    """Its path, or why there is none."""
    command = [ROOT / "tools/browser.sh"] + (["--fetch"] if FETCH else [])
    found = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if found.returncode and FETCH:
        raise RuntimeError(found.stderr)
    return found.stdout.strip()


class Sluice:
    def __init__(self, servers, name, postgres, **settings):
        self.port, self.http_port = free_port(), free_port()
        servers.spawn(name, [binary(), "run"], port=self.port, env={
            "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
            "PGSLUICE_LISTEN": f"127.0.0.1:{self.port}",
            "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "PGSLUICE_POOL_SIZE": "5",
            **settings,
        })
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.psql = postgres.bin / "psql"

    def environment(self, application):
        return {**os.environ, "PGPASSWORD": "secret", "PGAPPNAME": application}

    def command(self, *arguments):
        return [self.psql, "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "app", "-d", "app", *arguments]

    def run(self, sql, application="shop-web"):
        subprocess.run(self.command("-f", "-"), input=sql, stdout=subprocess.DEVNULL, text=True, check=True,
                       env=self.environment(application))

    def hold(self, sql, application):
        """A client that runs this and then stays."""
        client = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                  env=self.environment(application))
        client.stdin.write(sql + "\n")
        client.stdin.flush()
        return client

    def api(self, path):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)

    def wait(self, what, path, wanted):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if wanted(self.api(path)):
                return
            time.sleep(0.1)
        raise AssertionError(f"gave up waiting for {what}: {self.api(path)}")


def fill(sluice):
    """An N+1, thousands of statements, an idle transaction, a pinned client; markup where an application could put it."""
    sluice.run("CREATE TABLE page_author (id int, name text); CREATE TABLE page_book (id int, author_id int);"
               "INSERT INTO page_author SELECT i, 'x' FROM generate_series(1, 30) i; INSERT INTO page_book SELECT i, i FROM generate_series(1, 30) i;")
    look_ups = "".join(f'SELECT "page_author"."id", "page_author"."name" FROM "page_author" WHERE "page_author"."id" = {i} LIMIT 21 {TAG};\n' for i in range(1, 31))
    sluice.run((f'SELECT 1 {TAG};\nSELECT "page_book"."id", "page_book"."author_id" FROM "page_book" {TAG};\n' + look_ups) * 2)
    # A command that asks more than any view, and what it asked nobody waits for.
    sluice.run('SELECT "page_book"."id", "page_book"."author_id" FROM "page_book" /*job=\'nightly\'*/;\n'
               + "".join(look_ups.replace(TAG, "/*job='nightly'*/") for _ in range(20)))
    sluice.run('SELECT 1 AS "<img src=x onerror=alert(1)>";')
    # One client that brings ever-new statements is counted together: several bring them.
    part = 150
    for begin in range(0, FINGERPRINTS, part):
        sluice.run("".join(f"SELECT 1 AS page_{i};\n" for i in range(begin, min(begin + part, FINGERPRINTS))), f"filler-{begin}")
    held = [sluice.hold(f"BEGIN; SELECT 1 {TAG};", "<b>report</b>"), sluice.hold("LISTEN orders;", "channels")]
    sluice.wait("the finding", "findings", lambda found: {f["job"] for f in found["items"] if f["confidence"] != "low"} == {False, True})
    sluice.wait("who holds servers", "pools", lambda pools: len(pools["items"][0]["holders"]) == 2)
    return held


class Page(unittest.TestCase):
    def test_in_a_browser(self):
        chromium = browser()
        if not chromium:
            self.skipTest("no Chromium is installed; make ui-test fetches one")
        try:
            python = python_env("page", requirements(pathlib.Path(__file__).with_name("requirements_page.txt")))
        except SystemExit as error:
            if FETCH:
                raise
            self.skipTest(f"Playwright cannot be fetched: {str(error).splitlines()[0]}")
        out = pathlib.Path(os.environ.get("UI_OUT", ROOT / "out/page"))
        out.mkdir(parents=True, exist_ok=True)
        with Servers() as servers:
            postgres = servers.postgres(max_connections=50)
            sluice = Sluice(servers, "pgsluice", postgres)
            guarded = Sluice(servers, "guarded", postgres, PGSLUICE_HTTP_TOKEN=TOKEN)
            held = fill(sluice)
            view = next(f["id"] for f in sluice.api("findings")["items"] if f["route"] == "^books/$" and f["kind"] == "n_plus_one")
            told = sluice.api("queries?limit=1")["total"]
            options = {"browser": chromium, "url": sluice.url, "token_url": guarded.url, "token": TOKEN, "out": str(out), "finding": view}
            done = subprocess.run([python, pathlib.Path(__file__).with_name("page_driver.py"), json.dumps(options)],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
            for client in held:
                client.kill()
                client.wait()
                client.stdin.close()
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        print(f"\n{told} statements on the page; screenshots in {out}")
        for line in lines:
            if "measured" in line:
                print("  ", line)
        self.assertEqual(done.returncode, 0, done.stderr)
        problems = [line for line in lines if "problem" in line]
        self.assertEqual(problems, [], json.dumps(problems, indent=1))
        self.assertTrue(any("first_paint_ms" in line for line in lines), "the driver did not come to its end")


if __name__ == "__main__":
    unittest.main()
