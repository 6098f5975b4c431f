"""The demo as `make demo` runs it, with whatever binary cargo built last: real Django, psycopg 3, gunicorn."""

import subprocess
import sys
import unittest

from test_deploy import ROOT, binary


class Demo(unittest.TestCase):
    def test_finds_every_n_plus_one_and_blames_nothing_else(self):
        done = subprocess.run([sys.executable, ROOT / "demo/run.py", "--pgsluice", binary()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_mended_as_advised_every_finding_is_gone_and_nothing_is_new(self):
        done = subprocess.run([sys.executable, ROOT / "demo/mended.py", "--pgsluice", binary()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
