"""What is said about the loops of labelled recordings: the list named, the kind of advice; and, each on its own,
duplicates, write loops and the patterns that must not be reported (jobs, imports, polling, pagination).

The table of what is right: tests/data/corpus_kinds.tsv, by call-site. A finding counts once for each unit it is of.
"""

import collections
import functools
import gzip
import json
import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).resolve().parent.parent / "tests/data/corpus_kinds.tsv"
READS = ("n_plus_one", "chain")
LEVELS = ("medium", "high")
MIN_N = 5
MIN_WRITES = 20


def table():
    """(application, call-site, table) -> (kinds, lists)."""
    rows = (line.split("\t") for line in TABLE.read_text().splitlines() if line and not line.startswith("#"))
    return {(app, site, of): (kinds.split(","), lists.split(",")) for app, site, of, kinds, lists in rows}


def table_of(sql):
    """The table of the outermost FROM."""
    while True:
        flat = re.sub(r"\((?:[^()']|'[^']*')*\)", "", sql)
        if flat == sql:
            break
        sql = flat
    found = re.search(r'FROM "(\w+)"', sql)
    return found.group(1) if found else "?"


def group_of(unit, fingerprint, verdict="true"):
    groups = [g for g in unit["labels"]["nplus1"] if g["fingerprint"] == fingerprint and g["verdict"] == verdict]
    return max(groups, key=lambda group: group["n"], default=None)


def bursts(path, units, ranges, norm):
    """Each burst of medium confidence and more, with the units that have its statement while it ran."""
    for line in open(path):
        burst = json.loads(line)
        if burst["confidence"] not in LEVELS or not burst["sql"]:
            continue
        fingerprint = norm(burst["sql"])
        near = (units[unit] for start, end, unit in ranges[burst["session"]]
                if start <= burst["t_end"] and end >= burst["t_start"])
        yield burst, fingerprint, [unit for unit in near if fingerprint in unit["fingerprints"]]


def score(corpus, files, path, unit_times, texts):
    """Prints all of it. `texts`: a recorded statement of each fingerprint."""
    sys.path.insert(0, str(corpus))
    from ntnorm import norm
    norm = functools.lru_cache(None)(norm)
    units = {}
    for file in files:
        for line in gzip.open(file, "rt", encoding="utf8"):
            unit = json.loads(line)
            unit["fingerprints"] = {norm(query["sql"]) for query in unit["queries"]}
            units[unit["unit_id"]] = unit
    ranges = collections.defaultdict(list)
    for line in open(unit_times):
        one = json.loads(line)
        ranges[one["session"]].append((one["t_start"], one["t_end"], one["unit_id"]))
    known = list(bursts(path, units, ranges, norm))
    loops(known, texts)
    others(units, known)


def loops(known, texts):
    """The list named and the kind of advice, for each true finding."""
    expected, parents, kinds = table(), collections.Counter(), collections.Counter()
    wrong = collections.Counter()
    for burst, fingerprint, near in known:
        found = next(((unit, group) for unit in near if (group := group_of(unit, fingerprint))
                      and group["n"] >= MIN_N), None)
        if burst["kind"] not in READS or not found:
            continue
        unit, group = found
        key = (unit["app"], group["site"].split(":")[-1], table_of(fingerprint))
        right = expected.get(key)
        if not right:
            wrong[("not in the table", *key)] += 1
            continue
        named = table_of(texts.get(burst["parent"], "")) if burst["parent"] else "-"
        somewhere = right[1] != ["-"]
        verdict = ("right" if named in right[1] else "missing" if named == "-" else "wrong")
        parents[(somewhere, verdict)] += 1
        kinds[burst["relation"] in right[0]] += 1
        if verdict != "right":
            wrong[(f"list {verdict}", *key, named)] += 1
        if burst["relation"] not in right[0]:
            wrong[("advice wrong", *key, burst["relation"])] += 1
    have, rest = (sum(n for (s, _), n in parents.items() if s is side) for side in (True, False))
    total = max(1, have + rest)
    print(f"true findings {have + rest}; {have} loop over a list that was read from the database: named "
          f"{parents[True, 'right']} ({parents[True, 'right'] / max(1, have):.0%}), another named {parents[True, 'wrong']}, "
          f"none {parents[True, 'missing']}; {rest} over one from elsewhere: none named {parents[False, 'right']}, "
          f"one named {parents[False, 'wrong']}")
    print(f"advice of the right kind: {kinds[True]} of {have + rest} ({kinds[True] / total:.0%})")
    for what, n in wrong.most_common():
        print(f"  {n:4} " + ", ".join(what))


def others(units, known):
    """Duplicates, write loops, and what must not be reported."""
    hit, false = collections.defaultdict(set), collections.Counter()
    for burst, fingerprint, near in known:
        label = {"duplicate": "duplicates", "write_loop": "writes"}.get(burst["kind"])
        if label:
            labelled = [unit for unit in near if any(g["fingerprint"] == fingerprint for g in unit["labels"][label])]
            hit[label] |= {(unit["unit_id"], fingerprint) for unit in labelled}
            false[label] += not labelled
        elif near and not any(group_of(unit, fingerprint, verdict) for unit in near for verdict in ("true", "doubtful")):
            rejected = [group["class"] for unit in near if (group := group_of(unit, fingerprint, "false"))]
            false["negatives"] += bool(rejected)
            hit["negatives"] |= set(rejected)
    for label, least, fits in (("duplicates", MIN_N, lambda g: g["same_stack"] and not g["in_nplus1_group"]),
                               ("writes", MIN_WRITES, lambda g: True)):
        want = {(unit["unit_id"], group["fingerprint"]) for unit in units.values() for group in unit["labels"][label]
                if group["n"] >= least and fits(group)}
        share = len(want & hit[label]) / max(1, len(want))
        print(f"{label} of {least} and more: {len(want)}, reported {len(want & hit[label])} ({share:.2f}); "
              f"reported without a label {false[label]}")
    classes = collections.Counter(group["class"] for unit in units.values() for group in unit["labels"]["nplus1"]
                                  if group["verdict"] == "false")
    print("not to be reported (" + ", ".join(f"{name} {n}" for name, n in sorted(classes.items())) +
          f"): reported {false['negatives']}" + (f" ({', '.join(sorted(hit['negatives']))})" if hit["negatives"] else ""))
