"""Tells run.py how many queries a response took, and how long: two headers."""

import time

from django.db import connection


class QueryCount:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        queries = 0

        def counted(execute, *call):
            nonlocal queries
            queries += 1
            return execute(*call)

        begin = time.perf_counter()
        with connection.execute_wrapper(counted):
            response = self.get_response(request)
        response["X-Queries"] = str(queries)
        response["X-Milliseconds"] = f"{(time.perf_counter() - begin) * 1000:.1f}"
        return response
