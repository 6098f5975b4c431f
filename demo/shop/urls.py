from django.urls import path

from . import views
from .routes import BOOK, INNOCENT, PAIRS

urlpatterns = [path("", views.index)]
for pair in PAIRS:
    urlpatterns.append(path(f"{pair.name}/", getattr(views, pair.name)))
    urlpatterns.append(path(f"{pair.name}/mended/", getattr(views, f"{pair.name}_mended")))
urlpatterns += [path(f"{name}/", getattr(views, name)) for name in INNOCENT]
urlpatterns.append(path(BOOK, views.book))
