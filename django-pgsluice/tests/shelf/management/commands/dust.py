from django.core.management.base import BaseCommand
from shelf.views import own_text


class Command(BaseCommand):
    def handle(self, **options):
        return own_text()
