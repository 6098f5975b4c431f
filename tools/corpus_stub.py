#!/usr/bin/env python3
"""The corpus' stubserver.py, made to understand what pgsluice itself asks: parameters are set in one text,
`BEGIN;SELECT set_config(...);COMMIT`, which the stub would take for a BEGIN by its first word and then report an open
transaction that is none.

    corpus_stub.py STUBSERVER.PY [its options]
"""

import asyncio
import pathlib
import sys

path = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path.insert(0, str(path.parent))

import stubserver  # noqa: E402

answer = stubserver.Conn.execute


async def execute(self, sql, simple=True):
    if not (simple and sql.startswith("BEGIN;") and sql.endswith(";COMMIT")):
        return await answer(self, sql, simple)
    done = lambda tag: stubserver.msg(b"C", tag + b"\0")  # noqa: E731
    return [done(b"BEGIN"), stubserver.rowdesc(), done(b"SELECT 0"), done(b"COMMIT")]


stubserver.Conn.execute = execute
try:
    asyncio.run(stubserver.main())
except KeyboardInterrupt:
    pass
