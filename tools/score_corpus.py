#!/usr/bin/env python3
"""Scores N+1 detection on recorded traffic, as it runs: recorded sessions are played through pgsluice itself.

    score_corpus.py CORPUS_DIR [--tags] [--gap-ms 20] [--show 20]

CORPUS_DIR holds recordings (*.jsonl.gz) with labels, and the tools that go with them: stubserver.py (answers as
recorded), replay.py (plays the sessions), score.py (compares findings with labels). Each `burst` line of pgsluice's log
becomes a finding; precision and recall are printed for each application. `--offline` scores what
examples/replay_corpus.rs reports with its simulated clock as well. Of each true finding the list named and the kind of
advice are compared with a table (corpus_advice.py). Fails below 0.90.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

TOOLS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))

import corpus_advice  # noqa: E402
from private import Servers, free_port  # noqa: E402

TARGET = TOOLS.parent / "target/release"
READS = ("n_plus_one", "chain")
LEVELS = ("medium", "high")

CONFIG = """\
listen = "127.0.0.1:{port}"
http_listen = "127.0.0.1:{http}"
auth_type = "any"
workers = {workers}

[pool]
pool_mode = "transaction"
pool_size = 8

[log]
format = "json"
level = "debug"

[databases."*"]
host = "127.0.0.1"
port = {stub}
"""


def texts(replay, files, out):
    """One recorded text of each fingerprint: the scorer knows statements in its own spelling."""
    subprocess.run([replay, out, *files], check=True, stdout=subprocess.DEVNULL)
    lines = (out / "fingerprints.jsonl").read_text().splitlines()
    return {line["fingerprint"]: line["sql"] for line in map(json.loads, lines)}


def findings(log, known, out):
    """Writes what the log says in the scorer's format; how many, and how many of each kind."""
    counts = {}
    every = out.with_name("live-bursts.jsonl")
    with open(log, errors="replace") as lines, open(out, "w") as found, open(every, "w") as bursts:
        for line in lines:
            if '"burst"' not in line:
                continue
            burst = json.loads(line)
            if burst.get("message") != "burst":
                continue
            label = (burst["kind"], burst["confidence"])
            counts[label] = counts.get(label, 0) + 1
            sql = known.get(burst["fingerprint"], burst["sql"])
            line = {"session": burst["application"], "sql": sql, "count": burst["n"], "kind": burst["kind"],
                    "confidence": burst["confidence"], "relation": burst["relation"],
                    "parent": burst["parent"].strip("0") and burst["parent"],
                    "t_start": float(burst["t_start"]), "t_end": float(burst["t_end"])}
            bursts.write(json.dumps(line) + "\n")
            if burst["kind"] in READS and burst["confidence"] in LEVELS:
                found.write(json.dumps(line) + "\n")
    return counts


def live(options, files, known, out):
    with Servers() as servers:
        stub, port = free_port(), free_port()
        servers.spawn("stub", [sys.executable, TOOLS / "corpus_stub.py", options.corpus / "stubserver.py", "--port", stub,
                               "--speed", 0, "--quiet", "--corpus", *files], port=stub)
        config = servers.dir / "pgsluice.toml"
        config.write_text(CONFIG.format(port=port, http=free_port(), stub=stub, workers=options.workers))
        servers.spawn("pgsluice", [options.pgsluice, "run", "--config", config], port=port)
        command = [sys.executable, options.corpus / "replay.py", f"127.0.0.1:{port}", *files, "--gap-ms", options.gap_ms,
                   "--marker", "none", "--tags", "sqlcommenter" if options.tags else "none", "--units-out", out / "live-units.jsonl"]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"replay.py failed\n{servers.tail('pgsluice')}")
        print(f"played: {done.stdout.strip()}", flush=True)
        time.sleep(2)  # the last units end
        log = out / "pgsluice.log"
        log.write_bytes(servers.log("pgsluice").read_bytes())
    counts = findings(log, known, out / "live-findings.jsonl")
    print("bursts: " + ", ".join(f"{kind} {level} {n}" for (kind, level), n in sorted(counts.items())))
    corpus_advice.score(options.corpus, files, out / "live-bursts.jsonl", out / "live-units.jsonl", known)
    return score(options, files, out / "live-findings.jsonl", out / "live-units.jsonl")


def score(options, files, found, units):
    """Runs the scorer; the lowest precision or recall of an application."""
    command = [sys.executable, options.corpus / "score.py", *files, "--findings", found, "--units", units, "--min-n", "5",
               "--breakdown", "--show", str(options.show)]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout)
    rows = re.findall(r"^  (\S+) +\d+ +\d+ +\d+ +\d+ +(\S+) +(\S+) +\S+$", done.stdout, re.M)
    return min(float(number) for name, *numbers in rows if name != "ALL" for number in numbers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("--pgsluice", default=TARGET / "pgsluice", type=pathlib.Path)
    parser.add_argument("--replay", default=TARGET / "examples/replay_corpus", type=pathlib.Path)
    parser.add_argument("--gap-ms", type=float, default=20, help="pause between two requests of a connection")
    parser.add_argument("--tags", action="store_true", help="route and trace in a comment of each statement")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--offline", action="store_true", help="the simulated clock as well")
    parser.add_argument("--offline-only", action="store_true", help="the simulated clock and nothing else")
    parser.add_argument("--show", type=int, default=0, help="show that many false alarms")
    parser.add_argument("--out", type=pathlib.Path, help="keep findings, units and log here")
    options = parser.parse_args()
    options.corpus = options.corpus.resolve()
    files = sorted(options.corpus.glob("*.jsonl.gz"))
    if not files:
        raise SystemExit(f"no *.jsonl.gz in {options.corpus}")
    with Servers() as scratch:
        out = (options.out or scratch.dir / "out").resolve()
        out.mkdir(parents=True, exist_ok=True)
        known = texts(options.replay.resolve(), files, out)
        options.pgsluice = options.pgsluice.resolve()
        if options.offline or options.offline_only:
            print("Simulated clock")
            score(options, files, out / "findings.jsonl", out / "units.jsonl")
            corpus_advice.score(options.corpus, files, out / "bursts.jsonl", out / "units.jsonl", known)
            if options.offline_only:
                return 0
        print("Through pgsluice")
        return 0 if live(options, files, known, out) >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
