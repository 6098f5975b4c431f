"""What each view is, for urls.py and for run.py (which imports this file without Django).

`kinds`, `table`: what pgsluice must find: the finding's kind (any of these) and the table of the repeated query (any
of these). `mend`: what Django offers.
"""

from typing import NamedTuple


class Pair(NamedTuple):
    name: str
    what: str
    kinds: tuple
    tables: tuple
    mend: str


READ = ("n_plus_one", "chain")

PAIRS = [
    Pair("fk", "book.author for each book", READ, ("shop_author",), 'select_related("author")'),
    Pair("reverse_fk", "author.books.all() for each author", READ, ("shop_book",), 'prefetch_related("books")'),
    Pair("m2m", "book.tags.all() for each book", READ, ("shop_tag", "shop_book_tags"), 'prefetch_related("tags")'),
    Pair("count", "publisher.books.count() for each", READ, ("shop_book",), 'annotate(Count("books"))'),
    Pair("exists", "orders.exists() for each customer", READ, ("shop_order",), "annotate(Exists(...))"),
    Pair("latest", "reviews...first() for each book", READ, ("shop_review",), "annotate(Subquery(...[:1]))"),
    Pair("get_loop", "Book.objects.get() in a loop", READ, ("shop_book",), "in_bulk(ids)"),
    Pair("chain", "order.lines, then line.book", READ, ("shop_orderline", "shop_book"), 'prefetch_related("lines__book")'),
    Pair("one_to_one", "customer.profile for each", READ, ("shop_profile",), 'select_related("profile")'),
    Pair("generic_fk", "note.subject for each note", READ, ("shop_book", "shop_author", "shop_publisher"), 'prefetch_related("subject")'),
    Pair("deferred", "a column that only() left out", READ, ("shop_book",), 'only("title", "blurb")'),
    Pair("create_loop", "create() in a loop", ("write_loop",), ("shop_visit",), "bulk_create(...)"),
    Pair("save_loop", "save() in a loop", ("write_loop",), ("shop_profile",), "update(F(...))"),
    Pair("duplicates", "the same get() 15 times", ("duplicate", "n_plus_one"), ("shop_tag",), "ask once"),
]

INNOCENT = ["pages", "keyset", "iterator", "bulk_create", "prefetch_chunks", "polling", "queue", "dashboard"]

# Asked for with a key: /book/1/, /book/2/...
BOOK = "book/<int:pk>/"


def routes():
    """Every route as Django writes it, and whether it holds an N+1."""
    table = {}
    for pair in PAIRS:
        table[f"{pair.name}/"] = True
        table[f"{pair.name}/mended/"] = False
    for name in INNOCENT:
        table[f"{name}/"] = False
    table[BOOK] = False
    return table
