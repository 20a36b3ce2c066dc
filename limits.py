"""limits.py - how many requests did a server work on at a time, and which limit is that?

The number is read out of the answers alone: the sizes and the spacing of their
rounds, throughput x service time, the slope of latency over rank, side by side;
a range where they disagree, and "not known" where they say nothing. Its name comes
out of a table of limits that nobody set, each with its source. Pure: the same
answers give the same estimate.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Literal, NamedTuple, TypedDict

# ---------------------------------------------------------------- estimate the slots from the answers

Kind = Literal["slots", "two-pass", "smeared", "cpu", "none", "unknown"]
Mode = Literal["burst", "closed"]
TWO_PASS = "the last in the queue began before the first was answered: each request passes the slots twice"


class Suspect(TypedDict):
    """A limit that would explain the number; sentences for people."""

    what: str
    setting: str
    default: str
    source: str
    predicted_effect: str
    how_to_tell: str


class Estimate(TypedDict):
    """What the answers say. A number is certain only if low == slots == high."""

    slots: int | None  # None: no limit found, or none that the answers show
    low: int
    high: int | None  # None: nothing speaks against more
    processes: int | None
    each: int | None  # slots of one process, where they show
    kind: Kind
    evidence: list[str]
    suspects: list[Suspect]


class Seen(NamedTuple):
    """One run as the judges below see it. Seconds since the first request; sent and answered each sorted by itself."""

    mode: Mode
    at_once: int  # requests of the burst, or users
    sent: list[float]
    answered: list[float]
    latencies: list[float]
    overtaken: list[int]  # by how many places a request was answered later than it was sent
    failed_after: list[float]  # sorted
    wait_s: float  # alone; not a number if no lone request was sent
    jitter: float  # standard deviation over mean of the lone waits
    error: float  # relative, of wait_s: three standard errors
    processes: int | None
    cpu_s: float | None  # of the server, for one request

    def says(
        self, kind: Kind, slots: int | None, low: int, high: int | None, *evidence: str, each: int | None = None
    ) -> Estimate:
        if slots and self.processes and slots % self.processes == 0:
            each = slots // self.processes
        texts = [text for text in evidence if text]
        return Estimate(
            slots=slots, low=low, high=high, processes=self.processes, each=each, kind=kind, evidence=texts, suspects=[]
        )

    def cpu_limits(self) -> bool:
        """Whether CPU, where it is known, was busy all the time, or for most of what answers took beyond the wait."""
        last_s, cpu_s = self.answered[-1], (self.cpu_s or 0.0) * len(self.answered)
        cpu_s /= self.processes or max(1, round(cpu_s / last_s))
        return cpu_s > 0.85 * last_s or (cpu_s > 0.7 * (last_s - self.wait_s) and cpu_s > 0.5 * last_s)

    def own_s(self, requests: float) -> float:
        """CPU time that so many requests may cost beside their wait, one after the other: where not known, a guess."""
        return requests * (0.0005 if self.cpu_s is None else self.cpu_s)

    def overtakes(self, slots: float) -> bool:
        """Whether more than one answer in twenty came over a round earlier or later than in the order of sending."""
        return sum(abs(places) > 1.2 * slots for places in self.overtaken) > 0.05 * len(self.overtaken)


def estimate(
    mode: Mode,
    count: int,
    sent_s: Sequence[float],
    answered_s: Sequence[float],
    *,
    lone_s: Sequence[float] = (),
    failed_after_s: Sequence[float] = (),
    processes: int | None = None,
    cpu_s: float | None = None,
) -> Estimate:
    """How many requests the server worked on at a time, from the answers alone.

    count: requests of the burst, or users of the closed loop; sent_s and answered_s: of each request that succeeded,
    from the first on; lone_s: how long requests took that were alone; failed_after_s: how long after sending each
    of the others failed; cpu_s: CPU seconds of the server for one request. The first judge that knows its case decides.
    A number is certain only after three full rounds of it and beside lone requests, and never if it is `count`.

    >>> estimate("burst", 7, [0.0] * 7, [1, 1, 2, 2, 3, 3, 4], lone_s=[1.0, 1.0])["slots"]
    2
    """
    order = sorted(range(len(sent_s)), key=lambda i: answered_s[i])
    ranks = {i: rank for rank, i in enumerate(sorted(order, key=lambda i: sent_s[i]))}
    begin_s = min(sent_s, default=0.0)
    wait_s = fmean(lone_s) if lone_s else math.nan
    jitter = stdev(lone_s) / wait_s if len(lone_s) > 1 else 0.1
    return judge(Seen(
        mode, count, sorted(sent - begin_s for sent in sent_s), [answered_s[i] - begin_s for i in order],
        [answered_s[i] - sent_s[i] for i in order], [rank - ranks[i] for rank, i in enumerate(order)],
        sorted(failed_after_s), wait_s, jitter, 3 * max(jitter, 0.005) / math.sqrt(len(lone_s) or 1), processes, cpu_s,
    ))  # fmt: skip


def of_each_process(answered_s: Sequence[Sequence[float]], found: Estimate, lone_s: Sequence[float]) -> Estimate | None:
    """The estimate of a burst on several processes, if one of them shows its slots without a doubt and no other one
    contradicts: they run the same code. None otherwise.

    answered_s: the answers of each process, since all were sent; found: what all answers together show.

    >>> own = [[1.0] * 3 + [2.0] * 3 + [3.0] * 3, [1.0] * 3 + [2.0]]
    >>> found = estimate("burst", 13, [0.0] * 13, sorted(own[0] + own[1]), lone_s=[1.0], processes=2)
    >>> found["slots"], of_each_process(own, found, [1.0])["slots"]
    (None, 6)
    """
    asked = sorted((sorted(own) for own in answered_s if own), key=len, reverse=True)  # the fullest first
    several = [estimate("burst", len(own), [0.0] * len(own), own, lone_s=lone_s, processes=1) for own in asked]
    certain = {one["slots"] for one in several if one["slots"] == one["low"] == one["high"] and one["kind"] == "slots"}
    if len(answered_s) < 2 or len(certain) != 1 or not (each := certain.pop()):
        return None
    if any(one["low"] > each or (one["high"] or each) < each for one in several):
        return None
    total = each * len(answered_s)
    evidence = [f"of one process alone: {text}" for text in several[0]["evidence"][:2]]
    return {**found, "slots": total, "low": total, "high": total, "each": each, "kind": "slots",
            "processes": len(answered_s), "evidence": [*found["evidence"][:1], *evidence]}  # fmt: skip


def judge(seen: Seen) -> Estimate:
    if seen.failed_after:
        return failing(seen)
    if len(seen.answered) < 4:
        return seen.says("unknown", None, 1, None, f"{len(seen.answered)} answers prove nothing")
    if math.isnan(seen.wait_s):
        return in_rounds(seen) or seen.says("unknown", None, 1, None, "no rounds, and no lone request to compare with")
    if seen.wait_s < 0.005:
        kind: Kind = "cpu" if seen.cpu_limits() else "unknown"
        return seen.says(kind, None, 1, None, f"alone it took {seen.wait_s:.2g} s: too short to tell waiting from CPU")
    if found := nobody_waited(seen) or held_back(seen):
        return found
    begin_s, later = seen.answered[0] - seen.wait_s, seen
    if begin_s < 0.4 * seen.wait_s + 3 * seen.own_s(seen.at_once):  # it accepts all before it serves the first
        later = seen._replace(sent=[max(sent, begin_s) for sent in seen.sent])
    return in_rounds(seen) or in_rounds(later) or unlike(later) or blurred(later)


def failing(seen: Seen) -> Estimate:
    """Failures forbid a verdict, unless all came after the same time and no answer came long after that."""
    failed, n = seen.failed_after, len(seen.answered)
    text = f"{len(failed)} of {len(failed) + n} failed, {failed[0]:.3g} to {failed[-1]:.3g} s after they were sent"
    wait_s = failed[0] / 3 if math.isnan(seen.wait_s) else seen.wait_s
    steady = failed[-1] <= 1.15 * failed[0] and failed[0] >= 2 * wait_s
    if not n or not steady or seen.answered[0] > 0.9 * failed[0] or seen.answered[-1] > failed[0] + 1.5 * wait_s:
        return seen.says("unknown", None, 1, None, text + ": no verdict")
    found = judge(seen._replace(failed_after=[]))
    return {**found, "evidence": [*found["evidence"], text + ", so a time-out"]}


def holds(sent: Sequence[float], answered: Sequence[float], slots: int, first: int) -> list[float]:
    """How long each of the first answers held a slot, if there were so many slots: the model's recursion, backwards.

    sent, answered: seconds, each sorted by itself. With S slots, the k-th start is the later of the k-th request and
    the (k-S)-th answer. Sorted so, it does not matter in which order a pool serves. With too few slots some seem to
    hold one for no time, with too many for two times as long.

    >>> holds([0, 0, 0, 0], [1, 1, 2, 2], 2, 4), holds([0, 0, 0, 0], [1, 1, 2, 2], 1, 4)
    ([1, 1, 1, 1], [1, 0, 1, 0])
    """
    return [answered[k] - (max(sent[k], answered[k - slots]) if k >= slots else sent[k]) for k in range(first)]


class Fit(NamedTuple):
    slots: int  # with it all requests held a slot for the most equal time
    low: int  # low to high: explains the answers nearly as well
    high: int
    held_s: float
    spread: float  # standard deviation of the holding times over their mean


def fit(sent: Sequence[float], answered: Sequence[float], most: int) -> Fit | None:
    """Try each number of slots up to `most` on the first three rounds that it would make; None if there is none."""
    tried: dict[int, tuple[float, float]] = {}
    for slots in range(1, most + 1):
        held = holds(sent, answered, slots, min(len(answered), max(3 * slots, 12)))
        mean_s = max(fmean(held), 1e-9)
        deviation_s = math.dist(held, [mean_s] * len(held)) / math.sqrt(len(held))  # pstdev is exact, and slow
        tried[slots] = deviation_s / mean_s, mean_s
    if not tried:
        return None
    best = min(tried, key=lambda slots: tried[slots])
    near = [slots for slots, (spread, _) in tried.items() if spread <= 1.5 * tried[best][0] + 0.005]
    return Fit(best, min(near), max(near), tried[best][1], tried[best][0])


def work(sent: Sequence[float], answered: Sequence[float], wait_s: float) -> float:
    """Throughput x service time without its edges: the slots at which the mean request held one for `wait_s`.

    In the saturated middle this is Little's law, S = X t. Not above the number of answers.

    >>> work([0.0] * 6, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], 1.0)
    2.0
    """
    n = len(answered)

    def mean_s(slots: int) -> float:
        return fmean(holds(sent, answered, slots, n)) if slots else 0.0

    high = min(n, 1 + bisect_left(range(1, n + 1), wait_s, key=mean_s))
    below_s, above_s = mean_s(high - 1), mean_s(high)
    return high - 1 + min(1.0, (wait_s - below_s) / max(above_s - below_s, 1e-12))


def clusters(answered: Sequence[float], gap_s: float) -> tuple[list[list[float]], str]:
    """Answer times, sorted, cut where nothing came for `gap_s`; and the same in words."""
    found = [[answered[0]]]
    for before, at in pairwise(answered):
        if at - before > gap_s:
            found.append([])
        found[-1].append(at)
    sizes, times = ", ".join(str(len(c)) for c in found[:6]), ", ".join(f"{fmean(c):.3g}" for c in found[:6])
    return found, f"{sizes}{', ...' if len(found) > 6 else ''} answers at {times} s"


def by_work(seen: Seen, spread: float) -> tuple[float, float, float, str]:
    """(slots by throughput x service time, their least, their most, the sentence).

    Most: while a request is begun or ended its slot does not wait, so that busy servers seem to have fewer.
    """
    found, n, last_s = work(seen.sent, seen.answered, seen.wait_s), len(seen.answered), seen.answered[-1]
    margin = seen.error + 2 * spread / math.sqrt(n) + 0.04
    most = found * (1 + margin + (0.003 + seen.own_s(found)) / seen.wait_s)
    text = f"throughput x service time: {n / last_s:.3g}/s x {seen.wait_s:.3g} s = {found:.3g} slots"
    return found, found * (1 - margin), most, text


def nobody_waited(seen: Seen) -> Estimate | None:
    """All were answered as fast as alone: a limit, if there is one, is not below what was under way at once."""
    wait_s = seen.wait_s
    usual_s = wait_s * (1 + seen.error) * (1 + max(0.35, 4 * seen.jitter)) + 0.003
    if fmean(seen.latencies) > 1.15 * wait_s * (1 + seen.error) + 0.003 or max(seen.latencies) > usual_s:
        return None
    under_way = max(k + 1 - bisect_right(seen.answered, sent) for k, sent in enumerate(seen.sent))
    slow_s = sorted(seen.latencies)[len(seen.latencies) * 95 // 100]  # what is beyond the wait, was spent in a queue
    low = max(1, int(min(seen.at_once, under_way) * min(1, (1.05 * wait_s + 0.003) / slow_s)))
    text = f"all {len(seen.answered)} were answered within {max(seen.latencies):.3g} s, alone it took {wait_s:.3g} s"
    return seen.says("none", None, low, None, f"{text}: no limit up to {low}, the most that were under way")


def held_back(seen: Seen) -> Estimate | None:
    """All were answered late and together: two passes through the slots, a loop that sends nothing meanwhile, CPU."""
    wait_s, n, first_s, last_s = seen.wait_s, len(seen.answered), seen.answered[0], seen.answered[-1]
    if first_s < 1.4 * wait_s * (1 + seen.error) + 0.003 or (last_s - first_s > max(2.2 * wait_s, 0.2 * last_s)):
        return None
    found, text = clusters(seen.answered, 0.4 * wait_s)
    rounds, margin = last_s / wait_s, seen.error + 2 * seen.jitter / math.sqrt(n) + 0.01
    texts = [
        f"nobody was answered for {first_s:.3g} s, alone it took {wait_s:.3g} s; {text}",
        f"{n} answers took {rounds:.3g} times as long as one: {n / rounds:.2g} at a time",
    ]
    if seen.cpu_limits() or (seen.cpu_s is None and n < 8 * rounds):  # few enough to be a machine's CPUs
        return seen.says("cpu", None, 1, None, *texts, "they shared so many CPUs, or a blocked event loop")
    if n < 1.3 * rounds:
        return seen.says("slots", 1, 1, 1, *texts, "with the CPU idle: a blocked event loop")
    if first_s - wait_s < 1.5 * seen.own_s(n):
        return seen.says("unknown", None, 1, None, *texts, "two passes through the slots, or CPU")
    fewest = (last_s - seen.own_s(n)) / wait_s  # rounds, if CPU took its time beside them
    if margin < min(0.04, 0.3 / rounds) and math.floor(rounds + 0.1) == math.ceil(fewest - 0.1):
        before = math.floor(rounds + 0.1) - 1
        low, high = math.ceil(n / (before + 1)), math.ceil(n / before) - 1
        if len(found) == 2 and len(found[0]) % before == 0 and low <= len(found[0]) // before <= high:
            low = high = len(found[0]) // before  # those of the last, partial round come one wait after all others
    else:
        low = math.ceil(n / rounds * (1 - margin))
        high = max(low, min(n - 1, math.ceil(n / max(1.0, fewest * (1 - margin) - 1 - 2 * seen.jitter))))
    return seen.says("two-pass", low if low == high else None, low, high, *texts, TWO_PASS)


def in_rounds(seen: Seen) -> Estimate | None:
    """Rounds of one size: at S slots all requests held one for the same time, at any other number they did not."""
    most_slots = min(len(seen.answered) // 2, seen.at_once - max(1, seen.at_once // 10))
    wait_s, found = seen.wait_s, fit(seen.sent, seen.answered, most_slots)
    if not found or found.spread > 0.13 or found.high - found.low > max(1, 0.12 * found.slots):
        return None
    slots, low, high, held_s, reason = *found[:4], ""
    many = f"{slots} slot{'s' * (slots != 1)}"
    text = f"with {many} each request held one for {held_s:.3g} s, give or take {found.spread:.0%}"
    texts = [clusters(seen.answered, 0.3 * held_s)[1], text]
    if math.isnan(wait_s):
        return seen.says("slots", slots, 1, high, *texts, "no lone request tells whether it takes so long alone")
    by_rate, least, most, text = by_work(seen, found.spread)
    texts.append(text)
    if most < 0.95:
        reason = "even one slot would have been idle: a rate limit, or lone requests that met a cache"
        return seen.says("unknown", None, 1, None, *texts, reason)
    grown = held_s > 1.4 * wait_s * (1 + seen.error) + 0.003 + min(seen.own_s(slots), 0.3 * wait_s)
    if grown and seen.mode == "closed" and not seen.cpu_limits() and by_rate >= 8:
        return seen.says("two-pass", None, math.floor(least), math.ceil(most), *texts, TWO_PASS)
    if (grown and seen.cpu_s is None) or (seen.cpu_limits() and (grown or slots == 1)):
        reason = f"alone it took {wait_s:.3g} s: it gets slower under load, by CPU or what else the requests share"
        return seen.says("cpu", None, 1, None, *texts, reason)
    low, high = max(low, math.ceil(least)), min(high, math.floor(most))
    if not low <= slots <= high:
        low, high = max(1, min(slots, math.floor(by_rate))), max(slots, math.ceil(by_rate))
        reason = "rounds and throughput disagree: pauses between rounds, uneven processes, or unlike lone requests"
    doubt = doubts(seen, found)
    kind: Kind = "smeared" if seen.overtakes(slots) else "slots"
    return seen.says(kind, slots, low, None if doubt else high, *texts, reason, doubt)


def doubts(seen: Seen, found: Fit) -> str:
    """Why there may be more slots than these answers show; empty if nothing speaks for it."""
    slots, n, rounds = found.slots, len(seen.answered), math.ceil(len(seen.answered) / found.slots)
    last_s = found.held_s * (rounds + 3 * found.spread * math.sqrt(rounds) + 0.5)
    if n < 3 * slots or (seen.mode == "closed" and seen.at_once < 3 * slots and seen.processes != 1):
        return "fewer than three full rounds"
    if slots % (seen.processes or 1):
        return f"not a multiple of {seen.processes} processes: one of them may have had nothing to do"
    if seen.mode == "burst" and seen.sent[-1] < found.held_s and seen.answered[-1] > last_s:
        return "the last rounds are smaller: processes with uneven shares, and one that got none does not show"
    if seen.mode == "closed" and seen.processes != 1 and seen.overtakes(slots):
        return "some users wait longer than others: uneven processes, or a pool that is not first come, first served"
    return ""


def unlike(seen: Seen) -> Estimate | None:
    """Clear rounds that are not one wait apart, or shrink: a limit held for a part of the request; uneven processes."""
    found, text = clusters(seen.answered, 0.2 * seen.wait_s)
    sizes, times = [len(cluster) for cluster in found], [fmean(cluster) for cluster in found]
    steps = [after - before for before, after in pairwise(times)]
    if (
        len(sizes) > 3
        and len(set(sizes[:-1])) == 1
        and sizes[0] > 1
        and max(steps) < min(1.2 * min(steps), seen.wait_s)
    ):
        reason = f"rounds every {fmean(steps):.3g} s, alone it took {seen.wait_s:.3g} s: a limit inside the handler"
        late: Kind = "two-pass" if times[0] > 1.4 * seen.wait_s + seen.own_s(len(seen.sent)) else "slots"
        return seen.says(late, sizes[0], sizes[0], math.ceil(by_work(seen, 0.0)[2]), text, reason)
    off = max(abs(at / seen.wait_s - k) / k for k, at in enumerate(times, 1))
    growing = any(before < size for before, size in pairwise(sizes))
    if seen.mode == "closed" or len(sizes) < 2 or growing or off > 0.25 + seen.error or sizes[0] == max(sizes[-2], 1):
        return None
    if len(sizes) < 5 or sizes[-4] != sizes[-2]:
        return seen.says("unknown", None, sizes[0], None, text, "they shrink: too few to tell from uneven processes")
    reason = f"uneven shares: the busiest process does {sizes[-2]} at a time"
    return seen.says("slots", None, sizes[0], None, text, reason, each=sizes[-2])


def blurred(seen: Seen) -> Estimate:
    """No rounds to be seen: throughput x service time, and the slope, are all there is."""
    wait_s, n, (by_rate, least, most, text) = seen.wait_s, len(seen.answered), by_work(seen, seen.jitter)
    first = seen.answered[: max(20, math.ceil(6 * by_rate))]
    half, late_s = len(first) // 2, seen.answered[0] - seen.sent[0]
    each_s = max(1e-9, (fmean(first[half:]) - fmean(first[:half])) * 2 / len(first))
    begin_s = fmean(first) - each_s * len(first) / 2 - seen.sent[0]  # slots: half a wait; CPU: one, since it flows then
    texts = [text, f"slope: {each_s:.3g} s for each place in the queue, so {wait_s / each_s:.3g} slots"]
    held = n - bisect_right(seen.answered, seen.answered[-1] - wait_s)  # answered together at the end
    if 0.75 < by_rate < 1.3 and held > n / 2 and begin_s > 2 * wait_s and not seen.cpu_limits():
        return seen.says("slots", 1, 1, 1, *texts, "one at a time, most answers held back: a blocked event loop")
    if (by_rate > n / 3 or most >= seen.at_once) and not seen.cpu_limits():
        waited = bisect_right(seen.answered, 1.3 * wait_s * (1 - min(0.3, seen.error)))
        return seen.says("unknown", None, max(1, waited), None, *texts, "fewer than three rounds: no number")
    early = work(seen.sent, seen.answered[: n // 3], wait_s)
    if seen.processes != 1 and early > 1.2 * by_rate:
        reason = f"at first {early:.3g} slots, later fewer: processes with uneven shares"
        return seen.says("slots", None, max(1, int(least)), None, *texts, reason)
    steady = begin_s > 0.8 * wait_s * (1 + seen.error / 2) and not seen.overtakes(by_rate)
    steady &= by_rate > 3 or seen.jitter < 0.1  # two or three slots look as steady once they have blurred
    steady &= max(b - a for a, b in pairwise(first)) < max(0.3 * wait_s, 4 * each_s)  # else there are rounds
    if late_s > 2 * wait_s and by_rate >= 8 and not seen.cpu_limits():
        return seen.says("two-pass", None, int(least), math.ceil(most), *texts, TWO_PASS)
    if seen.cpu_limits() or (steady and (seen.cpu_s is None or by_rate > 4)):
        reason = f"no rounds: one answer each {each_s:.3g} s from the first on: CPU, or another thing done one by one"
        if seen.cpu_s is not None and not seen.cpu_limits():
            reason = reason.replace("CPU, or another thing", "with the CPU idle, something") + (
                ": a lock, or an event loop that each request blocks for so long"
            )
        return seen.says("cpu", None, 1, None, *texts, reason)
    if not 0.5 < wait_s / each_s / by_rate < 2 or most < 0.95:
        return seen.says("unknown", None, 1, None, *texts, "the two disagree: these waits are not like those alone")
    disorder = seen.overtakes(by_rate)  # of a pool, or of processes with uneven shares
    kind: Kind = "smeared" if disorder or seen.jitter < 0.03 else "slots"
    high = None if disorder and seen.processes != 1 else math.ceil(most)
    reason = "no clear rounds" + ", not first come, first served" * disorder
    return seen.says(kind, max(1, round(by_rate)), max(1, int(least)), high, *texts, reason)


# ---------------------------------------------------------------- probe


class Burst(NamedTuple):
    """A burst of a probe: how many at once, how many of them failed, how long it took, what it says."""

    requests: int
    failed: int
    took_s: float
    found: Estimate


def next_burst(
    done: Sequence[Burst], budget: int = 2000, budget_s: float = 60.0, wait_s: float = 0.0
) -> tuple[int | None, str]:
    """The size of a probe's next burst, or None, and why: doubled until two agree, or the budget does not allow more.

    wait_s: what a lone request takes: the first burst must end within the budget even if one is served at a time.
    """
    if not done:
        first = min(10, int(budget_s / max(wait_s, 1e-9)))
        return (first, "a first look") if first >= 4 else (None, f"one request takes {wait_s:.3g} s")
    last, found, sizes = done[-1], done[-1].found, [burst.requests for burst in done]
    certain = [b.found["slots"] for b in done if b.found["low"] == b.found["high"] == b.found["slots"]]
    if last.failed:
        return None, f"{last.failed} of {last.requests} failed"
    if len(certain) > 1 and certain[-1] == certain[-2] == found["slots"]:
        return None, f"two bursts say {certain[-1]}"
    if len(done) > 1 and found["kind"] == done[-2].found["kind"] == "cpu":
        return None, "two bursts say that CPU is the limit"
    if found["slots"] and found["high"] and last.requests > 10 * found["high"]:
        return None, "the times scatter: more requests would not sharpen the number"
    size = 2 * max(sizes)
    if found["kind"] == "two-pass" and found["high"] and max(sizes) == last.requests > 2 * found["high"]:
        size = round(3.5 * found["low"])  # a last round that is not full shows the number
    if sum(sizes) + size > budget:
        return None, f"{size} more requests would exceed the budget of {budget}"
    if sum(burst.took_s for burst in done) + last.took_s * size / last.requests > budget_s:
        return None, f"{size} more requests would take longer than the budget of time allows"
    return size, f"{last.requests} were not enough"


def conclude(done: Sequence[Burst]) -> Estimate:
    """Of the bursts of a probe the one that says most: the narrowest that agrees with the last."""
    last, vague = done[-1].found, ("none", "unknown", "cpu")
    if last["kind"] in vague:
        return {**last, "low": max(b.found["low"] for b in done if b.found["kind"] in ("none", last["kind"]))}
    top, named = last["high"] or (last["slots"] or 0) * 1.1, [b.found for b in done if b.found["kind"] not in vague]
    agreeing = [f for f in named if f["low"] <= top and last["low"] <= (f["slots"] or f["high"] or 0)]
    return min([*agreeing, last], key=lambda found: (found["high"] or math.inf) - found["low"])


# ---------------------------------------------------------------- name the limit


class Limit(NamedTuple):
    """A limit that nobody set, as the packages' sources had it in autumn 2026."""

    default: str  # how many at a time in one process: a number or a formula
    what: str
    setting: str
    after_s: str  # those beyond it fail after so many seconds, 0: at once; empty: they wait without a word
    source: str  # package file:line
    packages: str  # one of them must be installed
    where: str  # kinds of server or handler that can meet it; whole: one number for all processes

    def number(self, cpus: int, python: tuple[int, int]) -> int:
        threads = min(32, cpus + 4) if python >= (3, 8) else 5 * cpus
        formulas = {"5 + 10": 15, "min(32, cpus + 4)": threads, "5 * cpus": 5 * cpus, "4 * cpus": 4 * cpus}
        return formulas.get(self.default) or int(self.default)

    @property
    def is_pool(self) -> bool:
        """Whether a service sets it, as it does with pools of connections: for a server's own, its settings tell."""
        return (
            bool(self.packages)
            and ("pool" in self.what or "connections" in self.what)
            and not INTERFACES.keys() & {*self.where.split()}
        )

    def possible(self, installed: Collection[str] | None, server: str, handler: str) -> bool:
        where, packages = set(self.where.split()), set(self.packages.split())
        if installed is not None and packages and packages.isdisjoint(installed):
            return False
        servers = where - HANDLERS - {"whole"}
        return (not server or not servers or bool(servers & {server, INTERFACES.get(server, "")})) and (
            not handler or not where & HANDLERS or handler in where
        )


HANDLERS = {"def", "async", "blocking"}
INTERFACES = {
    **dict.fromkeys(("uvicorn", "hypercorn", "granian", "daphne"), "asgi"),
    "waitress": "wsgi",
    "gunicorn": "wsgi",
}
# Most likely first: default | what | setting | fails after | source | packages | where
TABLE = """
40 | AnyIO threads | to_thread limiter's total_tokens || anyio/_backends/_asyncio.py:3257 | anyio | asgi def
5 + 10 | SQLAlchemy's pool | pool_size + max_overflow | 30 | sqlalchemy/pool/impl.py:75 | sqlalchemy |
min(32, cpus + 4) | asyncio.to_thread | ThreadPoolExecutor(n) || CPython concurrent/futures/thread.py:142 || asgi async
1 | a blocked event loop | use `def` or await || CPython asyncio/base_events.py:1922 || asgi async blocking
1 | gunicorn's sync worker | --threads || gunicorn/config.py:762 | gunicorn | gunicorn
4 | waitress's threads | --threads || waitress/adjustments.py:149 | waitress | waitress
4 | psycopg's pool (also Django's) | max_size | 30 | psycopg_pool/pool.py:49 | psycopg-pool |
10 | asyncpg's pool | max_size || asyncpg/pool.py:1204 | asyncpg | async
100 | httpx's connections | Limits(max_connections) | 5 | httpx/_config.py:247 | httpx |
100 | aiohttp's connections | TCPConnector(limit) | 300 | aiohttp/connector.py:287 | aiohttp | async
1 | asgiref's sync_to_async | use thread_sensitive=False || asgiref/sync.py:453 | asgiref | asgi async
1 | asgiref's WsgiToAsgi | use a2wsgi || asgiref/wsgi.py:149 | asgiref | asgi def
10 | a2wsgi's threads | workers || a2wsgi/wsgi.py:154 | a2wsgi | asgi def
1 | Django 3.0 to 3.2 under ASGI | use Django 4 || django/core/handlers/asgi.py:166 | django | asgi def
10 | aiomysql's or asyncmy's pool | maxsize || aiomysql/pool.py:13 | aiomysql asyncmy | async
10 | aiopg's pool | maxsize | 60 | aiopg/pool.py:27 | aiopg | async
5 | tortoise-orm's pool | maxsize || tortoise/backends/base_postgres/client.py:89 | tortoise-orm | async
2 | oracledb's pool | max || oracledb/pool_params.py:139 | oracledb |
20 | peewee's pool | max_connections | 0 | playhouse/pool.py:36 | peewee |
5 | mysql-connector's pool | pool_size | 0 | mysql/connector/pooling.py:439 | mysql-connector-python |
100 | pymongo's pool | maxPoolSize || pymongo/common.py:99 | pymongo |
100 | redis 8's pool | max_connections | 0 | redis/connection.py:2975 | redis |
50 | redis's BlockingConnectionPool | max_connections | 20 | redis/connection.py:3522 | redis |
100 | neo4j's pool | max_connection_pool_size | 60 | neo4j/_async/config.py:55 | neo4j |
10 | elasticsearch's connections | connections_per_node || elastic_transport/_models.py:238 | elastic-transport |
10 | aiobotocore's connections | max_pool_connections || aiobotocore/httpsession.py:225 | aiobotocore | async
10 | tornado's AsyncHTTPClient | max_clients | 20 | tornado/simple_httpclient.py:116 | tornado | async
10 | httpcore's connections | max_connections || httpcore/_async/connection_pool.py:52 | httpcore |
1000 | openai's or anthropic's connections | http_client | 600 | openai/_constants.py:9 | openai anthropic |
5 * cpus | tornado's or motor's threads | max_workers || tornado/ioloop.py:731 | tornado motor |
4 * cpus | functions-framework's threads | THREADS || functions_framework/_http/gunicorn.py:32 | functions-framework |
1 | one connection to sqlite :memory: | use a file || sqlalchemy/dialects/sqlite/aiosqlite.py:347 | aiosqlite |
10 | cheroot's threads | numthreads || cheroot/wsgi.py:46 | cheroot | cheroot
1 | uWSGI's process | --threads || uwsgi core/init.c:114 | uwsgi | uwsgi
1 | a server without threads | use threaded=True || werkzeug/serving.py:975 || werkzeug
1 | gradio's listener | default_concurrency_limit || gradio/queueing.py:282 | gradio |
100 | waitress's connections | --connection-limit || waitress/adjustments.py:231 | waitress | waitress
1000 | gunicorn's connections | --worker-connections || gunicorn/config.py:843 | gunicorn | gunicorn
20 | PgBouncer's pool | default_pool_size | 120 | pgbouncer src/main.c:286 || whole
97 | PostgreSQL (100, 3 reserved) | max_connections | 0 | postgresql.conf.sample:65 || whole
"""
LIMITS = [Limit(*map(str.strip, row.split("|"))) for row in TABLE.strip().splitlines()]


def suspects(
    found: Estimate,
    requests: int,
    wait_s: float,
    cpus: int,
    python: tuple[int, int] = (3, 11),
    installed: Collection[str] | None = None,
    server: str = "",
    handler: str = "",
    failed_after_s: Sequence[float] = (),
    settings_allow: float = math.inf,
) -> list[Suspect]:
    """The three likeliest limits behind an estimate from a burst of `requests`, tried as S and S / processes.

    cpus and python are the service's, installed the packages there (None: not known), server the one that runs,
    handler def, async or blocking. The time after which the rest failed is a second fingerprint, often sharper.
    settings_allow: as many at a time, whatever is changed inside the handler. Where a certain number is nobody's
    default, the pools that are there may have been set to it.
    """
    failed = sorted(failed_after_s)
    at_once = bool(failed) and failed[-1] < max(0.3, wait_s / 2)
    best, low, high = found["slots"] or found["low"], found["low"], found["high"] or found["slots"] or 0
    if at_once:
        best = low = high = requests - len(failed)
        if not best:
            return []  # whoever is never served meets no limit, but an error
    elif found["kind"] in ("none", "cpu", "unknown"):
        return []
    counts = [found["processes"]] if found["processes"] else sorted({1, 2, 4, cpus, 2 * cpus + 1})  # known, or usual
    ranked: list[tuple[float, int, Limit, int]] = []
    for rank, limit in enumerate(LIMITS):
        number, matches = limit.number(cpus, python), []
        if (limit.after_s == "0") != at_once or not limit.possible(installed, server, handler):
            continue
        for processes in counts if limit.where != "whole" else [1]:
            total = number * processes
            odd = 0.0 if number == found["each"] else 5 * abs(total - best) / best
            odd += 2 * (processes > 1 and not found["processes"])
            part = found["kind"] == "smeared" and installed and limit.packages and 0.3 * best < total < low
            if number == found["each"] or low <= total <= high or part:
                matches.append((odd + 2 * bool(part), total))
        if matches:
            odd, total = min(matches)
            odd += 2 * (found["kind"] == "two-pass" and "def" not in limit.where)
            if failed and not at_once:
                odd += 0 if limit.after_s and abs(float(limit.after_s) / failed[0] - 1) < 0.15 else 3
            ranked.append((odd, rank, limit, total))
    set_to = None
    is_certain = found["slots"] == found["low"] == found["high"] and found["kind"] in ("slots", "smeared")
    if not ranked and installed and not at_once and is_certain and 1 < best < settings_allow:
        set_to = found["each"] or best
        pools = [rank for rank, limit in enumerate(LIMITS) if limit.is_pool]
        ranked = [
            (0.0, rank, LIMITS[rank], best) for rank in pools if LIMITS[rank].possible(installed, server, handler)
        ]
    found_suspects = []
    for _, _, limit, total in sorted(ranked)[:3]:
        most = settings_allow if limit.is_pool and best < settings_allow else math.inf  # else it is one of the settings
        found_suspects.append(suspect(limit, total, low, set_to, most, requests, wait_s, cpus, python))
    return found_suspects


def suspect(
    limit: Limit, total: int, low: int, set_to: int | None, most: float, requests: int, wait_s: float, cpus: int,
    python: tuple[int, int],
) -> Suspect:  # fmt: skip
    """A limit in words, with the time that a burst would take if it were raised: ceil(n / S) x t.

    Fewer than the answers showed at the least: it is held for a part of each request. set_to: to what somebody may
    have set it, as its default would not explain the number; most: beyond that nothing inside a handler helps.
    """
    number, slots = set_to or limit.number(cpus, python), max(total, low)
    what = f"{limit.what} ({limit.default})" + (f" x {total // number}" if total > number else "")
    if set_to:
        what = f"{limit.what}, if it was set to {set_to} ({limit.default} by default)"
    raised = 40 if number < 40 else 2 * number
    after = slots * raised // number
    change = f"{limit.setting} raised to {raised} in each process"
    if limit.setting.startswith("use "):
        change, after = limit.setting.removeprefix("use "), requests
    before_s, after_s = (math.ceil(requests / size) * wait_s for size in (slots, min(after, most)))
    others = "and nothing else in the way" if after <= most else f"and the {most:g} that the settings allow"
    tell = f"{limit.setting}: change it, and the rounds follow"
    if "cpus" in limit.default:
        tell = f"it is {limit.number(2 * cpus, python)} on {2 * cpus} CPUs; " + tell
    if limit.after_s:
        tell += f"; those beyond it fail {f'after {limit.after_s} s' if limit.after_s != '0' else 'at once'}"
    return {
        "what": f"{total} at a time: {what}"
        + (f", held for some {total / low:.0%} of the request" if total < low else ""),
        "setting": limit.setting,
        "default": limit.default,
        "source": limit.source,
        "predicted_effect": f"with {change}, {others}, "
        f"a burst of {requests} would take {after_s:.3g} s, not {before_s:.3g}",
        "how_to_tell": tell,
    }


def two_pools(requests: int, threads: int, connections: int) -> int:
    """How many fail when a request needs a thread, then a connection, then a thread again to give that back.

    A FastAPI `def` handler with a dependency that yields a database session: from threads + connections at once on,
    all threads wait for connections whose holders wait for threads, until the pool's time-out frees some.

    >>> [two_pools(n, 40, 15) for n in (54, 55, 79, 100)], two_pools(30, 10, 20)
    ([0, 25, 25, 65], 10)
    """
    failed, waiting, turn = 0, requests - threads - connections, threads - connections % threads
    while waiting >= 0:
        failed, waiting, turn = failed + turn, waiting - turn, threads - turn
    return failed
