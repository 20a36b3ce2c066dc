"""The workloads of bench.py as a Locust file: for loads that one client machine cannot send. Needs: pip install locust

The project must be on each machine, as the workloads and their stages are imported from it. A master and two workers
(WORKLOAD=read, mixed or fanout, the default; SCALE=0.25 makes the stages a quarter as long):

    locust -f apps/locustfile.py --master --expect-workers 2 --headless --csv logs/books --host http://10.0.0.1:8000
    locust -f apps/locustfile.py --worker --master-host 10.0.0.2          on each client machine, once a core

Without --master and --worker one process does it all. WORKLOAD and SCALE must be set for the master and the workers
alike. Beside the CSV files of --csv the master writes logs/books_run.json: stages, answers of each second, and when
each worker was lost, if it was. `python sweep.py report logs/books_stats.csv --slots 16` reads them all.
"""

import argparse
import itertools
import json
import os
import random
import re
import sys
import time
from pathlib import Path

import gevent
from locust import FastHttpUser, LoadTestShape, events, task
from locust.runners import STATE_MISSING, STATE_SPAWNING, WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bench
import load
import serve
import slots

REPORTED_S = 5.0  # workers report every 3 s; the CSV files are written every second
STOP_S = 60.0  # a user who is to stop has so long for the answer to the last request: each is counted


def setting(name, default, convert):
    try:
        return convert(os.environ.get(name, default))
    except (ValueError, KeyError, argparse.ArgumentTypeError):
        print(f"locustfile.py: {name}={os.environ[name]}: WORKLOAD is one of {', '.join(bench.WORKLOADS)}, SCALE a"
              " number from 0.001 to 100", file=sys.stderr)  # fmt: skip
        sys.exit(2)


WORKLOAD = setting("WORKLOAD", "fanout", lambda name: bench.WORKLOADS[name] and name)
SCALE = setting("SCALE", "1", slots.number(float, 0.001, 100))
KINDS, STAGES, WAIT_S = bench.WORKLOADS[WORKLOAD]
STAGES = [(stage_s * SCALE, users) for stage_s, users in STAGES]


# ---------------------------------------------------------------- requests


def wanted(path, body):
    """What the answer must have: what was asked for.

    >>> wanted("/v1/books/7", '{"year": 1999}'), wanted("/v1/sleep?ms=50", "")
    ({'year': 1999, 'id': 7}, {'slept_ms': 50})
    """
    found = json.loads(body or "{}")
    if match := re.search(r"/(\d+)$", path):
        found["id"] = int(match[1])
    if match := re.search(r"\?ms=(\d+)$", path):
        found["slept_ms"] = int(match[1])
    return found


def endless_requests():
    """Number, kind, path and body of this process's requests, with exact shares: of any 20 of `mixed` 14, 5 and 1."""
    least = min(kind.share for kind in KINDS)
    turns = slots.spread_evenly([round(kind.share / least) for kind in KINDS])
    dice, begun_ms = random.Random(os.getpid()), time.time_ns() // 1_000_000
    for number, turn in enumerate(itertools.cycle(turns)):
        kind = KINDS[turn]
        # Digits, as the access log counts numbered requests; no two workers and no two runs share one.
        request_id = f"{begun_ms}{WORKER_INDEX[0]:03}{number:08}"
        path = kind.path.replace("{id}", str(dice.randint(1, serve.SEEDED_BOOKS)))
        yield request_id, kind, path, kind.body.replace("{n}", request_id)


WORKER_INDEX = [0]
requests = endless_requests()


class BooksUser(FastHttpUser):
    """A user who asks again as soon as the answer is there, on a connection that is kept, as with bench.py -k."""

    concurrency, network_timeout, connection_timeout, max_redirects = 1, 60.0, 60.0, 0

    @task
    def ask(self):
        request_id, kind, path, body = next(requests)
        with self.client.request(
            kind.method, path, name=kind.path, data=body, headers={"X-Request-Id": request_id}, catch_response=True
        ) as answer:
            if not 200 <= answer.status_code < 300:
                return  # Locust itself names that failure
            try:
                is_right = wanted(path, body).items() <= json.loads(answer.content).items()
            except (ValueError, AttributeError):
                is_right = False
            if not is_right:
                answer.failure(f"answered {answer.status_code} with something else than what was asked for")


# ---------------------------------------------------------------- users over time


class Stages(LoadTestShape):
    """The workload's ramp, as load.py has it; then no users, until the last answer is counted."""

    pace, total_s = load.Pace(stages=tuple(STAGES)), sum(stage_s for stage_s, _ in STAGES)
    at_once = 2 * max(users / stage_s for stage_s, users in STAGES)  # users/s: more than a second's change
    ended_s, complete = None, False

    def tick(self):
        now_s = self.get_run_time()
        if now_s < self.total_s:
            # Asked once a second: half a second ahead is right on average.
            return max(1, int(self.pace.limits(min(now_s + 0.5, self.total_s))[1])), self.at_once
        if self.get_current_user_count():
            self.ended_s = None
        elif self.ended_s is None:
            self.ended_s = now_s
        if now_s > self.total_s + STOP_S + REPORTED_S or (self.ended_s and now_s > self.ended_s + REPORTED_S):
            Stages.complete = True
            return None
        return 0, self.at_once


# ---------------------------------------------------------------- what the CSV files do not say


@events.init.add_listener
def begin(environment, **_):
    runner = environment.runner
    environment.stop_timeout = environment.stop_timeout or STOP_S
    if isinstance(runner, WorkerRunner):
        environment.events.test_start.add_listener(lambda **_: WORKER_INDEX.__setitem__(0, runner.worker_index))
        return
    prefix, begun_s, lost_s = environment.parsed_options.csv_prefix, [], {}

    def watch():
        """Locust has no event for a lost worker: its heartbeats stay away for 3 s, or it says that it quits."""
        while runner.state in (STATE_SPAWNING, "running"):
            here = {worker.id for worker in runner.clients.values() if worker.state != STATE_MISSING}
            for worker in lost_s:
                if lost_s[worker] is None and worker not in here:
                    lost_s[worker] = round(time.time() - begun_s[0], 1)
            lost_s.update(dict.fromkeys(here - lost_s.keys()))
            gevent.sleep(0.2)

    @environment.events.test_start.add_listener
    def note_begin(**_):
        begun_s[:] = [time.time()]
        lost_s.clear()
        if hasattr(runner, "clients"):
            lost_s.update(dict.fromkeys(runner.clients))
            gevent.spawn_later(0.5, watch)

    @environment.events.quit.add_listener
    def write(**_):
        if not prefix or not begun_s:
            return
        for worker in getattr(runner, "clients", {}).values():
            if worker.state == STATE_MISSING and lost_s.get(worker.id) is None:  # the last one: Locust stops at once
                lost_s[worker.id] = round(time.time() - begun_s[0], 1)
        total = environment.stats.total
        failed = total.num_fail_per_sec
        good = {second: count - failed.get(second, 0) for second, count in total.num_reqs_per_sec.items()}
        document = {
            "workload": WORKLOAD,
            "wait_s": WAIT_S,
            "stages": STAGES,
            "begun": begun_s[0],  # seconds since 1970, of the master's clock
            "complete": Stages.complete,
            "workers": lost_s,  # each with the second in which it was found lost, or null
            "requests": total.num_requests,
            "failures": total.num_failures,
            "per_second": sorted(good.items()),  # second since 1970, of the worker's clock, and good answers in it
        }
        Path(f"{prefix}_run.json").write_text(json.dumps(document, indent=1) + "\n")
