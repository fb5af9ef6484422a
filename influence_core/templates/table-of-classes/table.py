"""A table with class labels becomes a study; then: which training rows contradict this prediction?

Run it with ``python table.py [data.csv label]``. Without a file it writes scikit-learn's wine table.
"""

import sys
from pathlib import Path

from sklearn.datasets import load_wine

from influence_core import attribute
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run

STUDY = Path("studies/wine")


if __name__ == "__main__":
    path, label = (Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else (Path("wine.csv"), "target")
    if len(sys.argv) == 1:
        load_wine(as_frame=True).frame.to_csv(path, index=False)
    run = Run()
    with open_source(path, run) as rows:
        study = import_table(rows, guessed_roles(rows, label), STUDY, run)
    print("\n".join(study.header.notes))
    print(attribute(study, "gas", test=[study.task.ids("test")[0]]).to_frame(5))
