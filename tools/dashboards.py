#!/usr/bin/env python3
"""Writes Grafana's dashboards (deploy/grafana/*.json) from the table below; --check says whether they are as written."""

import json
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "deploy" / "grafana"
HERE = 'job=~"$job",database=~"$database"'
ALL = 'job=~"$job"'
RATE = "[$__rate_interval]"


def rate(metric, by="", labels=HERE):
    return f"sum{by and f' by ({by}) '}(rate({metric}{{{labels}}}{RATE}))"


def quantile(q, metric, by="", labels=HERE):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(metric + '_bucket', by, labels)})"


def total(metric, by="", labels=HERE):
    return f"sum{by and f' by ({by}) '}({metric}{{{labels}}})"


def graph(title, unit, *queries, about=""):
    return ("timeseries", title, unit, queries, about)


def stat(title, unit, *queries, about=""):
    return ("stat", title, unit, queries, about)


def table(title, unit, *queries, about=""):
    return ("table", title, unit, queries, about)


POOL = "database, user"
QUERY = "pgsluice_query_duration_seconds"
INFO = f'group by (fingerprint, database, summary) (pgsluice_fingerprint_info{{{HERE}}})'
FINDING = f'group by (finding, database, kind, relation, table, route) (pgsluice_nplusone_finding_info{{{HERE}}})'


def named(metric):
    """The ten greatest rates of statements, with what they are."""
    return (f"topk(10, {rate(metric, 'fingerprint, database')} * on (fingerprint, database) "
            f"group_left (summary) {INFO})")


DASHBOARDS = {
    "overview": ("pgsluice: overview", [
        stat("Statements a second", "ops", (rate(QUERY + "_count"), "")),
        stat("p95 of a statement", "s", (quantile(0.95, QUERY), "")),
        stat("Clients that wait", "short", (total("pgsluice_pool_waiting_clients"), "")),
        stat("Time N+1 queries waste", "percentunit",
             (f'{rate("pgsluice_nplusone_avoidable_seconds_total")} / {rate(QUERY + "_sum")}', ""),
             about="Beside the time in the database, at least; round trips count, too."),
        graph("Statements a second by kind", "ops", (rate(QUERY + "_count", "operation"), "{{operation}}")),
        graph("Time of a statement", "s", *[(quantile(q, QUERY), n) for q, n in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]),
        graph("Failed statements a second", "ops", (rate("pgsluice_query_errors_total", "sqlstate_class"), "{{sqlstate_class}}")),
        graph("Clients", "short", (total("pgsluice_client_connections", "state"), "{{state}}")),
        graph("Transactions a second", "ops", (rate("pgsluice_transactions_total", "outcome"), "{{outcome}}")),
        graph("Statements of a request", "short",
              (f'{rate("pgsluice_unit_queries_sum")} / {rate("pgsluice_unit_queries_count")}', "mean"),
              (quantile(0.95, "pgsluice_unit_queries"), "p95")),
    ]),
    "pool": ("pgsluice: pools", [
        graph("Server connections", "short", (total("pgsluice_pool_connections", POOL + ", state"), "{{database}}/{{user}} {{state}}"),
              (total("pgsluice_pool_connections_max", POOL), "{{database}}/{{user}} at most")),
        graph("Mean number of busy servers", "short", (rate("pgsluice_pool_checkout_seconds_sum", POOL), "{{database}}/{{user}}"),
              about="A pool twice this is a good start."),
        graph("Clients that wait", "short", (total("pgsluice_pool_waiting_clients", POOL), "{{database}}/{{user}}")),
        graph("Wait for a server", "s", *[(quantile(q, "pgsluice_pool_wait_seconds", POOL), "{{database}}/{{user}} " + n)
                                          for q, n in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]),
        graph("Clients that gave up", "ops", (rate("pgsluice_pool_timeouts_total", POOL + ", reason"), "{{database}}/{{user}} {{reason}}")),
        graph("Pinned clients", "short", (total("pgsluice_pool_pinned_clients", POOL), "{{database}}/{{user}}")),
        graph("New pins a second", "ops", (rate("pgsluice_pool_pins_total", "reason"), "{{reason}}")),
        graph("Idle in transaction", "short", (rate("pgsluice_transaction_idle_seconds_total", "database"), "{{database}} (mean)"),
              (total("pgsluice_clients_idle_in_transaction", "database"), "{{database}} now")),
        graph("Oldest transaction", "s",
              (f'(time() - (pgsluice_oldest_transaction_start_timestamp_seconds{{{HERE}}} > 0)) '
               f'or 0 * pgsluice_oldest_transaction_start_timestamp_seconds{{{HERE}}}', "{{database}}")),
        graph("Server connections opened a second", "ops", (rate("pgsluice_server_connects_total", "database, result"), "{{database}} {{result}}")),
        graph("Prepares: clients asked, servers did", "ops", (rate("pgsluice_pool_client_parses_total"), "asked"),
              (rate("pgsluice_pool_server_parses_total"), "done")),
    ]),
    "queries": ("pgsluice: queries", [
        graph("Time in the database by statement", "s", (named("pgsluice_fingerprint_seconds_total"), "{{summary}} {{fingerprint}}"),
              about="Seconds each second: 1 is one server busy all the time."),
        graph("Calls a second by statement", "ops", (named("pgsluice_fingerprint_calls_total"), "{{summary}} {{fingerprint}}")),
        graph("Rows a second by statement", "short", (named("pgsluice_fingerprint_rows_total"), "{{summary}} {{fingerprint}}")),
        graph("p95 by kind", "s", (quantile(0.95, QUERY, "operation"), "{{operation}}")),
        graph("Slow statements a second", "ops", (rate("pgsluice_slow_queries_total", "database"), "{{database}}")),
        graph("Rows of a SELECT", "short", (quantile(0.95, "pgsluice_query_rows", "database"), "{{database}} p95")),
        graph("Bytes of an answer", "bytes", (quantile(0.95, "pgsluice_query_response_bytes", "database"), "{{database}} p95")),
        graph("Tables read and written", "ops", (f'topk(10, {rate("pgsluice_table_statements_total", "table, access")})', "{{table}} {{access}}")),
        graph("Transactions", "s", (quantile(0.95, "pgsluice_transaction_duration_seconds", "database"), "{{database}} p95")),
    ]),
    "nplusone": ("pgsluice: N+1", [
        stat("Avoidable seconds an hour", "s", (f'3600 * {rate("pgsluice_nplusone_avoidable_seconds_total")}', ""), about="At least."),
        stat("Statements in loops", "percentunit", (f'{rate("pgsluice_nplusone_queries_total")} / {rate(QUERY + "_count")}', "")),
        graph("Avoidable time by kind", "s", (rate("pgsluice_nplusone_avoidable_seconds_total", "kind"), "{{kind}}")),
        graph("Bursts a second", "ops", (rate("pgsluice_nplusone_bursts_total", "kind, confidence"), "{{kind}} {{confidence}}")),
        graph("Statements of a burst", "short", (quantile(0.5, "pgsluice_nplusone_burst_size"), "p50"),
              (quantile(0.95, "pgsluice_nplusone_burst_size"), "p95")),
        graph("The same read again", "ops", (rate("pgsluice_repeated_reads_total", "database"), "{{database}}")),
        table("Findings by avoidable seconds so far", "s",
              (f'topk(20, sum by (finding) (pgsluice_nplusone_finding_avoidable_seconds_total{{{ALL}}}) * on (finding) '
               f'group_left (database, kind, relation, table, route) {FINDING})', ""),
              about="What to change: pgsluice report, or SHOW NPLUSONE."),
    ]),
    "fleet": ("pgsluice: fleet", [
        table("Versions", "short", (f"sum by (instance, version) (pgsluice_build_info{{{ALL}}})", "")),
        graph("Statements a second", "ops", (rate("pgsluice_pool_queries_total", "instance"), "{{instance}}")),
        graph("Clients", "short", (total("pgsluice_client_connections", "instance"), "{{instance}}")),
        graph("Part of max_client_conn", "percentunit",
              (f'{total("pgsluice_client_connections", "instance", ALL)} / {total("pgsluice_client_connections_max", "instance", ALL)}', "{{instance}}")),
        graph("Logins a second", "ops", (rate("pgsluice_client_connects_total", "instance, result", ALL), "{{instance}} {{result}}")),
        graph("p95 of a login", "s", (quantile(0.95, "pgsluice_client_login_seconds", "instance", ALL), "{{instance}}")),
        graph("CPU", "percentunit", (f"rate(process_cpu_seconds_total{{{ALL}}}{RATE})", "{{instance}}")),
        graph("Resident memory", "bytes", (f"process_resident_memory_bytes{{{ALL}}}", "{{instance}}")),
        graph("Part of file descriptors", "percentunit", (f"process_open_fds{{{ALL}}} / process_max_fds{{{ALL}}}", "{{instance}}")),
        graph("Draining", "short", (f"pgsluice_draining{{{ALL}}}", "{{instance}}")),
        graph("Cost of insight", "percentunit", (rate("pgsluice_insight_seconds_total", "instance", ALL), "{{instance}}"),
              about="CPU seconds each second in the detector."),
        graph("Memory of insight", "bytes", (total("pgsluice_insight_memory_bytes", "part", ALL), "{{part}}")),
    ]),
}


def panel(number, place, spec):
    kind, title, unit, queries, about = spec
    targets = []
    for ref, (expr, legend) in zip("ABCDEF", queries):
        target = {"refId": ref, "expr": expr, "legendFormat": legend or "__auto",
                  "datasource": {"type": "prometheus", "uid": "$datasource"}}
        if kind == "table":
            target |= {"format": "table", "instant": True}
        targets.append(target)
    out = {"id": number, "type": kind, "title": title, "description": about, "gridPos": place, "targets": targets,
           "datasource": {"type": "prometheus", "uid": "$datasource"},
           "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {}}
    if kind == "timeseries":
        out["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return out


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "$datasource"},
            "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def dashboard(name, title, specs):
    panels, x, y = [], 0, 0
    for number, spec in enumerate(specs, 1):
        width, height = {"stat": (6, 4), "table": (24, 9)}.get(spec[0], (12, 8))
        if x + width > 24:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(panel(number, {"x": x, "y": y, "w": width, "h": height}, spec))
        x += width
    variables = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                 variable("job", "Job", "label_values(pgsluice_build_info, job)")]
    if "$database" in json.dumps(panels):
        variables.append(variable("database", "Database", 'label_values(pgsluice_pool_connections_max{job=~"$job"}, database)'))
    return {"uid": f"pgsluice-{name}", "title": title, "tags": ["pgsluice"], "schemaVersion": 39, "version": 1, "editable": True,
            "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "templating": {"list": variables}, "panels": panels,
            "links": [{"type": "dashboards", "tags": ["pgsluice"], "title": "pgsluice", "asDropdown": True, "keepTime": True}]}


def main():
    old = []
    for name, (title, specs) in DASHBOARDS.items():
        path, text = OUT / f"{name}.json", json.dumps(dashboard(name, title, specs), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            old.append(path.name)
    if old:
        sys.exit(f"run tools/dashboards.py: {', '.join(old)} are not as it writes them")


main()
