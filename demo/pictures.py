"""Photographs the page and the report of mended.py's run, for the README: pictures.py '{"browser":..., "url":..., ...}'.

Runs with an interpreter that has tests/python/requirements_page.txt.
"""

import json
import pathlib
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

DRAWN = "() => document.querySelector('#body')?.childElementCount > 0 && !document.querySelector('.waiting') && !document.querySelector('main[aria-busy]')"


def main():
    options = json.loads(sys.argv[1])
    out = pathlib.Path(options["out"])
    with sync_playwright() as playwright:
        # As root in a container Chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=options["browser"], args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 760})

        def shoot(name, place):
            page.goto(f"{options['url']}/#/{place}")
            page.wait_for_function(DRAWN)
            page.screenshot(path=out / f"{name}.png")

        if options["part"] == "before":
            shoot("findings", "findings")
            page.click("#body a.open")
            page.wait_for_selector("h2:has-text('What to change')")
            page.wait_for_function(DRAWN)
            page.screenshot(path=out / "finding.png")
        else:
            # The page's own choices are minutes and hours: the request gets the two moments of this short run.
            asked = f"{options['url']}/api/v1/compare?{urllib.parse.urlencode(options['window'])}"
            page.route("**/api/v1/compare*", lambda route: route.continue_(url=asked))
            shoot("before-after", "compare")
            page.goto(options["report"])
            page.screenshot(path=out / "report.png")
        browser.close()


main()
