"""Views in pairs: one with an N+1 query as it is usually written, and its mended twin; then loops that are no N+1.

The table of all is in routes.py.
"""

import time

from django.core.paginator import Paginator
from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Subquery
from django.http import JsonResponse

from .models import Author, Book, Customer, Job, Note, Order, OrderLine, Profile, Publisher, Review, Tag, Visit


def answer(items):
    return JsonResponse({"items": list(items)})


# === Forward foreign key ===

def fk(request):
    return answer([book.title, book.author.name] for book in Book.objects.order_by("id")[:40])


def fk_mended(request):
    return answer([book.title, book.author.name] for book in Book.objects.select_related("author").order_by("id")[:40])


# === Reverse foreign key ===

def reverse_fk(request):
    return answer([author.name, [book.title for book in author.books.all()]] for author in Author.objects.order_by("id")[:30])


def reverse_fk_mended(request):
    authors = Author.objects.prefetch_related("books").order_by("id")[:30]
    return answer([author.name, [book.title for book in author.books.all()]] for author in authors)


# === Many to many ===

def m2m(request):
    return answer([book.title, [tag.name for tag in book.tags.all()]] for book in Book.objects.order_by("price", "id")[:25])


def m2m_mended(request):
    books = Book.objects.prefetch_related("tags").order_by("price", "id")[:25]
    return answer([book.title, [tag.name for tag in book.tags.all()]] for book in books)


# === count() for each row ===

def count(request):
    return answer([publisher.name, publisher.books.count()] for publisher in Publisher.objects.all())


def count_mended(request):
    return answer([publisher.name, publisher.n] for publisher in Publisher.objects.annotate(n=Count("books")))


# === exists() for each row ===

def exists(request):
    customers = Customer.objects.order_by("name")[:35]
    return answer([customer.name, customer.orders.filter(state="paid").exists()] for customer in customers)


def exists_mended(request):
    paid = Order.objects.filter(customer=OuterRef("pk"), state="paid")
    return answer([customer.name, customer.paid] for customer in Customer.objects.annotate(paid=Exists(paid)).order_by("name")[:35])


# === The latest of each ===

def latest(request):
    rows = []
    for book in Book.objects.filter(stock__gt=50).order_by("id")[:20]:
        review = book.reviews.order_by("-created").first()
        rows.append([book.title, review.text if review else None])
    return answer(rows)


def latest_mended(request):
    newest = Review.objects.filter(book=OuterRef("pk")).order_by("-created").values("text")[:1]
    books = Book.objects.filter(stock__gt=50).annotate(newest=Subquery(newest)).order_by("id")[:20]
    return answer([book.title, book.newest] for book in books)


# === get() in a loop over ids ===

def get_loop(request):
    ids = OrderLine.objects.filter(quantity=3).order_by("id").values_list("book_id", flat=True)[:22]
    return answer(Book.objects.get(pk=pk).title for pk in ids)


def get_loop_mended(request):
    ids = list(OrderLine.objects.filter(quantity=3).order_by("id").values_list("book_id", flat=True)[:22])
    books = Book.objects.in_bulk(ids)
    return answer(books[pk].title for pk in ids)


# === Two levels ===

def chain(request):
    rows = []
    for order in Order.objects.filter(state="paid").order_by("created")[:12]:
        for line in order.lines.all():
            rows.append([order.pk, line.book.title, line.quantity])
    return answer(rows)


def chain_mended(request):
    orders = Order.objects.filter(state="paid").prefetch_related("lines__book").order_by("created")[:12]
    return answer([order.pk, line.book.title, line.quantity] for order in orders for line in order.lines.all())


# === Reverse one to one ===

def one_to_one(request):
    return answer([customer.name, customer.profile.city] for customer in Customer.objects.order_by("id")[:28])


def one_to_one_mended(request):
    customers = Customer.objects.select_related("profile").order_by("id")[:28]
    return answer([customer.name, customer.profile.city] for customer in customers)


# === Generic foreign key ===

def generic_fk(request):
    return answer([note.text, str(note.subject)] for note in Note.objects.order_by("id")[:36])


def generic_fk_mended(request):
    return answer([note.text, str(note.subject)] for note in Note.objects.prefetch_related("subject").order_by("id")[:36])


# === A column left out by only() ===

def deferred(request):
    return answer([book.title, book.blurb] for book in Book.objects.only("title").order_by("-id")[:26])


def deferred_mended(request):
    return answer([book.title, book.blurb] for book in Book.objects.only("title", "blurb").order_by("-id")[:26])


# === create() in a loop ===

def create_loop(request):
    for customer in Customer.objects.order_by("-id")[:24]:
        Visit.objects.create(customer=customer, page="/create/")
    return answer([24])


def create_loop_mended(request):
    Visit.objects.bulk_create(Visit(customer=customer, page="/create/") for customer in Customer.objects.order_by("-id")[:24])
    return answer([24])


# === save() in a loop ===

def save_loop(request):
    for profile in Profile.objects.filter(customer_id__lte=27).order_by("id"):
        profile.points += 1
        profile.save()
    return answer([27])


def save_loop_mended(request):
    return answer([Profile.objects.filter(customer_id__lte=27).update(points=F("points") + 1)])


# === The same query again and again ===

def duplicates(request):
    # As a template or a helper does that asks for the shop's settings on every line.
    return answer([n, Tag.objects.get(name="tag-1").pk] for n in range(15))


def duplicates_mended(request):
    tag = Tag.objects.get(name="tag-1")
    return answer([n, tag.pk] for n in range(15))


# === No N+1: loops that are as they should be ===

def pages(request):
    """Walks the pages of a list."""
    pages = Paginator(Review.objects.order_by("id"), 50)
    return answer(len(pages.page(number).object_list) for number in range(1, 9))


def keyset(request):
    """Walks a table by key."""
    last, rows = 0, 0
    while True:
        part = list(OrderLine.objects.filter(id__gt=last).order_by("id")[:400])
        if not part:
            return answer([rows])
        last, rows = part[-1].id, rows + len(part)


def iterator(request):
    """A server-side cursor: FETCH after FETCH."""
    return answer([sum(1 for _ in Customer.objects.iterator(chunk_size=100))])


def bulk_create(request):
    """Inserts in batches."""
    with transaction.atomic():
        Visit.objects.bulk_create([Visit(customer_id=1 + n % 1000, page=f"/{n}/") for n in range(600)], batch_size=60)
    return answer([600])


def prefetch_chunks(request):
    """prefetch_related over an iterator: one IN list a chunk."""
    return answer([sum(len(author.books.all()) for author in Author.objects.prefetch_related("books").iterator(chunk_size=50))])


def polling(request):
    """Asks now and then, as a worker does."""
    rows = []
    for _ in range(6):
        rows.append(Job.objects.filter(state="failed").count())
        time.sleep(0.15)
    return answer(rows)


def queue(request):
    """Takes jobs off a queue that others read too."""
    taken = []
    for _ in range(8):
        with transaction.atomic():
            job = Job.objects.select_for_update(skip_locked=True).filter(state="ready").order_by("id").first()
            Job.objects.filter(pk=job.pk).update(state="done")
            taken.append(job.pk)
    return answer(taken)


def dashboard(request):
    """Many different questions, each asked once."""
    numbers = [model.objects.count() for model in (Author, Book, Customer, Order, OrderLine, Publisher, Review, Tag)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
    return answer(numbers)


def book(request, pk):
    """A page that is asked for often, with another key each time, back to back on one connection."""
    reviews = Prefetch("reviews", Review.objects.order_by("-created")[:3], to_attr="newest")
    book = Book.objects.select_related("author", "publisher").prefetch_related(reviews).get(pk=pk)
    return answer([book.title, book.author.name, [review.text for review in book.newest]])


def index(request):
    from .routes import INNOCENT, PAIRS
    return JsonResponse({"n_plus_one": [f"/{pair.name}/" for pair in PAIRS], "mended": [f"/{pair.name}/mended/" for pair in PAIRS],
                         "innocent": [f"/{name}/" for name in INNOCENT]})
