import os

from django.urls import path

from . import views
from .routes import BOOK, INNOCENT, PAIRS

urlpatterns = [path("", views.index)]
# The deployment with the mends: each route answers as its twin does.
MENDED = os.environ.get("SHOP_MENDED") == "1"
for pair in PAIRS:
    urlpatterns.append(path(f"{pair.name}/", getattr(views, f"{pair.name}_mended" if MENDED else pair.name)))
    urlpatterns.append(path(f"{pair.name}/mended/", getattr(views, f"{pair.name}_mended")))
urlpatterns += [path(f"{name}/", getattr(views, name)) for name in INNOCENT]
urlpatterns.append(path(BOOK, views.book))
