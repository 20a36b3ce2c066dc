"""Codes for the doors of holiday flats, checked against their hashes."""

TRUTH = {"options": "--server uvicorn -n 30", "path": "/doors/3?code=1234", "slots": None, "waits_on": "the CPUs"}

import hashlib
import hmac

from fastapi import FastAPI

SALT, ROUNDS = b"flat", 50_000
app = FastAPI()


def hashed(code: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", code.encode(), SALT, ROUNDS)  # works


DOORS = {3: hashed("1234")}


@app.get("/doors/{door}")
def check(door: int, code: str):
    return {"door": door, "opens": hmac.compare_digest(hashed(code), DOORS[door])}
