"""Looks at the page in a real browser: page_driver.py '{"browser":..., "url":..., "token_url":..., "token":..., "out":...}'.

Runs with an interpreter that has tests/python/requirements_page.txt. Prints one problem a line as JSON, and what was
measured as {"measured": ...}; screenshots go to `out`.
"""

import json
import pathlib
import statistics
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {1280: 900, 360: 740}
PLACES = ["findings", "causes", "queries", "routes", "pools", "compare"]
DRAWN = "() => document.querySelector('#body')?.childElementCount > 0 && !document.querySelector('.waiting') && !document.querySelector('main[aria-busy]')"
# When the first row stands on the page; beside the browser's own first paint.
WATCH = """new MutationObserver((_, me) => { if (document.querySelector('[data-row]')) {
  me.disconnect(); requestAnimationFrame(() => { window.firstRow = performance.now(); }); } }).observe(document, { childList: true, subtree: true });"""
PAINTS = "() => [performance.getEntriesByName('first-contentful-paint')[0]?.startTime, window.firstRow]"


def tell(**what):
    print(json.dumps(what), flush=True)


class Look:
    """One window: what the console says is a problem."""

    def __init__(self, browser, options, width, scheme):
        self.options, self.width, self.scheme = options, width, scheme
        self.context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.expected = ()
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.problem("error", str(error)))
        self.place = ""

    def said(self, message):
        if message.type in ("error", "warning") and not any(word in message.text for word in self.expected):
            self.problem("console", message.text)

    def problem(self, kind, text):
        tell(problem=kind, place=self.place, width=self.width, scheme=self.scheme, text=text)

    def check(self, name, wanted):
        if not wanted:
            self.problem("check", name)

    def go(self, place, url=None):
        self.place = place
        self.page.goto(f"{url or self.options['url']}/#/{place}")
        self.page.wait_for_function(DRAWN, timeout=15000)

    def look(self):
        """Nothing wider than the window, nothing that axe finds, and a picture."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.check(f"{wide} pixels too wide", wide <= 0)
        # axe is put in by the debugger: the policy of the page holds for it, too, and stays.
        for violation in Axe().run(self.page).response["violations"]:
            self.problem("axe", f"{violation['id']}: {[node['html'][:160] for node in violation['nodes'][:3]]}")
        name = self.place.replace("/", "_").replace("%", "")[:40]
        self.page.screenshot(path=str(pathlib.Path(self.options["out"]) / f"{name}-{self.width}-{self.scheme}.png"))


def everywhere(look):
    here = look.page.eval_on_selector_all("nav a", "links => links.map((link) => link.dataset.place)")
    for place in (place for place in PLACES if place in here):
        look.go(place)
        look.look()
    # The first of each list, opened.
    for place in ("findings", "queries", "routes"):
        look.go(place)
        address = look.page.get_attribute("#body [data-row] a.open", "href")
        look.go(address.removeprefix("#/"))
        look.look()


def finding(look):
    """A finding tells what, where, why, and what to change; its links lead on."""
    look.go("findings")
    page = look.page
    page.click(".card:has-text('^books/$') a.open")
    page.wait_for_selector("h2:has-text('What to change')")
    text = page.inner_text("main")
    for word in ("page_author", "books/", "select_related(\"author\")", "One burst as it ran", "Evidence", "written as its table is called", "30 times", "returned 30 rows"):
        look.check(f"a finding says {word}", word in text)
    look.check("two bars", page.locator(".timeline .bar").count() == 2)
    page.click("section h3 a")
    page.wait_for_selector("h2:has-text('Time at the server')")
    page.click("main a:has-text('finding ')")
    page.wait_for_selector("h2:has-text('What to change')")
    page.click("p.where a")
    page.wait_for_selector("h2:has-text('Queries that ran in it')")
    look.check("no markup of an application's", page.locator("main img, main script, main iframe").count() == 0)


def worst(look):
    """The worst view is a view: a command that asks more is named as one, and is not it."""
    look.go("findings")
    page = look.page
    lead = page.inner_text("p.lead")
    look.check(f"the lead names the view: {lead}", "view that loses most each time is ^books/$" in lead and "nightly" not in lead)
    look.check("the command is called one", page.locator(".card:has-text('command or task nightly')").count() > 0)
    look.go("routes")
    lead = page.inner_text("p.lead")
    look.check(f"so do the routes: {lead}", lead.startswith("Worst: ^books/$"))


def held(look):
    """Pools: who is idle in a transaction, in which view, and whether the pool is large enough by the time waited."""
    look.go("pools")
    page = look.page
    told = page.inner_text("p.idlers")
    look.check(f"who idles in a transaction: {told}", told.startswith("Idle in transaction: <b>report</b> in ^books/$ for "))
    rows = page.locator("td[data-label=route]").all_inner_texts()
    look.check(f"the holder's route, where known: {rows}", sorted(rows) == ["^books/$", "not known"])
    verdict = page.inner_text("p.verdict")
    look.check(f"the verdict says by what: {verdict}", "95 of 100 times a server came" in verdict)


def compared(look):
    """Before and after in words; nothing but words about a window in which nothing ran."""
    page = look.page

    def answer(change):
        def patched(route):
            response = route.fetch()
            body = response.json()
            for side in ("before", "after"):
                body[side] |= {"known_seconds": 3600, "calls_per_hour": 900, "requests_per_hour": 90, "queries_per_request": 10,
                               "db_seconds_per_request": 0.01}
            change(body)
            route.fulfill(response=response, json=body)
        page.unroute("**/api/v1/compare*")
        page.route("**/api/v1/compare*", patched)
        page.goto("about:blank")
        look.go("compare")
        return page.inner_text("p.verdict"), page.locator("main table").count()

    def silent(body):
        body["before"] |= {"calls_per_hour": 0, "requests_per_hour": 0, "queries_per_request": 0, "db_seconds_per_request": 0}

    words, tables = answer(silent)
    look.check(f"a silent window: {words}, {tables} tables", "Nothing ran in the window before" in words and tables == 0)

    finding = look.finding

    def mended(body):
        body["before"] |= {"queries_per_request": 40, "db_seconds_per_request": 0.04}
        body["findings"] = [{"finding": finding, "before_bursts_per_hour": 90, "after_bursts_per_hour": 0, "change_seconds_per_hour": -3}]

    words, tables = answer(mended)
    look.check(f"what helped: {words}", words.startswith("Yes, it helped: a request takes 10 ms") and "Gone: ^books/$: page_author is asked" in words and tables > 0)

    def worse(body):
        body["after"] |= {"db_seconds_per_request": 0.05}
        body["findings"] = [{"finding": finding, "before_bursts_per_hour": 0, "after_bursts_per_hour": 9, "change_seconds_per_hour": 3}]

    words, _ = answer(worse)
    look.check(f"what did not: {words}", words.startswith("No, it became worse") and "New: ^books/$" in words)


def keys(look):
    look.go("queries")
    page = look.page
    focused = "() => document.activeElement.closest('[data-row]')?.dataset.row"
    page.keyboard.press("j")
    first = page.evaluate(focused)
    page.keyboard.press("j")
    second = page.evaluate(focused)
    look.check("j goes down", first and second and first != second)
    page.keyboard.press("k")
    look.check("k goes up", page.evaluate(focused) == first)
    page.keyboard.press("r")
    page.wait_for_function(DRAWN)
    look.check("the focus stays when it is read again", page.evaluate(focused) == first)
    page.keyboard.press("/")
    page.keyboard.type("page_author")
    page.wait_for_function("() => [...document.querySelectorAll('tbody tr')].every((row) => /page_author/.test(row.innerHTML))")
    page.keyboard.press("Escape")
    look.check("Esc empties the filter", page.input_value("#filter") == "")
    page.keyboard.press("?")
    look.check("? shows the keys", page.is_visible("#help"))
    page.keyboard.press("Escape")
    look.check("Esc closes them", not page.is_visible("#help"))
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h2:has-text('Time at the server')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#filter")
    page.keyboard.press("1")
    page.wait_for_selector("ol.cards")
    look.go("queries")
    page.click("th button:has-text('calls')")
    calls = [int(text.replace(",", "")) for text in page.locator("tbody td[data-label=calls]").all_inner_texts()]
    look.check("sorted by calls", calls == sorted(calls, reverse=True) and len(calls) > 5)


def login(look):
    """The wrong token is refused, the right one opens, and neither is in the address."""
    look.expected = ("401",)
    page = look.page
    look.place = "login"
    page.goto(f"{look.options['token_url']}/")
    page.wait_for_selector("#token")
    look.look()
    page.fill("#token", "this-is-the-wrong-one")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=not right")
    page.fill("#token", look.options["token"])
    page.keyboard.press("Enter")
    page.wait_for_selector("text=No statement has come yet")
    page.reload()
    page.wait_for_selector("text=No statement has come yet")
    look.place = "empty"
    look.look()
    look.check("how to connect", 'DATABASES["default"]["HOST"]' in page.inner_text("main"))
    look.check("not in the address", look.options["token"] not in page.url)
    page.goto(f"{look.options['token_url']}/#/findings/000000000000")
    look.expected = ("401", "404")
    page.wait_for_selector("text=It is not here")


def hidden(look):
    """Nothing is asked while the tab is hidden; a pgsluice that is gone is told of."""
    page = look.page
    look.go("pools")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(6000)  # longer than this place's interval
    look.check(f"nothing is asked while hidden: {asked}", not asked)
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function(DRAWN)
    look.check("asked again when seen", bool(asked))
    look.expected = ("ERR_", "Failed to load")
    look.context.set_offline(True)
    page.keyboard.press("r")
    page.wait_for_selector("#trouble:not([hidden])")
    look.check("what is shown is old", "old" in page.inner_text("#trouble"))
    look.check("and still shown", page.locator(".pool").count() > 0)
    look.context.set_offline(False)
    page.keyboard.press("r")
    page.wait_for_selector("#trouble", state="hidden")


def paints(browser, options):
    """Milliseconds to the first paint, and to the first row, of the median of some fresh windows."""
    for place in ("findings", "queries"):
        seen = []
        for _ in range(7):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(f"{options['url']}/#/{place}")
            page.wait_for_function("() => window.firstRow")
            seen.append(page.evaluate(PAINTS))
            context.close()
        first, row = (statistics.median(column) for column in zip(*seen))
        tell(measured=place, first_paint_ms=round(first), first_row_ms=round(row))


def main():
    options = json.loads(sys.argv[1])
    with sync_playwright() as playwright:
        # As root in a container Chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=options["browser"], args=["--no-sandbox"])
        tell(measured="browser", version=browser.version)
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                look = Look(browser, options, width, scheme)
                look.go("findings")
                everywhere(look)
                look.context.close()
        for step in (finding, worst, held, compared, keys, login, hidden):
            look = Look(browser, options, 1280, "light")
            look.finding = options["finding"]
            try:
                step(look)
            except Exception as error:  # a step that cannot go on is a problem like the others
                look.problem(step.__name__, str(error))
            look.context.close()
        paints(browser, options)
        browser.close()


if __name__ == "__main__":
    main()
