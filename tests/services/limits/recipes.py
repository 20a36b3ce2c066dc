"""Recipes with the nutrition of their ingredients."""

TRUTH = {
    "options": "--server gunicorn-threads --threads 10 -n 20",
    "path": "/recipes/pancakes",
    "slots": 2,
    "waits_on": "threads of an executor (each request needs three of the six)",
}

import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, jsonify

app = Flask(__name__)
pool = ThreadPoolExecutor(6)
RECIPES = {"pancakes": ["flour", "milk", "eggs"], "toast": ["bread"]}


def nutrition(ingredient):
    time.sleep(0.15)  # works
    return {"name": ingredient, "kcal": 50 * len(ingredient)}


@app.get("/recipes/<name>")
def recipe(name):
    found = list(pool.map(nutrition, RECIPES[name]))  # waits works
    return jsonify(name=name, ingredients=found, kcal=sum(each["kcal"] for each in found))
