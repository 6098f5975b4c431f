"""`pgsluice top` in a real terminal (a pty): it takes the screen, sends little, and gives the terminal back."""

import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "tests/python"))

from private import free_port, without_ours  # noqa: E402
from test_deploy import binary  # noqa: E402

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Top(unittest.TestCase):
    def setUp(self):
        # The database need not be there.
        self.url = f"http://127.0.0.1:{free_port()}"
        environment = without_ours() | {
            "DATABASE_URL": f"postgres://app:secret@127.0.0.1:{free_port()}/app",
            "PGSLUICE_LISTEN": f"127.0.0.1:{free_port()}",
            "PGSLUICE_HTTP_LISTEN": self.url.removeprefix("http://"),
        }
        self.pooler = subprocess.Popen([binary(), "run"], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, self.pooler)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(self.url + "/healthz", timeout=1).close()
                break
            except OSError:
                self.assertLess(time.monotonic(), deadline, "pgsluice does not serve")
                time.sleep(0.05)

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def open(self, interval):
        self.master, slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.slave, self.before, self.seen = slave, termios.tcgetattr(slave), b""
        command = [binary(), "top", "--url", self.url, "--interval", interval]
        top = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=without_ours() | {"TERM": "xterm"})
        self.addCleanup(self.end, top)
        return top

    def read(self, until, seconds=30):
        """Reads until `until(all that was seen)`."""
        deadline = time.monotonic() + seconds
        while not until(self.seen):
            left = deadline - time.monotonic()
            self.assertGreater(left, 0, self.seen[-2000:])
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)

    def restored(self):
        self.read(lambda seen: LEAVE in seen)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_keys_work_and_q_gives_the_terminal_back(self):
        top = self.open("2s")
        self.read(lambda seen: ENTER in seen and b"Pools" in seen and b"quit" in seen)
        self.assertNotEqual(termios.tcgetattr(self.slave), self.before)
        os.write(self.master, b"4")
        self.read(lambda seen: b"statement" in seen)
        os.write(self.master, b"q")
        self.assertEqual(top.wait(10), 0)
        self.restored()

    def test_only_changes_are_sent(self):
        self.open("200ms")
        self.read(lambda seen: b"quit" in seen)
        first = len(self.seen)
        # The uptime alone changes: five looks and more.
        moment = time.monotonic()
        while time.monotonic() - moment < 2:
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        more = len(self.seen) - first
        self.assertGreater(more, 0)
        self.assertLess(more, 10 * 80, self.seen[first:])

    def test_a_pgsluice_that_goes_away_is_told_and_sigterm_gives_the_terminal_back(self):
        top = self.open("200ms")
        self.read(lambda seen: b"quit" in seen)
        self.end(self.pooler)
        self.read(lambda seen: b"listens" in seen)
        top.send_signal(signal.SIGTERM)
        self.assertEqual(top.wait(10), 0)
        self.restored()


if __name__ == "__main__":
    unittest.main()
