"""A table of texts becomes a study; then: which training messages made the model call this one spam?

Run it with ``python text.py [messages.csv [label column]]``. Without a file it writes a few hundred short messages.
"""

import csv
import itertools
import sys
from pathlib import Path

from influence_core import attribute
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run

STUDY = Path("studies/messages")
SPAM = ("Win {a} today, reply {b} now", "Claim your {a}: call {b} free", "Urgent! {a} waits, text {b} to collect")
HAM = ("Can you bring {a} when you {b}?", "I left {a} at home, will {b} later", "Let us {b} and talk about {a}")
THINGS = ("a prize", "the tickets", "your phone", "some cash", "the keys", "dinner", "a holiday", "the report")
ACTIONS = ("STOP", "YES", "come over", "meet at eight", "WIN", "go home", "GO", "ring me")


def write_messages(path: Path) -> None:
    """Write every combination of the phrases above with its label."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["message", "label"])
        for phrase, a, b in itertools.product((*SPAM, *HAM), THINGS, ACTIONS):
            out.writerow([phrase.format(a=a, b=b), "spam" if phrase in SPAM else "ham"])


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "messages.csv")
    if len(sys.argv) == 1:
        write_messages(path)
    run = Run()
    with open_source(path, run) as rows:
        roles = guessed_roles(rows, sys.argv[2] if len(sys.argv) > 2 else "label").changed(text="message")
        study = import_table(rows, roles, STUDY, run)
    print(attribute(study, "gas", test=[study.task.ids("test")[0]]).to_frame(5))
