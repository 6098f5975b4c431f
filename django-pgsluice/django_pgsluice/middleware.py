"""Requests, under WSGI and ASGI."""

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from .origin import RequestOrigin, current


class Middleware:
    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        self.answer = self.answer_now
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.answer = self.answer_later

    def __call__(self, request):
        return self.answer(request)

    def answer_now(self, request):
        token = current.set(RequestOrigin(request))
        response = None
        try:
            response = self.get_response(request)
        finally:
            leave(token, response)
        return response

    async def answer_later(self, request):
        token = current.set(RequestOrigin(request))
        response = None
        try:
            response = await self.get_response(request)
        finally:
            leave(token, response)
        return response


def leave(token, response):
    """A streamed response asks on while it is sent: `request_finished` ends it then."""
    if not getattr(response, "streaming", False):
        current.reset(token)


def finished(**_):
    """Receiver of `request_finished`."""
    origin = current.get()
    if isinstance(origin, RequestOrigin):
        current.set(origin.outer)
