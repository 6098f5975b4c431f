"""The catalogue and plans with real Django: advice of which foreign keys are sure, and an index whose code runs."""

import contextlib
import http.client
import json
import subprocess
import unittest

from test_deploy import ROOT, binary

from private import Servers, free_port, wait_for  # noqa: E402  test_deploy makes tools/ known
from python_env import python_env, requirements  # noqa: E402

DEMO = ROOT / "demo"


class Inspection(unittest.TestCase):
    def test_foreign_keys_decide_and_the_index_is_made_by_its_own_code(self):
        python = python_env("demo", requirements(DEMO / "requirements.txt"))
        with Servers() as servers:
            postgres = servers.postgres()

            def run(port, *command):
                done = subprocess.run([python, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True, timeout=120, cwd=DEMO,
                                      env={"PATH": "/usr/bin:/bin", "SHOP_DB_PORT": str(port), "DJANGO_SETTINGS_MODULE": "project.settings",
                                           "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(DEMO)})
                self.assertEqual(done.returncode, 0, done.stdout)

            run(postgres.port, "manage.py", "migrate", "--verbosity=0")
            postgres.psql("SET ROLE app;\n" + (DEMO / "shop/fill.sql").read_text(), database="app")
            postgres.psql("INSERT INTO shop_visit (customer_id, page) SELECT (SELECT min(id) FROM shop_customer), '/page/' || i "
                          "FROM generate_series(1, 300000) i; ANALYZE", database="app")
            port, http_port = free_port(), free_port()
            servers.spawn("pgsluice", [binary(), "run"], port=port, env={
                "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
                "PGSLUICE_LISTEN": f"127.0.0.1:{port}", "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{http_port}",
                "PGSLUICE_INSIGHT_EXPLAIN": "true", "PGSLUICE_INSIGHT_CATALOG_INTERVAL": "1s",
                "PGSLUICE_INSIGHT_EXPLAIN_PER_MINUTE": "600"})

            def items(what):
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", http_port, timeout=10)) as connection:
                    connection.request("GET", f"/api/v1/{what}?limit=1000")
                    return json.loads(connection.getresponse().read())["items"]

            run(port, ROOT / "tests/python/inspection_shop.py")

            def proved():
                return next((cause for cause in items("causes") if cause["kind"] == "missing_index" and not cause["probable"]), None)

            cause = wait_for("the index of shop_visit", proved)
            self.assertIn('models.Index(fields=["page"], name="visit_page_idx")', cause["code"])
            self.assertIn("shop_visit", cause["evidence"])

            advice = {finding["tables"][0]: finding["advice"] for finding in items("findings")}
            for table, words in {
                "shop_author": 'select_related("author") on the query of shop_book: shop_book.author_id references shop_author.id, NOT NULL',
                "shop_tag": 'prefetch_related("tags") on the query of shop_book: shop_book_tags joins shop_book to shop_tag',
                "shop_profile": 'select_related("profile") on the query of shop_customer: shop_profile.customer_id references',
            }.items():
                self.assertIn(words, advice[table])
            self.assertFalse([words for words in advice.values() if "probably" in words])

            code = servers.dir / "advised.py"
            code.write_text(cause["code"])
            run(port, ROOT / "tests/python/inspection_shop.py", code)
            made = "SELECT indexname FROM pg_indexes WHERE tablename = 'shop_visit' AND indexname = 'visit_page_idx'"
            self.assertEqual(postgres.psql(made, database="app"), "visit_page_idx")
            wait_for("the cause to leave", lambda: proved() is None or None)


if __name__ == "__main__":
    unittest.main()
