"""Names the route to the database in a trailing comment of every query, in the sqlcommenter format.

`google-cloud-sqlcommenter` and OpenTelemetry's Django instrumentation write the same comment; these lines are all
that pgsluice needs.
"""

from urllib.parse import quote

from django.db import connection


class RouteTags:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        def tagged(execute, sql, params, many, context):
            match = request.resolver_match
            if match:
                # With parameters the driver reads % as its own: doubled, it arrives single.
                comment = f"/*framework='django',route='{quote(match.route)}'*/".replace("%", "%%" if params else "%")
                sql = f"{sql} {comment}"
            return execute(sql, params, many, context)

        with connection.execute_wrapper(tagged):
            return self.get_response(request)
