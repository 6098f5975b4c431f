"""A plain Django project. To put pgsluice in between, only HOST and PORT of the database change."""

import os
import pathlib
import sys

BASE_DIR = pathlib.Path(__file__).resolve().parent.parent
SECRET_KEY = "of a demo that listens on this machine alone"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

# The count is for the demo's table only. django-pgsluice tells pgsluice the view; it finds N+1 queries without it too.
MIDDLEWARE = ["shop.count.QueryCount"]
if os.environ.get("SHOP_TAGS") == "1":
    sys.path.append(str(BASE_DIR.parent / "django-pgsluice"))
    INSTALLED_APPS.append("django_pgsluice")
    MIDDLEWARE.insert(0, "django_pgsluice.Middleware")

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("SHOP_DB_HOST", "127.0.0.1"),
        "PORT": os.environ.get("SHOP_DB_PORT", "6432"),
        "NAME": "app",
        "USER": "app",
        "PASSWORD": "secret",
        # One connection a worker, kept for ever: the hardest case for telling requests apart, and the usual one.
        "CONN_MAX_AGE": None,
    }
}
