"""A scikit-learn pipeline becomes a study: its weights are copied, nothing is retrained, nothing is unpickled.

Run it with ``python sklearn_model.py``.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from influence_core import Study, attribute

if __name__ == "__main__":
    data = load_breast_cancer(as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(data.data, data.target, random_state=0, stratify=data.target)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x_train, y_train)
    study = Study.from_sklearn(
        "tumours", pipeline, train=(x_train, y_train), test=(x_test, y_test), class_names=list(data.target_names)
    )
    print("\n".join(study.header.notes))
    print(attribute(study, "if_exact", test=[study.task.ids("test")[0]]).to_frame(5))
