"""Claim: with nothing to wait for, processes and the server in front of FastAPI decide how fast this is.

Serve it by hand:  uvicorn --app-dir apps fastapi_hello:app
"""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello():
    return {"message": "hello"}
