from django.urls import include, path, re_path

from . import views

urlpatterns = [
    path("", views.sent, name="home"),
    path("sent/<int:number>/", views.sent, name="sent"),
    re_path(r"^old/(?P<number>\d{4})/$", views.sent),
    path("later/<slug:name>/", views.sent_later, name="later"),
    path("stream/", views.stream, name="stream"),
    path("second/", views.second, name="second"),
    path("meet/<slug:name>/", views.meet, name="meet"),
    path("shop/", include(([path("authors/", views.authors, name="authors")], "shop"))),
]
