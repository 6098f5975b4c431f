"""django-pgsluice against a real PostgreSQL through pgsluice. Run by tests/python/test_django_pgsluice.py, which starts
both and sets SHELF_PORT and SHELF_LOG (pgsluice's log, JSON)."""

import asyncio
import json
import os
import pathlib
import re
import sys
import threading
import time
import unittest
from unittest import mock
from urllib.parse import unquote

TESTS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
os.environ["DJANGO_SETTINGS_MODULE"] = "shelf.settings"

import django  # noqa: E402

django.setup()

from celery import shared_task  # noqa: E402
from celery.app import default_app  # noqa: E402,F401
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402
from django_pgsluice import origin  # noqa: E402
from shelf import views  # noqa: E402
from shelf.models import Author, Book  # noqa: E402

PSYCOPG3 = "prepared" in connections.databases
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def setUpModule():
    with connection.schema_editor() as editor:
        for model in (Author, Book):
            editor.create_model(model)
    authors = Author.objects.bulk_create(Author(name=f"author {number}") for number in range(30))
    Book.objects.bulk_create(Book(title=f"100% {author.name}", author=author) for author in authors)


def tearDownModule():
    with connection.schema_editor() as editor:
        for model in (Book, Author):
            editor.delete_model(model)
    connections.close_all()


def tags(text):
    """The tags of a statement's comment, decoded; none without."""
    found = re.search(r"/\*(.*)\*/$", text.strip())
    return {key: unquote(value) for key, value in re.findall(r"([\w%]+)='([^']*)'", found[1])} if found else {}


def get(path, **headers):
    return Client().get(path, **headers).content.decode()


class Requests(unittest.TestCase):
    def test_a_statement_tells_pattern_view_request_and_trace(self):
        found = tags(get("/sent/17/", HTTP_TRACEPARENT=TRACE))
        self.assertEqual(found.pop("traceparent"), TRACE)
        self.assertTrue(found.pop("request_id"))
        self.assertEqual(found, {"route": "sent/<int:number>/", "controller": "sent"})
        self.assertEqual(tags(get("/old/2024/"))["route"], r"^old/(?P<number>\d{4})/$")
        self.assertEqual(tags(get("/"))["controller"], "home")

    def test_a_traceparent_that_is_none_is_left_out(self):
        for odd in ("x", "00-" + "0" * 32 + "'*/", TRACE + "\n"):
            self.assertNotIn("traceparent", tags(get("/", HTTP_TRACEPARENT=odd)))

    def test_requests_have_ids_of_their_own_and_nothing_stays_behind(self):
        ids = {tags(get("/"))["request_id"] for _ in range(5)}
        self.assertEqual(len(ids), 5)
        self.assertEqual(tags(views.own_text()), {})

    def test_early_middleware_is_tagged_before_the_view_is_known(self):
        found = tags(get("/sent/1/?early"))
        early = tags(views.early_sent.pop())
        self.assertEqual(early, {"request_id": found["request_id"]})

    def test_threads_do_not_mix(self):
        texts = {}

        def ask(name):
            texts[name] = get(f"/meet/{name}/")
            connections.close_all()

        threads = [threading.Thread(target=ask, args=[name]) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = [{tags(text)["request_id"] for text in texts[name].splitlines()} for name in ("one", "two")]
        self.assertEqual([len(found) for found in ids], [1, 1])
        self.assertNotEqual(*ids)

    def test_coroutines_do_not_mix(self):
        async def ask():
            views.met = asyncio.Event()
            clients = [AsyncClient().get(f"/later/{name}/") for name in ("first", "other")]
            return [answer.content.decode() for answer in await asyncio.gather(*clients)]

        first, other = asyncio.run(ask())
        ids = [{tags(text)["request_id"] for text in texts.splitlines()} for texts in (first, other)]
        self.assertEqual([len(found) for found in ids], [1, 1])
        self.assertNotEqual(*ids)
        self.assertEqual(tags(first)["route"], "later/<slug:name>/")
        self.assertEqual(tags(asyncio.run(self.sync_view()))["controller"], "sent")

    async def sync_view(self):
        return (await AsyncClient().get("/sent/3/")).content.decode()

    def test_a_stream_is_tagged_to_its_end_and_not_beyond(self):
        response = Client().get("/stream/")
        lines = b"".join(response.streaming_content).decode().splitlines()
        response.close()
        self.assertEqual([tags(line)["controller"] for line in lines], ["stream"] * 2)
        self.assertEqual(tags(views.own_text()), {})

    def test_a_connection_opened_later_is_tagged(self):
        self.assertEqual(tags(get("/second/"))["controller"], "second")


class Jobs(unittest.TestCase):
    def test_a_task_tells_name_id_and_trace_and_gives_the_place_back(self):
        @shared_task(name="shelf.sort")
        def sort():
            return views.own_text()

        found = tags(sort.apply(task_id="task-1", headers={"traceparent": TRACE}).get())
        self.assertEqual(found, {"job": "shelf.sort", "task_id": "task-1", "traceparent": TRACE})
        token = origin.current.set(origin.Origin({"job": "outer"}))
        sort.apply(task_id="task-2")
        self.assertEqual(tags(views.own_text()), {"job": "outer"})
        origin.current.reset(token)

    def test_a_command_tells_its_name(self):
        with open(os.devnull, "w") as nowhere:
            found = tags(call_command("dust", stdout=nowhere))
        self.assertEqual(found, {"job": "dust"})
        self.assertEqual(tags(views.own_text()), {})


class Statements(unittest.TestCase):
    """Whatever a statement looks like, it does what it did without us."""

    def setUp(self):
        place = {"route": "a/<int:b>/%s", "controller": "it's"}
        token = origin.current.set(origin.Origin(place, {"request_id": "r1"}))
        self.addCleanup(origin.current.reset, token)
        self.sent = []

        def record(execute, sql, params, many, context):
            self.sent.append(sql)
            return execute(sql, params, many, context)

        recording = connection.execute_wrapper(record)
        connection.ensure_connection()
        recording.__enter__()
        self.addCleanup(recording.__exit__, None, None, None)

    def rows(self, sql, *params):
        with connection.cursor() as cursor:
            cursor.execute(sql, *params)
            return cursor.fetchall()

    def test_percent_signs_arrive_as_they_should(self):
        expected = "/*controller='it%27s',request_id='r1',route='a%2F%3Cint%3Ab%3E%2F%25s'*/"
        for sql, params in (("SELECT '%', query FROM pg_stat_activity WHERE pid = pg_backend_pid()", []),
                            ("SELECT '%', query FROM pg_stat_activity WHERE pid = pg_backend_pid()", [None]),
                            ("SELECT '%%', query FROM pg_stat_activity WHERE pid = pg_backend_pid()", [()]),
                            ("SELECT '%%', query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND 1 = %s", [(1,)])):
            ((percent, text),) = self.rows(sql, *params)
            self.assertEqual(percent, "%")
            self.assertTrue(text.endswith(expected), text)
        self.assertEqual(self.rows("SELECT 1 WHERE 'a%%b' LIKE 'a%%b' AND 2 = %(two)s", {"two": 2}), [(1,)])
        self.assertEqual(Book.objects.filter(title__contains="100%").count(), 30)

    def test_executemany(self):
        with connection.cursor() as cursor, transaction.atomic():
            cursor.executemany("INSERT INTO shelf_author (name) VALUES (%s)", [("many 1%",), ("many 2%s",)])
            names = Author.objects.filter(name__startswith="many").order_by("name").values_list("name", flat=True)
            self.assertEqual(list(names), ["many 1%", "many 2%s"])
            transaction.set_rollback(True)

    def test_cursors_on_the_server(self):
        self.assertEqual(len(list(Book.objects.iterator(chunk_size=7))), 30)
        with transaction.atomic():
            self.assertEqual(len(list(Book.objects.order_by("id").iterator(chunk_size=7))), 30)
        self.assertTrue(all(tags(sql.replace("%%", "%"))["request_id"] == "r1" for sql in self.sent), self.sent)

    def test_copy(self):
        with connection.cursor() as cursor, transaction.atomic():
            if PSYCOPG3:
                with cursor.copy("COPY shelf_author (name) FROM STDIN") as copy:
                    copy.write_row(["copied"])
            else:
                import io

                cursor.copy_expert("COPY shelf_author (name) FROM STDIN", io.StringIO("copied\n"))
            self.assertTrue(Author.objects.filter(name="copied").exists())
            transaction.set_rollback(True)

    def test_comments_of_the_application_stay_as_they_are(self):
        for sql in ("/*+ SeqScan(a) */ SELECT 1", "SELECT 1 /* mine */", "SELECT 1 -- mine", "SELECT '/*' "):
            self.rows(sql)
            self.assertEqual(self.sent[-1], sql)
        self.rows("SELECT 1;")
        self.assertIn("request_id='r1'", self.sent[-1])

    @unittest.skipUnless(PSYCOPG3, "psycopg 3 has statements without text")
    def test_composed_statements(self):
        from psycopg import sql

        self.assertEqual(self.rows(sql.SQL("SELECT {}").format(sql.Literal("a%"))), [("a%",)])

    def test_what_goes_wrong_breaks_no_query(self):
        with mock.patch.object(origin.Origin, "suffix", side_effect=RuntimeError):
            self.assertEqual(self.rows("SELECT %s", ["as it was"]), [("as it was",)])

    def test_connections_opened_inside_a_wrapper_keep_theirs_and_ours(self):
        other = connections["second"]
        other.close()
        other.execute_wrappers.clear()
        with other.execute_wrapper(lambda execute, *args: execute(*args)):
            self.assertEqual(tags(views.own_text(other))["request_id"], "r1")
        self.assertEqual(other.execute_wrappers, [origin.tag])
        other.close()
        other.connect()
        self.assertEqual(other.execute_wrappers, [origin.tag])
        other.close()


class Behind(unittest.TestCase):
    """What pgsluice makes of it."""

    def test_a_finding_names_the_view(self):
        for _ in range(3):
            Client().get("/shop/authors/")
        log = pathlib.Path(os.environ["SHELF_LOG"])

        def finding():
            records = (json.loads(line) for line in log.read_text().splitlines() if '"finding"' in line)
            return next((record for record in records if record["kind"] == "n_plus_one"), None)

        end = time.monotonic() + 30
        while not finding() and time.monotonic() < end:
            time.sleep(0.05)
        found = finding()
        self.assertEqual((found["route"], found["confidence"], found["n"]), ("shop/authors/", "high", 30))
        self.assertIn('select_related("author")', found["advice"])

    @unittest.skipUnless(PSYCOPG3, "psycopg2 prepares nothing")
    def test_prepared_statements_carry_no_id_and_are_shared_by_views(self):
        own = connections["prepared"]
        sql = "SELECT %s::int, query FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        texts = []
        for place in ("one/", "two/"):
            token = origin.current.set(origin.Origin({"route": place}, {"request_id": "r1"}))
            with own.cursor() as cursor:
                cursor.execute(sql, [1])
                texts.append(cursor.fetchone()[1])
            origin.current.reset(token)
        self.assertEqual(len(texts), 2)
        self.assertNotIn("request_id", "".join(texts))
        with own.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%::int, ' || 'query FROM%%'")
            self.assertEqual(cursor.fetchone(), (1,), "one statement on the server for both comments")
        own.close()


if __name__ == "__main__":
    unittest.main()
