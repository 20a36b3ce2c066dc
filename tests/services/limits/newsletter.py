"""Signing up answers at once; the mail is sent afterwards. FastAPI."""

import time

from fastapi import BackgroundTasks, FastAPI

TRUTH = {"options": "-c 60 -t 4", "path": "/signup", "slots": 40, "waits_on": "AnyIO's threads"}
app = FastAPI()


def send_mail(address):
    time.sleep(0.4)  # after


@app.get("/signup")
def signup(background: BackgroundTasks):
    background.add_task(send_mail, "someone@example.org")
    return "thanks"
