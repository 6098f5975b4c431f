"""Hooks: every connection, the end of requests, Celery's tasks, management commands."""

import functools

from django.apps import AppConfig
from django.core.management.base import BaseCommand
from django.core.signals import request_finished
from django.db import connections
from django.db.backends.signals import connection_created

from .middleware import finished
from .origin import TRACEPARENT, Origin, current, watch


class PgsluiceConfig(AppConfig):
    name = "django_pgsluice"
    verbose_name = "pgsluice"

    def ready(self):
        connection_created.connect(watch, dispatch_uid="django_pgsluice")
        for connection in connections.all(initialized_only=True):
            watch(connection)
        request_finished.connect(finished, dispatch_uid="django_pgsluice")
        name_commands()
        try:
            from celery.signals import task_postrun, task_prerun
        except Exception:  # noqa: BLE001  no Celery, or one that cannot be imported
            return
        task_prerun.connect(task_begins, weak=False, dispatch_uid="django_pgsluice")
        task_postrun.connect(task_ends, weak=False, dispatch_uid="django_pgsluice")


def task_begins(task_id=None, task=None, **_):
    traceparent = None
    try:
        traceparent = (getattr(task.request, "headers", None) or {}).get("traceparent") or task.request.get("traceparent")
        if not TRACEPARENT.match(traceparent):
            traceparent = None
    except Exception:  # noqa: BLE001
        pass
    name = getattr(task, "name", None)
    current.set(Origin({"job": name}, {"task_id": task_id, "traceparent": traceparent}, outer=current.get()))


def task_ends(task_id=None, **_):
    origin = current.get()
    if origin is not None and origin.ids.get("task_id") == task_id:
        current.set(origin.outer)


def name_commands():
    """Management commands have no signals. They get no id: one may run for days and do many things."""
    execute = BaseCommand.execute
    if hasattr(execute, "django_pgsluice"):
        return

    @functools.wraps(execute)
    def named(self, *args, **options):
        name = type(self).__module__.rpartition(".")[2]
        if current.get() is not None or name == "test":
            return execute(self, *args, **options)
        token = current.set(Origin({"job": name}))
        try:
            return execute(self, *args, **options)
        finally:
            current.reset(token)

    named.django_pgsluice = True
    BaseCommand.execute = named
