"""Fetches one wheel of PyPI, verifies its SHA-256 and unpacks it: NAME VERSION SHA256 DIRECTORY.

`pip download` first, since it knows the machine's mirrors and proxies; where pip is missing (Debian's python3 has
none) PyPI's index page. Only the file with the pinned digest is ever unpacked.
"""

import hashlib
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import zipfile


def by_pip(name: str, version: str, directory: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         "--dest", directory, f"{name}=={version}"],
        check=True, stdin=subprocess.DEVNULL)


def by_http(name: str, sha256: str, directory: str) -> None:
    index = f"https://pypi.org/simple/{name}/"
    with urllib.request.urlopen(index, timeout=60) as page:
        links = re.findall(r'href="([^"#]+)#sha256=([0-9a-f]{64})', page.read().decode())
    for link, digest in links:
        if digest == sha256:
            url = urllib.parse.urljoin(index, html.unescape(link))
            with urllib.request.urlopen(url, timeout=300) as body, \
                    open(pathlib.Path(directory, url.rsplit("/", 1)[-1]), "wb") as out:
                shutil.copyfileobj(body, out)
            return
    raise SystemExit(f"{name}: PyPI has no file with sha256 {sha256}")


def main(name: str, version: str, sha256: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            by_pip(name, version, directory)
        except (OSError, subprocess.CalledProcessError):
            print("pip is missing or failed: downloading directly", file=sys.stderr)
            by_http(name, sha256, directory)
        (wheel,) = pathlib.Path(directory).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{wheel.name}: sha256 is {found}, expected {sha256}: not unpacked")
        shutil.rmtree(target, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
