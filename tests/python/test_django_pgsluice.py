"""The Django package in django-pgsluice/: its own tests, with an old and a newer Django, psycopg2 and psycopg 3."""

import subprocess
import unittest

from test_deploy import ROOT, binary

from private import Servers, free_port  # noqa: E402  test_deploy makes tools/ known
from python_env import python_env  # noqa: E402


def run(driver, *packages):
    """Runs the package's tests in an environment of these packages, behind a pgsluice with one server connection."""
    python = python_env("django-pgsluice", [*packages, "celery"])
    with Servers() as servers:
        postgres, port = servers.postgres(), free_port()
        servers.spawn("pgsluice", [binary(), "run"], port=port, env={
            "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{postgres.port}/app",
            "PGSLUICE_LISTEN": f"127.0.0.1:{port}", "PGSLUICE_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
            "PGSLUICE_LOG_FORMAT": "json"})
        env = {"PATH": "/usr/bin:/bin", "SHELF_PORT": str(port), "SHELF_DRIVER": driver, "SHELF_LOG": str(servers.log("pgsluice")),
               "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([python, "-W", "error::RuntimeWarning", ROOT / "django-pgsluice/tests/test_tags.py"], env=env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)


class DjangoPgsluice(unittest.TestCase):
    def test_django_42_with_psycopg2(self):
        self.check(run("psycopg2", "Django~=4.2.0", "psycopg2-binary"))

    def test_django_52_with_psycopg3(self):
        self.check(run("psycopg", "Django~=5.2.0", "psycopg[binary]>=3.2"))

    def check(self, done):
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("Ran 0 tests", done.stdout)


if __name__ == "__main__":
    unittest.main()
