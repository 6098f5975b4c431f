"""Settings of the tests: a small application behind pgsluice, its address in SHELF_PORT."""

import os


def database(**options):
    return {
        "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": os.environ["SHELF_PORT"], "NAME": "app",
        "USER": "app", "PASSWORD": "secret", "CONN_MAX_AGE": None, "OPTIONS": options,
    }


DATABASES = {"default": database(), "second": database()}
if os.environ.get("SHELF_DRIVER") == "psycopg2":
    # Django prefers psycopg 3 where both are installed.
    import sys

    sys.modules["psycopg"] = None
else:
    DATABASES["prepared"] = database(prepare_threshold=0, server_side_binding=True)
INSTALLED_APPS = ["django_pgsluice", "shelf"]
MIDDLEWARE = ["django_pgsluice.Middleware", "shelf.views.early"]
ROOT_URLCONF = "shelf.urls"
SECRET_KEY = "of the tests"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
CELERY_TASK_ALWAYS_EAGER = True
