"""Checks deny.toml without cargo-deny: licences, banned crates and sources of everything in Cargo.lock.

A dependency's SPDX expression passes when some choice of its ORs needs only allowed licences. Duplicate versions are
listed, not forbidden, as deny.toml says.
"""

import collections
import json
import re
import subprocess
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10 and older
    print("skipped: reading deny.toml needs Python 3.11 or cargo-deny")
    sys.exit(0)


def allowed(expression: str, allow: set[str]) -> bool:
    """Evaluates an SPDX expression; `/` is an old way to write OR."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either() -> bool:
        result = both()
        while words and words[0] == "OR":
            words.pop(0)
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while words and words[0] == "AND":
            words.pop(0)
            result = one() and result
        return result

    def one() -> bool:
        word = words.pop(0)
        if word == "(":
            result = either()
            words.pop(0)
            return result
        if words and words[0] == "WITH":
            words.pop(0)
            exception = words.pop(0)
            return f"{word} WITH {exception}" in allow or word in allow
        return word in allow

    return either()


def main() -> int:
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"],
        check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout)
    allow = set(rules["licenses"]["allow"])
    banned = {ban["crate"]: ban["reason"] for ban in rules["bans"]["deny"]}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    # Only what is reachable: Cargo.lock may hold optional dependencies of dependencies.
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    problems, versions = [], collections.defaultdict(list)
    for package in metadata["packages"]:
        if package["id"] not in used:
            continue
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].append(package["version"])
        if not package["license"]:
            problems.append(f"{name}: no licence expression")
        elif not allowed(package["license"], allow):
            problems.append(f"{name}: licence {package['license']} is not allowed")
        if package["name"] in banned:
            problems.append(f"{name}: banned: {banned[package['name']]}")
        if package["source"] and package["source"] not in registries:
            problems.append(f"{name}: source {package['source']} is not allowed")
        if package["source"] is None and package["name"] != "pgsluice" and not package["manifest_path"].startswith(metadata["workspace_root"]):
            problems.append(f"{name}: a path outside of the repository")
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            print(f"warning: {name} in {len(found)} versions: {', '.join(found)}")
    for problem in problems:
        print(f"error: {problem}")
    print(f"{len(used)} crates, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
