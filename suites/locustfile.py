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
from pathlib import Path

from locust import FastHttpUser, LoadTestShape, events, task
from locust.runners import STATE_MISSING

sys.path.append(str(Path(__file__).resolve().parent.parent))  # Locust takes the first path away again

from engine.loads import Ramp
from engine.model import spread_evenly
from engine.targets import SEEDED_BOOKS, WORKLOADS

REPORTED_S = 5.0  # workers report every 3 s; the CSV files are written every second
STOP_S = 60.0  # a user who is to stop has so long for the answer to the last request: each is counted
NAME, SCALE = os.environ.get("WORKLOAD", "fanout"), os.environ.get("SCALE", "1")
if NAME not in WORKLOADS or not re.fullmatch(r"\d+(\.\d+)?", SCALE) or not 0.001 <= float(SCALE) <= 100:
    print(f"locustfile.py: WORKLOAD={NAME} SCALE={SCALE}: WORKLOAD is one of {', '.join(WORKLOADS)}, SCALE a number"
          " from 0.001 to 100", file=sys.stderr)  # fmt: skip
    sys.exit(2)
KINDS, STAGES, WAIT_S = WORKLOADS[NAME]
STAGES = [(stage_s * float(SCALE), users) for stage_s, users in STAGES]
BEGUN_MS = time.time_ns() // 1_000_000
# Exact shares: of any 20 requests of `mixed` 14, 5 and 1.
TURNS = enumerate(itertools.cycle(spread_evenly([round(share / min(KINDS)[0]) for share, *_ in KINDS])))


def wanted(path, body):
    """What the answer must have: what was asked for.

    >>> wanted("/v1/books/7", '{"year": 1999}'), wanted("/v1/sleep?ms=50", "")
    ({'year': 1999, 'id': 7}, {'slept_ms': 50})
    """
    found = json.loads(body or "{}")
    for key, pattern in (("id", r"/(\d+)$"), ("slept_ms", r"\?ms=(\d+)$")):
        if match := re.search(pattern, path):
            found[key] = int(match[1])
    return found


class BooksUser(FastHttpUser):
    """A user who asks again as soon as the answer is there, on a connection that is kept, as with bench.py -k."""

    concurrency, network_timeout, connection_timeout, max_redirects = 1, 60.0, 60.0, 0

    @task
    def ask(self):
        number, turn = next(TURNS)
        _, method, name, body = KINDS[turn]
        # Digits, as the access log counts numbered requests; no two workers and no two runs share one.
        request_id = f"{BEGUN_MS}{getattr(self.environment.runner, 'worker_index', 0):03}{number:08}"
        path, body = name.replace("{id}", str(random.randint(1, SEEDED_BOOKS))), body.replace("{n}", request_id)
        headers = {"X-Request-Id": request_id}
        with self.client.request(method, path, name=name, data=body, headers=headers, catch_response=True) as answer:
            if not 200 <= answer.status_code < 300:
                return  # Locust itself names that failure
            try:
                is_right = wanted(path, body).items() <= json.loads(answer.content).items()
            except (ValueError, AttributeError):
                is_right = False
            if not is_right:
                answer.failure(f"answered {answer.status_code} with something else than what was asked for")


class Stages(LoadTestShape):
    """The workload's ramp, as bench.py has it; then no users, until the last answer is counted. Only the master, or the
    only process, has its ticks."""

    ramp, total_s = Ramp(stages=tuple(STAGES)), sum(stage_s for stage_s, _ in STAGES)
    spawn_rate = 2 * max(users / stage_s for stage_s, users in STAGES)  # users/s: more than a second's change
    begun = ended_s = None
    is_complete = False
    lost_s = {}  # noqa: RUF012  worker -> when it was found lost, None: it was not

    def tick(self):
        now_s = self.get_run_time()
        Stages.begun = Stages.begun or time.time() - now_s
        self.note({worker.id for worker in self.workers() if worker.state != STATE_MISSING})
        if now_s < self.total_s:
            # Asked once a second: half a second ahead is right on average.
            return max(1, int(self.ramp.limits(min(now_s + 0.5, self.total_s))[1])), self.spawn_rate
        self.ended_s = None if self.get_current_user_count() else self.ended_s or now_s
        if now_s < self.total_s + STOP_S + REPORTED_S and now_s < (self.ended_s or now_s) + REPORTED_S:
            return 0, self.spawn_rate
        Stages.is_complete = True
        return None

    def workers(self):
        return getattr(self.runner, "clients", {}).values()

    def note(self, here):
        """Locust has no event for a lost worker: its heartbeats stay away for 3 s, or it says that it quits."""
        self.lost_s.update(dict.fromkeys(here - self.lost_s.keys()))
        for worker in self.lost_s.keys() - here:
            self.lost_s[worker] = self.lost_s[worker] or round(time.time() - self.begun, 1)


@events.init.add_listener
def begin(environment, **_):
    environment.stop_timeout = environment.stop_timeout or STOP_S
    prefix, shape = environment.parsed_options.csv_prefix, environment.shape_class

    @environment.events.quit.add_listener
    def write(**_):
        if not prefix or not Stages.begun:
            return
        # The last worker: Locust stops at once, without a tick.
        shape.note(shape.lost_s.keys() - {worker.id for worker in shape.workers() if worker.state == STATE_MISSING})
        total = environment.stats.total
        answers = {second: n - total.num_fail_per_sec.get(second, 0) for second, n in total.num_reqs_per_sec.items()}
        document = {
            "workload": NAME,
            "wait_s": WAIT_S,
            "stages": STAGES,
            "begun": Stages.begun,  # seconds since 1970, of the master's clock
            "complete": Stages.is_complete,
            "workers": Stages.lost_s,
            "requests": total.num_requests,
            "failures": total.num_failures,
            "per_second": sorted(answers.items()),  # second since 1970, of the worker's clock, and good answers in it
        }
        Path(f"{prefix}_run.json").write_text(json.dumps(document) + "\n")
