"""The workloads of bench.py as a Locust file: for loads that one client machine cannot send. Needs: pip install locust

The project must be on each machine, as the workloads and their stages are imported from it. A master and two workers
(WORKLOAD=read, mixed or fanout, the default; SCALE=0.25 makes the stages a quarter as long):

    locust -f suites/locustfile.py --master --expect-workers 2 --headless --csv logs/books --host http://10.0.0.1:8000
    locust -f suites/locustfile.py --worker --master-host 10.0.0.2        on each client machine, once a core

Without --master and --worker one process does it all. WORKLOAD and SCALE must be set for the master and the workers
alike. Beside the CSV files of --csv the master writes logs/books_run.json: stages, answers of each second, and when
each worker was lost, if it was. `python sweep.py report logs/books_stats.csv --slots 16` reads them all.
"""

import itertools
import json
import os
import random
import re
import sys
import time
import uuid
from pathlib import Path

from locust import FastHttpUser, LoadTestShape, events, task
from locust.runners import STATE_MISSING

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind: Locust takes the first path away again

from engine.loads import Ramp
from engine.model import spread_evenly
from engine.targets import WORKLOADS
from engine.workload import PLACEHOLDER, filled

REPORTED_S = 5.0  # workers report every 3 s; the CSV files are written every second
STOP_S = 60.0  # a user that is to stop has so long for the answer to the last request: each is counted
WORKLOAD, SCALE = os.environ.get("WORKLOAD", "fanout"), os.environ.get("SCALE", "1")
if WORKLOAD not in WORKLOADS or not re.fullmatch(r"\d{1,2}(\.\d+)?", SCALE) or float(SCALE) == 0:
    print(f"locustfile.py: WORKLOAD is one of {', '.join(WORKLOADS)}, SCALE a number like 0.25 or 1, below 100")
    sys.exit(2)
REQUEST_KINDS, STAGES, BOOKS_WAIT_S = WORKLOADS[WORKLOAD]
DICE = random.Random()
STAGES = [(stage_s * float(SCALE), users) for stage_s, users in STAGES]
BOOKS_RAMP = Ramp(stages=STAGES, time_limit_s=sum(stage_s for stage_s, _ in STAGES))
# Exact shares: of any 20 requests of `mixed` 14, 5 and 1.
TURNS = itertools.cycle(spread_evenly([round(share * 20) for share, *_ in REQUEST_KINDS]))


class BooksUser(FastHttpUser):
    """A user that asks again as soon as the answer is there, on a connection that is kept, as with bench.py -k."""

    concurrency, network_timeout, connection_timeout, max_redirects = 1, 60.0, 60.0, 0

    @task
    def ask(self):
        _, method, name, body = REQUEST_KINDS[next(TURNS)]
        path = filled(name, 0, DICE)
        body = body.replace("{n}", uuid.uuid4().hex[:26])
        with self.client.request(
            method,
            path,
            name=PLACEHOLDER.sub("{id}", name),
            data=body,
            catch_response=True,
            headers={"Content-Type": "application/json"} if body else {},
        ) as answer:
            # The book that was asked for, or the milliseconds, must be in the answer.
            asked = re.search(r"\d+$", path)
            if answer.ok and asked and not re.search(rf"\b{asked[0]}\b", answer.text):
                answer.failure(f"answered {answer.status_code} with something else than what was asked for")


class RampShape(LoadTestShape):
    """The workload's ramp, as bench.py has it; then no users, until the last answer is counted. Only the master, or the
    only process, has its ticks, once a second."""

    spawn_rate = 2 * max(users / stage_s for stage_s, users in STAGES)  # users/s: more than a second's change
    begun = busy_s = 0.0  # seconds since 1970; when there were users last
    is_complete = False
    lost_s = {}  # noqa: RUF012  worker -> when it was found lost, None: it was not

    def tick(self):
        now_s = self.get_run_time()
        self.begun = self.begun or time.time()
        self.note_lost()
        if self.get_current_user_count():
            self.busy_s = now_s
        if now_s < BOOKS_RAMP.time_limit_s:
            # Half a second ahead is right on average.
            return max(1, int(BOOKS_RAMP.limits(min(now_s + 0.5, BOOKS_RAMP.time_limit_s))[1])), self.spawn_rate
        if now_s < min(BOOKS_RAMP.time_limit_s + STOP_S, self.busy_s) + REPORTED_S:
            return 0, self.spawn_rate
        self.is_complete = True
        return None

    def note_lost(self):
        """Locust has no event for a worker whose heartbeats stay away."""
        for worker in getattr(self.runner, "clients", {}).values():
            lost_s = round(self.get_run_time(), 1) if worker.state == STATE_MISSING else None
            self.lost_s[worker.id] = self.lost_s.get(worker.id) or lost_s


@events.init.add_listener
def note_run(environment, **_):
    environment.stop_timeout = environment.stop_timeout or STOP_S

    @environment.events.quit.add_listener
    def write(**_):
        shape, total, prefix = environment.shape_class, environment.stats.total, environment.parsed_options.csv_prefix
        if not prefix or not shape.begun:
            return
        shape.note_lost()  # when the last one is lost, Locust stops at once, without a tick
        answers = {second: n - total.num_fail_per_sec.get(second, 0) for second, n in total.num_reqs_per_sec.items()}
        document = {
            "workload": WORKLOAD,
            "wait_s": BOOKS_WAIT_S,
            "stages": STAGES,
            "begun": shape.begun,
            "complete": shape.is_complete,
            "workers": shape.lost_s,
            "requests": total.num_requests,
            "failures": total.num_failures,
            "per_second": sorted(answers.items()),  # second since 1970, of the worker's clock, and good answers in it
        }
        Path(f"{prefix}_run.json").write_text(json.dumps(document))
