"""A bookshop: a relation of every kind."""

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Publisher(models.Model):
    name = models.CharField(max_length=100)
    city = models.CharField(max_length=100)


class Author(models.Model):
    name = models.CharField(max_length=100)
    country = models.CharField(max_length=100)


class Tag(models.Model):
    name = models.CharField(max_length=50, unique=True)


class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    publisher = models.ForeignKey(Publisher, models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag, related_name="books")
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.IntegerField()
    blurb = models.TextField()


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)


class Profile(models.Model):
    customer = models.OneToOneField(Customer, models.CASCADE, related_name="profile")
    city = models.CharField(max_length=100)
    points = models.IntegerField()


class Review(models.Model):
    book = models.ForeignKey(Book, models.CASCADE, related_name="reviews")
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="reviews")
    rating = models.IntegerField()
    text = models.TextField()
    created = models.DateTimeField()


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    created = models.DateTimeField()
    state = models.CharField(max_length=20)


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    book = models.ForeignKey(Book, models.CASCADE, related_name="lines")
    quantity = models.IntegerField()


class Note(models.Model):
    """A remark about anything."""

    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.BigIntegerField()
    subject = GenericForeignKey("content_type", "object_id")
    text = models.TextField()


class Job(models.Model):
    """A queue in a table."""

    state = models.CharField(max_length=20, db_index=True)
    payload = models.TextField()


class Visit(models.Model):
    """Written by views that insert."""

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="visits")
    page = models.CharField(max_length=200)
