#!/usr/bin/env python3
"""The demo shop before and after: a deployment with N+1 queries, then one where each view is mended as advised.

    mended.py [--pgsluice BINARY] [--pictures DIRECTORY]

Asks both for the same pages through one running pgsluice, and holds what pgsluice says against what was done: in the
report's comparison every N+1 is gone and nothing is new, and the page's comparison has fewer queries for each request.
--pictures photographs the page and the report as they stand, in a Chromium that is fetched when there is none.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request

from run import DEMO, PAIRS, REPEATS, SETTLE, Shop, Sluice, filled, paths_of, say

from private import Servers
from python_env import python_env, requirements

ROUTES = [f"{pair.name}/" for pair in PAIRS]
ROUNDS = 5


def ask(servers, python, sluice, mended):
    """A deployment, its requests, and the moment when pgsluice had seen the last of them as a whole."""
    say(f"The shop {'mended as advised' if mended else 'as it was written'}: {len(ROUTES)} views, {ROUNDS * REPEATS} times each")
    shop = Shop(servers, python, sluice.port, tags=True, mended=mended)
    for _ in range(ROUNDS):
        shop.get_all([path for route in ROUTES for path in paths_of(route, REPEATS)])
    time.sleep(SETTLE + 1)
    shop.stop()
    return shop, time.time()


def report(binary, sluice, *arguments):
    command = [binary, "report", "--url", f"http://127.0.0.1:{sluice.http_port}", *arguments]
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout


def window_of(begin, middle, end):
    """What the page compares: the windows that end at these moments, of a length that holds either deployment."""
    return {"from": round(middle, 3), "to": round(end, 3), "window_seconds": int(max(middle - begin, end - middle)) + 1}


def compared(sluice, window):
    url = f"http://127.0.0.1:{sluice.http_port}/api/v1/compare?{urllib.parse.urlencode(window)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def judge(changes, sides):
    """What is wrong: a list of sentences."""
    wrong = []
    by_route = {}
    for change in changes:
        by_route.setdefault(change["route"], []).append(change)
    for route in ROUTES:
        found = by_route.get(route, [])
        if not found:
            wrong.append(f"/{route}: its N+1 is not in the comparison")
        wrong += [f"/{route}: {change['kind']} is {change['verdict']}" for change in found if change["verdict"] != "gone"]
    before, after = sides["before"], sides["after"]
    for name in ("queries_per_request", "db_seconds_per_request", "avoidable_floor_seconds_per_hour"):
        if not after[name] < before[name] / 2:
            wrong.append(f"the page's comparison: {name} {before[name]:.4f} before, {after[name]:.4f} after")
    return wrong


def photograph(url, out, **options):
    """An interpreter with Playwright does it."""
    python = python_env("page", requirements(DEMO.parent / "tests/python/requirements_page.txt"))
    chromium = subprocess.run([DEMO.parent / "tools/browser.sh", "--fetch"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    out.mkdir(parents=True, exist_ok=True)
    options |= {"browser": chromium, "url": url, "out": str(out)}
    subprocess.run([python, DEMO / "pictures.py", json.dumps(options)], stdin=subprocess.DEVNULL, check=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", default=DEMO.parent / "target/release/pgsluice", type=pathlib.Path)
    arguments.add_argument("--pictures", type=pathlib.Path)
    options = arguments.parse_args()
    binary = options.pgsluice.resolve()
    python = python_env("demo", requirements(DEMO / "requirements.txt"))
    with Servers() as servers:
        postgres = filled(servers, python)
        sluice = Sluice(servers, binary, postgres, PGSLUICE_INSIGHT_HISTORY_INTERVAL="1s")
        begin = time.time()
        old, middle = ask(servers, python, sluice, mended=False)
        saved = servers.dir / "before.json"
        saved.write_text(report(binary, sluice, "--format", "json"))
        if options.pictures:
            photograph(f"http://127.0.0.1:{sluice.http_port}", options.pictures, part="before")
        new, end = ask(servers, python, sluice, mended=True)
        changes = json.loads(report(binary, sluice, "--compare", saved, "--format", "json"))
        sides = compared(sluice, window_of(begin, middle, end))
        if options.pictures:
            html = servers.dir / "report.html"
            html.write_text(report(binary, sluice, "--compare", saved, "--format", "html"))
            photograph(f"http://127.0.0.1:{sluice.http_port}", options.pictures, part="after", report=html.as_uri(),
                       window=window_of(begin, middle, end))
        say(report(binary, sluice, "--compare", saved))
        say(f"{'route':<14} {'queries':>8} {'ms':>7}   {'mended':>7} {'ms':>6}")
        for route in ROUTES:
            (queries, ms), (few, less) = old.cost(route), new.cost(route)
            say(f"{route:<14} {queries:>8} {ms:>7.1f}   {few:>7} {less:>6.1f}")
        wrong = judge(changes["comparison"]["findings"], sides)
        for sentence in wrong:
            say(f"WRONG: {sentence}")
        say("Failed" if wrong else "Every N+1 is gone, on the page and in the report")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
