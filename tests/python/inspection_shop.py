"""Run by test_inspection.py in the demo's environment: asks for views of the shop, then for visits by page.

With a file as argument it applies the migration that stands there instead: the code of a cause.
"""

import pathlib
import sys

import django

django.setup()

from django.db import connection, migrations, models  # noqa: E402
from django.db.migrations.loader import MigrationLoader  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from django.urls import resolve  # noqa: E402

from shop.models import Visit  # noqa: E402

if len(sys.argv) > 1:
    names = {"models": models, "migrations": migrations}
    # As a migration file has it: what stands before is the model's.
    exec(pathlib.Path(sys.argv[1]).read_text().partition("# its migration")[2].partition("\n")[2], names)
    migration = names["Migration"]("0002_advised", "shop")
    with connection.schema_editor(atomic=migration.atomic) as editor:
        migration.apply(MigrationLoader(connection).project_state(), editor)
else:
    for _ in range(3):
        for path in ["/fk/", "/reverse_fk/", "/m2m/", "/one_to_one/", "/count/"]:
            match = resolve(path)
            match.func(RequestFactory().get(path), *match.args, **match.kwargs)
            connection.close()
    for number in range(30):
        list(Visit.objects.filter(page=f"/page/{number}").values_list("id"))
