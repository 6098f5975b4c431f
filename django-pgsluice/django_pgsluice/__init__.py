"""Tells the database which view, task or command a query comes from.

Each statement gets a comment in the sqlcommenter format (https://google.github.io/sqlcommenter/spec/)::

    SELECT ... /*controller='book',request_id='1f3-9c2a',route='books%2F%3Cint%3Apk%3E%2F'*/

Who is asking is kept in a context variable, so threads and coroutines do not mix. Nothing here may break a query: what
goes wrong leaves the statement as it is.
"""

from .middleware import Middleware

__all__ = ["Middleware"]
