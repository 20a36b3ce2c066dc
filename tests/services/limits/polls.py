"""Polls by a synchronous view, served by Django's ASGI handler. Django."""

import time

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

TRUTH = {"options": "--server uvicorn -n 12", "path": "/", "slots": None, "waits_on": None}
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="polls")


def poll(request):
    time.sleep(0.1)  # works
    return HttpResponse("yes")


urlpatterns = [path("", poll)]
app = get_asgi_application()
