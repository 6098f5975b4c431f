#!/usr/bin/env python3
"""What the page costs: the time to its first paint and its first row, and pgsluice's CPU per transaction while pages are open.

    page.py [--pgsluice BINARY] [--fingerprints 5000] [--pages 10] [--rounds 6] [--seconds 4]

A headless Chromium (tools/browser.sh fetches one) on the same machine; rounds with and without open pages alternate.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

from run import HERE, PASSWORD, Servers, machine, pgbench, say, start_pgsluice

ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/python"))
PLACES = ["findings", "causes", "queries", "routes", "pools"]


def with_playwright():
    """Goes on with an interpreter that has Playwright."""
    from python_env import python_env, requirements
    python = python_env("page", requirements(ROOT / "tests/python/requirements_page.txt"))
    os.execve(python, [str(python), *sys.argv], {**os.environ, "PAGE_BENCH": "1"})


def fill(postgres, port, count):
    """An N+1, and `count` statements that differ in more than literals. Of one client many new ones are counted together: several
    bring them."""
    env = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"}
    look_ups = "".join(f"SELECT id, name FROM shop_author WHERE id = {i};\n" for i in range(1, 41))
    parts = [f"SELECT id, author_id FROM shop_book ORDER BY id LIMIT 40;\n{look_ups}" * 3]
    parts += ["".join(f"SELECT 1 AS page_{i};\n" for i in range(begin, min(begin + 150, count))) for begin in range(0, count, 150)]
    for number, sql in enumerate(parts):
        subprocess.run([postgres.bin / "psql", "-Xq", "-h", "127.0.0.1", "-p", str(port), "-U", "app", "app"], input=sql, text=True,
                       env={**env, "PGAPPNAME": f"filler-{number}"}, check=True, stdout=subprocess.DEVNULL)


def traffic(browser, postgres, pooler, options):
    url = f"http://127.0.0.1:{pooler.http}"
    runs = {0: [], options.pages: []}
    for number in range(options.rounds * 2):
        pages = options.pages if number % 2 else 0
        contexts = [browser.new_context(viewport={"width": 1280, "height": 900}) for _ in range(pages)]
        for i, context in enumerate(contexts):
            context.new_page().goto(f"{url}/#/{PLACES[i % len(PLACES)]}")
        time.sleep(2 if pages else 0)  # pages that are open, not pages that open
        before = pooler.cpu()
        tps, count, _ = pgbench(postgres, pooler.port, "simple", 32, options.seconds)
        runs[pages].append(((pooler.cpu() - before) / count * 1e6, tps))
        for context in contexts:
            context.close()
    medians = {pages: [statistics.median(column) for column in zip(*rows)] for pages, rows in runs.items()}
    for pages, (cpu, tps) in medians.items():
        say(f"{pages:>3} pages open: {cpu:.2f} us of CPU a transaction, {tps:.0f} tps")
    say(f"ratio of CPU a transaction: {medians[options.pages][0] / medians[0][0]:.3f}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", type=pathlib.Path, default=ROOT / "target/guided/pgsluice")
    arguments.add_argument("--fingerprints", type=int, default=5000)
    arguments.add_argument("--pages", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=6)
    arguments.add_argument("--seconds", type=int, default=4)
    options = arguments.parse_args()
    if "PAGE_BENCH" not in os.environ:
        with_playwright()
    import page_driver
    from playwright.sync_api import sync_playwright
    chromium = subprocess.run([ROOT / "tools/browser.sh", "--fetch"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    with Servers() as servers:
        postgres = servers.postgres(max_connections=100)
        postgres.psql("SET ROLE app;\n" + (HERE / "schema.sql").read_text(), database="app")
        pooler = start_pgsluice(servers, options.pgsluice.resolve(), postgres, 20)
        fill(postgres, pooler.port, options.fingerprints)
        say(machine())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page_driver.paints(browser, {"url": f"http://127.0.0.1:{pooler.http}"})
            traffic(browser, postgres, pooler, options)
            browser.close()


main()
