"""A Python environment in the cache: python_env.py NAME PACKAGE... prints its interpreter.

python3-venv may be missing (Debian keeps it apart): as root it is installed with apt-get; else `virtualenv` is
fetched by pip; without pip there is nothing to be done, and that is said.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys


def say(text):
    print(text, file=sys.stderr, flush=True)


def cache():
    if "PGSLUICE_CACHE" in os.environ:
        return pathlib.Path(os.environ["PGSLUICE_CACHE"])
    if os.geteuid() == 0:
        return pathlib.Path("/var/cache/pgsluice")
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pgsluice"


def quiet(*command):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def make(directory):
    if quiet(sys.executable, "-m", "venv", directory).returncode == 0:
        return
    shutil.rmtree(directory, ignore_errors=True)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("Python has no venv: installing python3-venv with apt-get")
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        quiet("apt-get", "update", "-qq")
        quiet("apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-venv")
        if quiet(sys.executable, "-m", "venv", directory).returncode == 0:
            return
        shutil.rmtree(directory, ignore_errors=True)
    say("Python has no venv: fetching virtualenv with pip")
    helper = directory.with_name("virtualenv")
    made = quiet(sys.executable, "-m", "pip", "install", "--quiet", "--target", helper, "virtualenv")
    if made.returncode == 0:
        os.environ["PYTHONPATH"] = str(helper)
        made = quiet(sys.executable, "-m", "virtualenv", directory)
        del os.environ["PYTHONPATH"]
    if made.returncode:
        raise SystemExit(f"no Python environment can be made; install python3-venv\n{made.stdout}")


def python_env(name, packages):
    """The interpreter of an environment that holds `packages` (requirement specifiers); made once."""
    recipe = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:8]
    directory = cache() / f"python-{name}-{sys.version_info.major}.{sys.version_info.minor}-{recipe}"
    python = directory / "bin" / "python"
    if not (directory / ".done").exists():
        say(f"Python packages from PyPI into {directory}: {', '.join(packages)}")
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        make(directory)
        done = quiet(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
        if done.returncode:
            raise SystemExit(f"pip install failed:\n{done.stdout}")
        (directory / ".done").touch()
    return python


def requirements(path):
    """The lines of a requirements file without its comments."""
    lines = (line.split("#")[0].strip() for line in pathlib.Path(path).read_text().splitlines())
    return [line for line in lines if line]


if __name__ == "__main__":
    print(python_env(sys.argv[1], sys.argv[2:]))
