import asyncio
import contextvars
import threading

from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.decorators import sync_and_async_middleware

from .models import Book

#: Two requests meet here, so that they are under way at the same time.
barrier = threading.Barrier(2)
met = asyncio.Event()
early_sent = []


def own_text(using=connection):
    """The text of this very statement as the server got it."""
    with using.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        return cursor.fetchone()[0]


@sync_and_async_middleware
def early(get_response):
    """A middleware that asks the database before there is a view."""
    if asyncio.iscoroutinefunction(get_response):
        return get_response

    def middleware(request):
        if "early" in request.GET:
            early_sent.append(own_text())
        return get_response(request)

    return middleware


def sent(request, number=0):
    return HttpResponse(own_text())


async def sent_later(request, name):
    first = await sync_to_async(own_text)()
    if name == "first":
        await asyncio.wait_for(met.wait(), 30)
    else:
        met.set()
    return HttpResponse(first + "\n" + await sync_to_async(own_text)())


def meet(request, name):
    first = own_text()
    barrier.wait(30)
    return HttpResponse(first + "\n" + own_text())


def stream(request):
    return StreamingHttpResponse(own_text() + "\n" for _ in range(2))


def second(request):
    """A connection that is opened in the middle of a request, in a thread of its own."""
    texts = []

    def work():
        texts.append(own_text(connections["second"]))
        connections["second"].close()

    thread = threading.Thread(target=contextvars.copy_context().run, args=[work])
    thread.start()
    thread.join()
    return HttpResponse(texts[0])


def authors(request):
    return HttpResponse(", ".join(book.author.name for book in Book.objects.order_by("id")))
