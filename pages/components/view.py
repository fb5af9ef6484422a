"""What a person is looking at, as one frozen record, and its two-way translation to the address of the page.

Nothing here touches Streamlit. Everything that comes from an address is text until it is checked; a value that
cannot be used is replaced by its default and named in one sentence, and the rest of the address is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

SCREENS = (
    "overview",
    "explain",
    "suspects",
    "row",
    "methods",
    "map",
    "review",
    "decisions",
    "import",
    "studies",
    "compare",
    "trust",
)
STATUSES = ("all", "wrong", "confident-wrong", "right", "largest-errors")
ORDERS = ("confidence", "id", "random", "error")
SPLITS = ("train", "test", "locked")
MEASUREMENTS = ("loss", "margin", "probability", "logit")
ROLES = (
    "label", "id", "text", "split", "weight", "feature", "sensitive-feature", "sensitive", "shown", "ignored",
)  # fmt: skip
TASKS = ("classification", "regression")
PLACES = ("penultimate", "input", "gradients")
DRAWN = ("umap", "pca")
COLOURS = ("label", "prediction", "correct", "loss", "suspicion", "self-influence", "influence")
READINGS = ("words", "meaning")
LISTS = ("labels", "duplicates", "leakage", "outliers")
MAX_PLACE = 9999
MAX_K = 100
MAX_IDS = 1000
MAX_TEXT = 200
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class View:
    """Everything an address restores, apart from the screen, which is its path.

    Attributes:
        study: Name of the study; empty for the first one.
        ids: Test rows being explained, as text; several are one query, their mean.
        typed: Id of the visitor's own input, which then is what is explained; empty for rows of the study.
        cell: The query is every prediction that the filters ``given`` and ``predicted`` leave.
        method: Id of the method; empty for the study's default.
    XX        status, given, predicted, text, order, seed: Filters of the list of predictions.
        by, labelled, suggested, flagged, agree, likely, sliced, group, planted, search: Filters of the list of
            suspects.
        listing: Which of its lists is shown, ``page`` of it from 0.
        split, row: The row on the screen *Row*, as text.
        place, drawn, colour, rows: What the screen *Map* draws, by what, in which colours, and of which split.
        queue: Token of the rows under review.
        upload: Token of the file on the screen *Import*; empty for none.
        roles: Its columns' roles where they differ from the guess, as ``(place in the file from 0, role)``.
        task, reading, title: How it is to be imported; empty for what the data suggest.
        made: The study that was last imported here.
        before, after, again: On *Compare*: ids of the two versions, and the test row that is predicted twice.
    """

    study: str = ""
    ids: tuple[str, ...] = ()
    typed: str = ""
    cell: bool = False
    method: str = ""
    measurement: str = "loss"
    target: str = "predicted"
    k: int = 5
    status: str = "all"
    given: str = ""
    predicted: str = ""
    text: str = ""
    order: str = "confidence"
    seed: int = 0
    by: str = ""
    labelled: str = ""
    suggested: str = ""
    flagged: str = ""
    agree: int = 0
    likely: bool = False
    sliced: str = ""
    group: str = ""
    planted: str = ""
    search: str = ""
    listing: str = "labels"
    page: int = 0
    split: str = "train"
    row: str = ""
    place: str = "penultimate"
    drawn: str = "umap"
    colour: str = "label"
    rows: str = ""
    queue: str = "suspects"
    upload: str = ""
    roles: tuple[tuple[int, str], ...] = ()
    task: str = ""
    reading: str = ""
    title: str = ""
    made: str = ""
    before: str = ""
    after: str = ""
    again: str = ""
    config: tuple[tuple[str, str], ...] = ()

    @property
    def base(self) -> str:
        """Return the study without the version that its name may carry, as in ``digits@v1``."""
        return self.study.partition("@")[0]

    @property
    def version(self) -> str:
        """Return the id of the version; empty for the original."""
        return self.study.partition("@")[2]


def _text(value: str) -> str:
    if len(value) > MAX_TEXT or any(ord(letter) < 32 for letter in value):
        raise ValueError(f"a text of at most {MAX_TEXT} printable characters")
    return value


def _choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value

    return read


def _token(value: str) -> str:
    if not (len(value) == 32 and set(value) <= set("0123456789abcdef")):
        raise ValueError("32 digits from 0 to f")
    return value


def _queue(value: str) -> str:
    return value if value in ("suspects", "loss") else _token(value)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        # int() alone would also take " 5", "5_0" and digits of other scripts, which no address of ours contains.
        if not (value.isascii() and value.isdigit() and len(value) <= 10 and low <= int(value) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def _flag(value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError("0 or 1")
    return value == "1"


# field of View -> (name in the address, reader that raises ValueError(what is needed))
_SINGLE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "study": ("study", _text),
    "typed": ("typed", _token),
    "cell": ("cell", _flag),
    "method": ("method", _text),
    "measurement": ("measurement", _choice(*MEASUREMENTS)),
    "target": ("target", _text),
    "k": ("k", _whole(1, MAX_K)),
    "status": ("status", _choice(*STATUSES)),
    "given": ("given", _text),
    "predicted": ("predicted", _text),
    "text": ("text", _text),
    "order": ("order", _choice(*ORDERS)),
    "seed": ("seed", _whole(0, MAX_SEED)),
    "by": ("by", _text),
    "labelled": ("labelled", _text),
    "suggested": ("suggested", _text),
    "flagged": ("flagged", _text),
    "agree": ("agree", _whole(0, 99)),
    "likely": ("likely", _flag),
    "sliced": ("slice", _text),
    "group": ("group", _text),
    "planted": ("planted", _choice("", "yes", "no")),
    "search": ("search", _text),
    "listing": ("list", _choice(*LISTS)),
    "page": ("page", _whole(0, 999_999)),
    "split": ("split", _choice(*SPLITS)),
    "row": ("row", _text),
    "place": ("place", _choice(*PLACES)),
    "drawn": ("drawn", _choice(*DRAWN)),
    "colour": ("colour", _choice(*COLOURS)),
    "rows": ("rows", _choice("train", "test")),
    "queue": ("queue", _queue),
    "upload": ("upload", _token),
    "task": ("task", _choice(*TASKS)),
    "reading": ("reading", _choice(*READINGS)),
    "title": ("title", _text),
    "made": ("made", _text),
    "before": ("before", _text),
    "after": ("after", _text),
    "again": ("again", _text),
}
_FIELD_OF = {name: field for field, (name, _) in _SINGLE.items()}
_CONFIG = "c."
_ROLE = "r."
_DEFAULTS = View()


def changed(view: View, **changes: Any) -> View:
    """Return the view with some fields changed; asking for rows of the study puts a visitor's own input aside."""
    aside = {"typed": ""} if {"ids", "cell"} & set(changes) else {}
    return replace(view, **{**aside, **changes})


def view_from_params(params: Mapping[str, Sequence[str]]) -> tuple[View, tuple[str, ...]]:
    """Return the view that an address describes, and a sentence for every parameter that cannot be used.

    Args:
        params: Parameter name -> its values, as they stand in the address.

    Returns:
        The view, and the problems, in the order of the address.
    """
    found: dict[str, Any] = {}
    config: dict[str, str] = {}
    roles: dict[int, str] = {}
    problems: list[str] = []
    for name, values in params.items():
        last = values[-1] if values else ""
        try:
            if name == "id":
                found["ids"] = _ids(values)
            elif name in _FIELD_OF:
                field = _FIELD_OF[name]
                found[field] = _SINGLE[field][1](last)
            elif name.startswith(_CONFIG) and name.removeprefix(_CONFIG).isidentifier():
                config[name.removeprefix(_CONFIG)] = _text(last)
            elif name.startswith(_ROLE):
                roles[_whole(0, MAX_PLACE)(name.removeprefix(_ROLE))] = _choice(*ROLES)(last)
            else:
                problems.append(f"The address has a parameter {_short(name)} that does not exist; it is ignored.")
        except ValueError as problem:
            default = getattr(_DEFAULTS, _FIELD_OF.get(name, ""), "") or "nothing"
            problems.append(
                f"The address says {name[:40]}={_short(last)}, but {problem} is needed; using {default} instead."
            )
    view = View(**found, roles=tuple(sorted(roles.items())), config=tuple(sorted(config.items())))
    return view, tuple(problems)


def _ids(values: Sequence[str]) -> tuple[str, ...]:
    if len(values) > MAX_IDS:
        raise ValueError(f"at most {MAX_IDS} row ids")
    return tuple(dict.fromkeys(_text(value) for value in values if value))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def params_of_view(view: View) -> dict[str, list[str]]:
    """Return the address parameters of ``view``: only what differs from the defaults, in a fixed order."""
    params: dict[str, list[str]] = {}
    for field in fields(view):
        value, default = getattr(view, field.name), getattr(_DEFAULTS, field.name)
        if value == default:
            continue
        if field.name == "ids":
            params["id"] = list(value)
        elif field.name == "config":
            params |= {_CONFIG + name: [text] for name, text in value}
        elif field.name == "roles":
            params |= {f"{_ROLE}{place}": [role] for place, role in value}
        else:
            params[_SINGLE[field.name][0]] = ["1" if value is True else str(value)]
    return params


def href(screen: str, view: View) -> str:
    """Return a relative link that restores ``view`` on ``screen`` (relative, so that it holds under any base path)."""
    path = "./" if screen == "overview" else screen
    query = urlencode(params_of_view(view), doseq=True)
    return f"{path}?{query}" if query else path


def view_from_href(link: str) -> tuple[str, View, tuple[str, ...]]:
    """Return ``(screen, view, problems)`` of a link made by :func:`href`; an unknown path means the overview."""
    parts = urlsplit(link)
    screen = parts.path.rstrip("/").rpartition("/")[2]
    params: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        params.setdefault(name, []).append(value)
    return (screen if screen in SCREENS else "overview", *view_from_params(params))


def checked_view(
    view: View, studies: Sequence[str], classes: Sequence[str], methods: Sequence[str]
) -> tuple[View, tuple[str, ...]]:
    """Return ``view`` with every name that this study does not have replaced by its default, and why.

    Args:
        view: A view that may name studies, classes or methods that do not exist.
        studies: Names of all studies; the first is the default.
        classes: Class names of the chosen study; empty leaves class names unchecked.
        methods: Ids of its methods; empty leaves the method unchecked.

    Returns:
        The view to draw, and a sentence for every replaced name.
    """
    problems: list[str] = []
    known = {"study": studies, "given": classes, "predicted": classes, "method": methods}
    known["target"] = ("true", "predicted", *classes) if classes else ()
    for name, choices in known.items():
        value = getattr(view, name)
        if not value or not choices or value in choices or (name == "study" and view.base in choices):
            continue
        default = studies[0] if name == "study" else getattr(_DEFAULTS, name)
        shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
        problems.append(
            f"The address says {name}={_short(value)}, but this {'folder' if name == 'study' else 'study'} has only "
            f"{shown}; using {default or 'the default'} instead."
        )
        view = replace(view, **{name: default})
    return view, tuple(problems)
