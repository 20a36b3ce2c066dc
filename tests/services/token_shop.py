"""The same shop, which knows its users by a token."""

import time
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Header, HTTPException

app = FastAPI()


@app.post("/login")
def login(name: Annotated[str, Body()], password: Annotated[str, Body()]):
    if (name, password) != ("ann", "secret"):
        raise HTTPException(403)
    return {"user": {"token": "t-42"}}


def user(authorization: Annotated[str, Header()] = ""):
    if authorization != "Bearer t-42":
        raise HTTPException(401)


KNOWN = [Depends(user)]


@app.get("/orders/{number}", dependencies=KNOWN)
def order(number: int):
    time.sleep(0.02)
    return {"order": number}


@app.post("/orders", dependencies=KNOWN, status_code=201)
def new_order(item: Annotated[int, Body(embed=True)]):
    time.sleep(0.04)
    return {"item": item}


@app.get("/search", dependencies=KNOWN)
def search(text: str):
    time.sleep(0.08)
    return {"found": text}


@app.delete("/orders/{number}", dependencies=KNOWN, status_code=204)
def cancel(number: int):
    pass
