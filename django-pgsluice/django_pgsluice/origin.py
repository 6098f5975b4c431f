"""Who is asking, and how that is written behind a statement."""

import itertools
import os
import re
from contextvars import ContextVar
from urllib.parse import quote

#: The origin of what runs now; None outside requests, tasks and commands.
current = ContextVar("django_pgsluice", default=None)

#: Longer values are cut: the whole comment must stay below 1 KiB to be read.
LONGEST = 128

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")

_numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))


def new_id():
    """Differs between requests of all processes of a machine, and costs next to nothing."""
    return f"{os.getpid():x}-{next(_numbers):x}"


def comment(tags):
    """``/*key='value',...*/``; empty without tags."""
    pairs = [
        f"{quote(key, safe='')}='{quote(str(value)[:LONGEST].encode('ascii', 'replace'), safe='')}'"
        for key, value in sorted(tags.items())
        if value
    ]
    return f" /*{','.join(pairs)}*/" if pairs else ""


class Origin:
    """A task, a command, or (see below) a request. Its comments are made once, when first needed."""

    def __init__(self, place, ids=None, outer=None):
        self.place = place  # {"route": ..., "controller": ...} or {"job": ...}: the same for many
        self.ids = ids or {}  # {"request_id": ..., "traceparent": ...}: this one's
        self.outer = outer
        self._made = {}

    def suffix(self, ids, formatted):
        """The comment with or without ids; `formatted`: for a driver that reads ``%`` as its own."""
        key = (ids, formatted)
        made = self._made.get(key)
        if made is None:
            made = comment({**self.place, **self.ids} if ids else self.place)
            made = self._made[key] = made.replace("%", "%%") if formatted else made
        return made


class RequestOrigin(Origin):
    """A request: its view is known once the URL is resolved, which early middleware does not wait for."""

    def __init__(self, request):
        outer = current.get()
        # One that was never finished is nobody's outer: they would pile up.
        outer = outer.outer if isinstance(outer, RequestOrigin) else outer
        super().__init__({}, {"request_id": new_id()}, outer)
        self.request = request
        traceparent = request.META.get("HTTP_TRACEPARENT", "")
        if TRACEPARENT.match(traceparent):
            self.ids["traceparent"] = traceparent

    def suffix(self, ids, formatted):
        match = self.request and self.request.resolver_match
        if match:
            self.place = {"route": match.route, "controller": match.view_name}
            self.request = None
            self._made.clear()
        return super().suffix(ids, formatted)


def tag(execute, sql, params, many, context):
    """Django's execute wrapper: adds the comment of the current origin, if any."""
    origin = current.get()
    if origin is not None:
        try:
            sql = tagged(sql, params, many, context["connection"], origin)
        except Exception:  # noqa: BLE001  the query counts, not its comment
            pass
    return execute(sql, params, many, context)


def tagged(sql, params, many, connection, origin):
    # As the sqlcommenter specification wants it: a statement with a comment of its own stays as it is. So do composed
    # statements (psycopg.sql) and bytes.
    if not isinstance(sql, str) or not sql or "/*" in sql or "--" in sql:
        return sql
    # psycopg prepares texts it sees often. With an id in it each text would be new.
    prepares = getattr(connection.connection, "prepare_threshold", None) is not None
    return sql + origin.suffix(not prepares, many or params is not None)


def watch(connection, **_):
    """Adds the wrapper to a connection, once. First in the list: `execute_wrapper()` takes off the last on its way out."""
    if connection.vendor == "postgresql" and tag not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, tag)
