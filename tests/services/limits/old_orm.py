"""Asynchronous views that ask a synchronous ORM. Django."""

import time

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

TRUTH = {"options": "--server uvicorn -n 20", "path": "/", "slots": None, "waits_on": None}
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="orm")


def find():
    time.sleep(0.1)  # works
    return "found"


async def view(request):
    return HttpResponse(await sync_to_async(find)())


urlpatterns = [path("", view)]
app = get_asgi_application()
