"""Searches the archive of a village for old photographs. Django."""

TRUTH = {"options": "--server uvicorn -n 50", "path": "/photos/mill", "slots": None, "waits_on": None}

import time

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="village", MIDDLEWARE=[])


def search(word):
    time.sleep(0.3)
    return [f"{word}-{number}.jpg" for number in range(3)]


def photos(request, word):
    return JsonResponse({"photos": search(word)})


urlpatterns = [path("photos/<str:word>", photos)]
app = get_asgi_application()
