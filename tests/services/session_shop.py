"""A shop that knows its users by a cookie. Kept apart from services/limits: it limits nothing."""

import time

from flask import Flask, abort, request, session

app = Flask(__name__)
app.secret_key = "not a secret"


@app.post("/login")
def login():
    if request.get_json() != {"name": "ann", "password": "secret"}:
        abort(403)
    session["name"] = "ann"
    return ""


@app.before_request
def check():
    if request.path != "/login" and session.get("name") != "ann":
        abort(401)


@app.get("/orders/<int:number>")
def order(number):
    time.sleep(0.02)
    return {"order": number}


@app.post("/orders")
def new_order():
    time.sleep(0.04)
    return {"item": request.get_json()["item"]}, 201


@app.get("/search")
def search():
    time.sleep(0.08)
    return {"found": request.args["text"]}


@app.delete("/orders/<int:number>")
def cancel(number):
    return "", 204
