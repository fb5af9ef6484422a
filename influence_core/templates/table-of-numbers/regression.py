"""A table with a number to predict becomes a study; then: which training rows pulled this prediction too high?

Run it with ``python regression.py``. It writes scikit-learn's diabetes table.
"""

from pathlib import Path

from sklearn.datasets import load_diabetes

from influence_core import attribute
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run

STUDY = Path("studies/diabetes")


if __name__ == "__main__":
    path = Path("diabetes.csv")
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(path, index=False)
    run = Run()
    with open_source(path, run) as rows:
        study = import_table(rows, guessed_roles(rows, "target"), STUDY, run)
    print(attribute(study, "if_exact", test=[study.task.ids("test")[0]]).to_frame(5))
