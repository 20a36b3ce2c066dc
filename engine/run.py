"""The records of a run, each filled once and in this order: Plan, Prediction, Measured, Inside, Verdict, Run.

JSON is these records, nested, with the names of their fields (json_form.py). Python has one spelling for each of
three things: None is "not known" or "there is none", math.inf is "no limit", and JSON has null for both.
Times are seconds; times of events are seconds since the run began. A verdict holds values only: the report modules
make the sentences. Nothing here computes more than what a record says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.alone import Alone
from engine.kinds import Kind, KindMeasured, Login, Session
from engine.launch import Launch
from engine.listeners import Listener
from engine.loads import Burst, Figure, Load
from engine.model import Service
from engine.neighbours import Neighbour
from engine.places import Limit, Where
from engine.stats import Statistics
from engine.tls import Tls
from engine.until import Drift, Until, Wanted

# ---------------------------------------------------------------- before the run


@dataclass(frozen=True)
class Deal:
    """How a kernel dealt connections to the processes of a server, in another run than the one that is predicted."""

    shares: tuple[tuple[float, ...], ...]  # of the processes, the largest first; of each calibration
    when: str  # the day
    load: float  # requests under way, or rate x wait, over the slots
    requests: int  # of each calibration
    orders: tuple[tuple[int, ...], ...] = ()  # of each, where the load goes on: which process took each request


@dataclass(frozen=True)
class Plan:
    """All that is known before the first request: what to start, what to send, and how long a request waits."""

    target: str  # the name to show
    launch: Launch | None = None  # None: the server runs already
    tried: str = ""  # the options that are tried, beside those of the run before
    # What is sent.
    host: str = "127.0.0.1"
    port: int = 0  # of a server that runs already
    tls: Tls | None = None  # None: plain http
    listeners: tuple[Listener, ...] = ()  # its processes, where they run on this machine and can be seen
    method: str = "GET"
    path: str = "/"
    headers: tuple[str, ...] = ()
    body: bytes = field(default=b"", metadata={"json": False})
    kinds: tuple[Kind, ...] = ()  # a mix of requests instead of method, path and body
    kind_waits_s: tuple[float, ...] = ()  # of each kind by itself; empty: not known
    order: tuple[int, ...] = field(default=(), metadata={"json": False})  # of kinds, by number; empty: at random
    mix_seed: int = 0
    first_number: int = field(default=0, metadata={"json": False})  # {n} of the first request
    login: Login | None = field(default=None, metadata={"json": False})
    session: Session | None = field(default=None, metadata={"json": False})
    workload: str | None = None
    mix_note: str = ""  # what of a file is left out
    victim: str = ""  # a path that is asked for beside the load
    victim_handler: str | None = None  # a key of HANDLERS; None: not known
    load: Load = field(default_factory=Burst)
    keep_alive: bool = False
    timeout_s: float = 40.0
    is_own_timeout: bool = field(default=False, metadata={"json": False})  # the user's, which nothing makes longer
    first_byte: bool = False  # an answer is complete with the first byte of its body
    until: Wanted | None = field(default=None, metadata={"json": False})  # send no more once a figure is so exact
    any_status: bool = False  # go on where a lone request is answered with an error
    warm_up: int = 0  # requests before the run, in no figure
    warm_up_if_cold: int = 0  # the same of a server that runs already, once its first answer was far from the next
    lone_requests: int = 0  # and requests one after the other, to learn what a single one costs
    processes: int = 1  # of the client
    # What a request does.
    task_time_s: float = 1.0
    subtasks: int = 2
    distribution: str = "constant"  # of the waits
    cpu_time_s: float = 0.0  # what a request computes besides its wait
    wait_s: float | None = None  # None: not known
    wait_is_measured: bool = False  # by lone requests before the run
    held_s: float | None = None  # how long a request holds its slot, as lone requests show it; None: wait and CPU time
    # The slots.
    workers: int = 1
    slots_per_worker: float | None = None  # min(server, handler, pool)
    server_slots: float | None = None  # requests that can be in the handlers of one process: min(server, handler)
    slots: float | None = None  # of all processes
    slots_known: bool = False
    slots_stated: bool = False  # by the user, for all processes together
    shared_queue: bool = False
    passes: tuple[float, ...] = (1.0,)  # see model.Service
    deal: Deal | None = None  # to processes with queues of their own; None: one queue, or each in turn
    most_connections: float = math.inf  # that the server serves at a time, if they are kept
    # The machine.
    cpus: int = 1  # that the server may use
    shared_cpus: int = 0  # that client and server may both use; 0: each has its own
    all_cpus: int = 1
    cpu_limit: float = math.inf  # of the container that client and server are in

    @property
    def service(self) -> Service:
        """The server for model.py. Only where slots_known."""
        assert self.slots_per_worker is not None
        return Service((self.slots_per_worker,) * self.workers, self.shared_queue, self.passes)

    @property
    def busy_s(self) -> float:
        """What a request takes in its handler, from the settings alone: its wait and its CPU time."""
        return (self.wait_s or 0.0) + self.cpu_time_s

    @property
    def is_target(self) -> bool:
        """Whether the app is one of ours, so that its wait is known."""
        return self.launch is not None and self.launch.is_target


@dataclass(frozen=True)
class Prediction:
    """What the client will measure. None: not known, or a percentile that says no more than the maximum."""

    throughput_rps: float | None = None
    mean_s: float | None = None
    median_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    makespan_s: float | None = None  # the last answer
    spread_s: float | None = None  # closed loop: the latency that all approach as users drift out of step
    # From 5 to 95 % of the deals to be expected; the figures above are their middle. None: one queue, or not known.
    throughput_range_rps: tuple[float, float] | None = None
    mean_range_s: tuple[float, float] | None = None
    p95_range_s: tuple[float, float] | None = None
    p99_range_s: tuple[float, float] | None = None
    makespan_range_s: tuple[float, float] | None = None
    if_even: Mapping[str, float | None] = field(default_factory=dict)  # of an even deal, as one would hope for
    ceiling_rps: float | None = None  # what throughput cannot exceed: S / t
    p99_if_longer_s: float | None = None  # open loop near its limit: the p99 if each request took 2 % longer
    possibilities: Mapping[str, float] = field(default_factory=dict)  # kind of handler -> last answer, where not known
    form: str | None = None  # the closed form with its numbers

    @property
    def is_known(self) -> bool:
        return self.makespan_s is not None

    def of(self, figure: Figure) -> float | None:
        value: float | None = getattr(self, figure.value)
        return value

    def range_of(self, figure: Figure) -> tuple[float, float] | None:
        """None: there is one value."""
        found: tuple[float, float] | None = getattr(self, range_name(figure.value), None)
        return found


def range_name(figure: str) -> str:
    """
    >>> range_name("p99_s"), range_name("throughput_rps")
    ('p99_range_s', 'throughput_range_rps')
    """
    name, _, unit = figure.rpartition("_")
    return f"{name}_range_{unit}"


# ---------------------------------------------------------------- after the run


@dataclass(frozen=True)
class Second:
    """What ended within one second of the run."""

    second: int
    answered: int
    failed: int
    mean_latency_s: float


@dataclass(frozen=True)
class Level:
    """A stage of a ramp, of what was answered during it."""

    users: int
    answered: int
    failed: int
    throughput_rps: float
    latency_s: Statistics | None


@dataclass(frozen=True)
class Measured:
    """What the client saw. A success is an answer with a status of 2xx or 3xx; failed requests are in no percentile."""

    sent: int
    answered: int
    failed: int
    errors: dict[str, int]
    due: int | None  # of a schedule: how many requests should have been sent by its end
    measured_s: float  # until the last request had ended, and the pause of its user
    window_s: float  # in which throughput counts
    finished_after_limit: int
    throughput_rps: float  # answers within the window, per second of it
    latency_s: Statistics | None
    at_least_s: Statistics | None  # latency, failed requests counted as slower than any answer; None: none failed
    phases_s: dict[str, Statistics | None]  # connect; tls (None: plain http); from sent: waiting (to the
    # first byte), processing; receiving (from the first byte to the last); total
    lag_s: Statistics | None  # of a schedule: how long after it was due a request left
    histogram: list[tuple[float, int]]  # (upper bound in seconds, count)
    per_second: list[Second]
    levels: list[Level]
    kinds: list[KindMeasured]
    mean_in_flight: float
    slow_connects: int  # longer than TCP's first retry
    late_bodies: int  # small ones, whose last byte came some 40 ms after the first
    created: int  # answers with 201
    redirected: int  # answers that name another address, which is not followed
    unended: int  # answers that had begun when the time was over
    never_answered: int  # connections given up without an answer, long after the slowest answer of the others
    body_bytes: int
    sockets_opened: int
    client_cpu_s: float  # of all client processes
    client_spun_s: float  # of it: in waiting for the next due moment
    sockets_resent: int  # on which TCP sent something again, as Linux counts it
    client_stalled_s: float  # the longest time in which the client itself stood still
    kernel: dict[str, int]  # ListenOverflows, TCPSynRetrans, on the whole machine during the run; empty: not Linux
    stopped: str | None = None  # why the sending ended early: a signal's name, or what happened
    warmed_up: int = 0  # requests before the run
    lone_s: float | None = None  # the least latency of a lone request before the run, of those that were not cold
    alone: Sequence[Alone] = ()  # these requests, for each kind
    server_cpu_s: float | None = None
    other_cpu_s: float | None = None  # CPU seconds of other programs, but of those that work for the service
    until: Until | None = None  # how exactly a figure is known, where that was asked for
    drift: Drift | None = None  # of the latency, of a load that goes on
    neighbours: tuple[Neighbour, ...] = ()  # the other programs that computed
    last_answer_s: float | None = None  # None: nothing was answered

    def of(self, figure: Figure) -> float | None:
        """The measured figure; None: nothing was answered, or too little for that percentile."""
        if figure is Figure.LAST_ANSWER:
            return self.last_answer_s
        if figure is Figure.THROUGHPUT:
            return self.throughput_rps
        value: float | None = getattr(self.latency_s, figure.value.removesuffix("_s")) if self.latency_s else None
        return value


@dataclass(frozen=True)
class Database:
    """What Postgres counted in the run, or why it cannot say."""

    rows: int = 0
    statements: int | None = None
    connections: int = 0
    version: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Inside:
    """What only the server's side knows. Its log is None where the app is not wrapped."""

    access_log: str | None
    server_log: str
    server_ended: bool  # by itself, in the run
    server_said: tuple[str, ...]  # the last errors in the server's log, where requests failed
    log_lines: int | None = None
    requests_of_workers: dict[str, int] = field(default_factory=dict)
    restarts: int = 0  # worker processes that were ready only during the run
    slots_seen: int | None = None  # the most requests that one worker had in its handlers at a time
    slots_held: int | None = None  # in its handlers whenever a waiting request started; None: none, or it varies
    handler_s: float | None = None  # the time of all handlers together
    anyio_threads: int | None = None  # AnyIO's limit, as a worker found it
    database: Database | None = None
    where: Where | None = None
    cpus: int = 0  # on which it computed at a time: several processes, or without Python's lock; all: they have ended
    handlers: Statistics | None = None  # of the times of the requests in their handlers


@dataclass(frozen=True)
class VictimPrediction:
    median_s: float
    of_processes_s: tuple[float, ...]  # the median at each process that has a queue of its own, the fullest first
    shares_slots: bool  # with the load
    range_s: tuple[float, float] | None = None  # of the median at a process, in 5 to 95 % of the deals; None: not known


@dataclass(frozen=True)
class Victim:
    """A cheap request that was sent ten times a second beside the load."""

    path: str
    answered: int
    failed: int
    latency_s: Statistics | None
    alone_s: float | None  # before the load
    prediction: VictimPrediction | None  # made before the load; None: it is not known whether it shares the slots
    median_of_all_s: tuple[float, float | None] | None = None  # with those under way at the end: at least, at most


# ---------------------------------------------------------------- the verdict: values


class Explanation(str, Enum):
    """What the measured figures agree with, or why they agree with nothing."""

    PREDICTION = "prediction"
    SPLIT = "split"  # the prediction, given which worker took which request
    CPU = "cpu"  # one of the two, with the CPU time that was used
    INSIDE = "inside"  # the requests were seen to wait for something inside the handlers
    SOONER = "sooner"  # answers came sooner than slots and wait allow
    OTHER_SLOTS = "other-slots"  # the log or the answers show another number of slots
    OPENED_ANEW = "opened-anew"  # connections that a pool does not keep
    RESTARTS = "restarts"  # of workers, during the run
    CONNECTED = "connected"  # a program that the service is connected to computed all the time
    AFTER_ANSWER = "after-answer"  # slots are held after the answer
    LONGER_HANDLERS = "longer-handlers"  # than by themselves, for a reason that was not seen
    DIFFERENT_TIMES = "different-times"  # some handlers took so much longer than most
    BUSY_MACHINE = "busy-machine"
    LONGER_WAIT = "longer-wait"
    BACKLOG = "backlog-overflow"
    DELAYED_ACK = "delayed-ack"
    CLIENT = "client-limit"
    CLIENT_STALLED = "client-stalled"
    LATE_SENDS = "late-sends"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Band:
    """What this machine adds to a prediction, measured: a figure fits within 5 % and this."""

    overhead_s: float  # of a lone request: its latency less its wait
    timer_s: float  # how late a sleeping process wakes
    cpu_s: float  # CPU seconds a request, of server and client
    cpus: float  # that could share them, given the split over the processes
    in_turn: float  # requests whose CPU time comes before the last answer, one after the other
    makespan_s: float  # what all that can add to the time of the last answer
    latency_s: float  # and to the latency of one request


class Seen(str, Enum):
    """How the slots were read from the answers."""

    SLOTS = "slots"  # in rounds, or by throughput x wait
    NONE = "none"  # every request was answered as fast as a lone one
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Stall:
    """Nothing was answered from one moment to another, although requests waited; then some of them failed."""

    from_s: float
    until_s: float


@dataclass(frozen=True)
class Suspect:
    """A known limit that would explain a number of slots: a guess by its number."""

    name: str
    setting: str
    default: str
    source: str
    slots: int  # of all processes
    processes: int
    set_to: int | None = None  # the number, if a default would not explain it
    fails_after_s: float | None = None  # 0: at once; None: requests beyond it wait


@dataclass(frozen=True)
class Estimate:
    """The slots, from the answers alone. A number is certain only if low == slots == high."""

    seen: Seen
    slots: int | None
    low: int
    high: int | None  # None: nothing speaks against more
    processes: int | None = None
    each: int | None = None  # slots of one process, where they show
    rounds: tuple[tuple[int, float], ...] = ()  # the first rounds: answers, mean time
    held_s: float | None = None  # how long a request held its slot, by the rounds
    by_throughput: float | None = None  # throughput x wait
    alone_s: float | None = None  # a lone request
    doubt: str | None = None  # a key of report_words.DOUBTS: why it is not certain
    stall: Stall | None = None
    suspects: tuple[Suspect, ...] = ()

    @property
    def says_nothing(self) -> bool:
        return self.doubt == "failures" and not self.stall

    @property
    def is_certain(self) -> bool:
        return self.slots is not None and self.low == self.slots == self.high


@dataclass(frozen=True)
class Warned:
    """Something that a reader must know before believing the run."""

    id: str  # a key of report_words.WARNINGS
    facts: Mapping[str, Any] = field(default_factory=dict)  # its numbers


@dataclass(frozen=True)
class Verdict:
    explained_by: Explanation | None  # None: nothing was predicted, or requests failed
    limits: tuple[Limit, ...]  # the most binding first
    estimate: Estimate | None
    band: Band | None
    warnings: tuple[Warned, ...]


@dataclass(frozen=True)
class Columns:
    """The raw times of every request, in columns of equal length. None: never."""

    started_s: Sequence[float | None]  # its connect began; on a kept connection: it was sent
    sent_s: Sequence[float | None]  # connected, and handed to the kernel
    first_byte_s: Sequence[float | None]
    answered_s: Sequence[float | None]  # or when it failed
    status: Sequence[int | None]
    error: Sequence[str | None]
    body_bytes: Sequence[int]
    worker: Sequence[str | None] = ()
    handler_started_s: Sequence[float | None] = ()
    predicted_answered_s: Sequence[float | None] = ()


@dataclass(frozen=True)
class Facts:
    """A run without its verdict: what the verdict stands on."""

    plan: Plan
    prediction: Prediction
    split_prediction: Prediction | None  # once more, given which worker took which request; None: one queue, or no log
    measured: Measured
    inside: Inside | None  # None: a server that runs already


@dataclass(frozen=True)
class Run(Facts):
    verdict: Verdict
    exchanges: Columns | None  # kept of a burst, and where JSON is asked for
    when: str
    victim: Victim | None = None
