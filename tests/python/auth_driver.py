"""Logs in with a driver of Python as tests/auth_matrix.rs says: auth_driver.py psycopg|asyncpg|pg8000.

Each line of the input is a JSON object (user, password, dbname, port, socket, ca, cert, key, plus, sql), each line of the
output what came of it: {"ok": text} or {"error": text}.
"""

import asyncio
import json
import ssl
import sys

HOST, TIMEOUT = "localhost", 30


def context(case):
    """TLS that checks the server's certificate and name; None without TLS."""
    if not case["ca"]:
        return None
    made = ssl.create_default_context(cafile=case["ca"])
    if case["cert"]:
        made.load_cert_chain(case["cert"], case["key"])
    return made


def by_psycopg(case):
    import psycopg
    options = {"host": case["socket"] or HOST, "port": case["port"], "user": case["user"], "password": case["password"],
               "dbname": case["dbname"], "connect_timeout": TIMEOUT, "sslmode": "disable", "sslcert": "/nonexistent"}
    if not case["socket"]:
        options["hostaddr"] = "127.0.0.1"
    if case["ca"]:
        options.update(sslmode="verify-full", sslrootcert=case["ca"])
    if case["cert"]:
        options.update(sslcert=case["cert"], sslkey=case["key"])
    options["channel_binding"] = "require" if case["plus"] else "disable"
    with psycopg.connect(**options) as connection:
        return connection.execute(case["sql"]).fetchone()[0]


def by_asyncpg(case):
    import asyncpg

    async def ask():
        connection = await asyncpg.connect(
            host=case["socket"] or HOST, port=case["port"], user=case["user"], password=case["password"],
            database=case["dbname"], ssl=context(case) or False, timeout=TIMEOUT)
        try:
            return await connection.fetchval(case["sql"])
        finally:
            await connection.close()
    return asyncio.run(ask())


def by_pg8000(case):
    import pg8000.native
    place = {"host": HOST, "port": case["port"]}
    if case["socket"]:
        place = {"unix_sock": f"{case['socket']}/.s.PGSQL.{case['port']}"}
    connection = pg8000.native.Connection(
        case["user"], password=case["password"], database=case["dbname"], ssl_context=context(case) or False,
        timeout=TIMEOUT, **place)
    try:
        return connection.run(case["sql"])[0][0]
    finally:
        connection.close()


def main():
    log_in = {"psycopg": by_psycopg, "asyncpg": by_asyncpg, "pg8000": by_pg8000}[sys.argv[1]]
    for line in sys.stdin:
        try:
            answer = {"ok": log_in(json.loads(line))}
        except Exception as error:  # whatever the driver calls it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
