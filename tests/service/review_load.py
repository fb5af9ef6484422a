"""Program of the load test: several reviewers in one process, each deciding at a steady pace through the service.

``python -m tests.service.review_load STUDY SECONDS NAME[,NAME...]``; prints JSON: what was sent, and how long each
acknowledgement took.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from influence_core import service

PACE = 0.5  # seconds between decisions of one reviewer


def reviewed(study: str, name: str, seconds: float, told: dict[str, Any]) -> None:
    """Decide, undo now and then, sometimes send again what was answered already, and fetch cards as a desk does."""
    chance, tab, sent, times, batches = random.Random(name), f"tab-{name}", [], [], []
    begin = time.perf_counter() + chance.uniform(0, PACE)
    cards = service.review_batch(study, "loss", name, 0, 50).cards
    while (due := begin + PACE * len(sent)) < begin + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        number, row = len(sent) + 1, cards[len(sent) % len(cards)].row_id
        undo = number > 1 and chance.random() < 0.05
        decision = {"split": "train", "row": row, "action": chance.choice(["keep", "drop", "unsure"])}
        act = {"tab": tab, "number": number, "kind": "undo" if undo else "decide",
               "decisions": [] if undo else [decision], "evidence": {}}  # fmt: skip
        started = time.perf_counter()
        receipt = service.record_acts(study, name, [act])
        times.append(time.perf_counter() - started)
        assert not receipt.refused and [(t, n) for t, n, *_ in receipt.kept] == [(tab, number)], receipt
        sent.append([tab, number, "undo" if undo else decision["action"], None if undo else row])
        if chance.random() < 0.1:  # the answer was lost: the browser sends it again
            service.record_acts(study, name, [act])
        if number % 25 == 0:
            started = time.perf_counter()
            service.review_batch(study, "loss", name, number % 40, 50)
            batches.append(time.perf_counter() - started)
    told[name] = {"sent": sent, "times": times, "batches": batches}


def main() -> None:
    """Run the reviewers as threads."""
    study, seconds, names = sys.argv[1], float(sys.argv[2]), sys.argv[3].split(",")
    service.review_batch(study, "loss", names[0], 0, 1)  # the study is open before the clock runs
    told: dict[str, Any] = {}
    threads = [threading.Thread(target=reviewed, args=(study, name, seconds, told)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
