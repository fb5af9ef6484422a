"""Widgets: the filters over the list of predictions, the line of controls above the cards, the options of a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.options import option_pairs, option_text, typed_options
from pages.components.view import View

STATUS = {"all": "All", "wrong": "Wrong", "confident-wrong": "Confident and wrong", "right": "Right"}
ORDER = {"confidence": "Confidence", "id": "Row id", "random": "Random"}
ERROR_STATUS = {"all": "All", "largest-errors": "Largest errors"}
ERROR_ORDER = {"error": "Error", "id": "Row id", "random": "Random"}
MEASURES = {
    "loss": "Minus the loss",
    "margin": "Margin",
    "probability": "Probability",
    "logit": "Logit",
}
TOP = (3, 5, 10, 20, 50)


def suited(view: View, regression: bool) -> View:
    """Return the view with the choices that this kind of study has; an address may bring those of the other kind."""
    statuses, orders = (ERROR_STATUS, ERROR_ORDER) if regression else (STATUS, ORDER)
    view = replace(
        view,
        status=view.status if view.status in statuses else "all",
        order=view.order if view.order in orders else next(iter(orders)),
    )
    if not regression:
        return replace(view, target="predicted") if view.typed and view.target == "true" else view
    return replace(view, given="", predicted="", cell=False, target="true", measurement="loss")


def prediction_filter(view: View, classes: Sequence[str]) -> service.PredictionFilter:
    """Draw the filters of the list and return what they ask for; without classes, those of a regression."""
    statuses, orders = (STATUS, ORDER) if classes else (ERROR_STATUS, ERROR_ORDER)
    labels = "" if classes else "error"
    st.selectbox(
        "Show", list(statuses), format_func=statuses.__getitem__, label_visibility="collapsed",
        **session.widget("status", view.status, labels=labels, among=list(statuses)),
    )  # fmt: skip
    if classes:
        _class_filters(view, classes)
    with st.container(horizontal=True, gap="xsmall", key="search_filter"):
        st.text_input(
            "Search", placeholder="Search", label_visibility="collapsed", type="search", max_chars=200,
            **session.widget("text", view.text, shows="value"),
        )  # fmt: skip
        st.selectbox(
            "Order", list(orders), format_func=orders.__getitem__, label_visibility="collapsed",
            **session.widget("order", view.order, labels=labels, among=list(orders)),
        )  # fmt: skip
        if view.order == "random":
            st.button(
                "", icon=":material/shuffle:", help="Shuffle again", key="shuffle", on_click=session.update,
                kwargs={"seed": (view.seed + 1) % 2**31},
            )  # fmt: skip
    return filter_of(view)


def _class_filters(view: View, classes: Sequence[str]) -> None:
    any_class = ["", *classes]
    with st.container(horizontal=True, gap="xsmall", key="cell_filter"):
        st.selectbox(
            "Given label", any_class, format_func=lambda name: f"given {name}" if name else "given: any",
            label_visibility="collapsed",
            **session.widget("given", view.given, _without_cell("given"), among=any_class),
        )  # fmt: skip
        st.selectbox(
            "Predicted label", any_class, format_func=lambda name: f"said {name}" if name else "said: any",
            label_visibility="collapsed",
            **session.widget("predicted", view.predicted, _without_cell("predicted"), among=any_class),
        )  # fmt: skip


def _without_cell(field: str) -> Any:
    # The query was the old cell: another cell must be asked for anew, and the single prediction stays.
    return lambda new: {field: new or "", "cell": False}


def filter_of(view: View) -> service.PredictionFilter:
    """Return the filter that the view describes."""
    return service.PredictionFilter(
        status=view.status,
        given=view.given or None,
        predicted=view.predicted or None,
        text=view.text,
        order=view.order,
        seed=view.seed,
    )


def chosen_method(view: View, methods: Sequence[service.MethodView], default: str) -> service.MethodView:
    """Return the method that the view names, or the default."""
    by_id = {method.id: method for method in methods}
    return by_id.get(view.method) or by_id[default]


def controls(
    view: View, methods: Sequence[service.MethodView], method: service.MethodView, query: service.Datum | None,
    classes: Sequence[str], ids: tuple[str, ...],
) -> service.ExplainRequest:  # fmt: skip
    """Draw method, target, measurement, k and options and return the question they make.

    Args:
        view: The current view.
        methods: All methods of the study.
        method: The one in use.
        query: The explained row, to name its labels; None for a set.
        classes: Class names; none in a regression, which has one target.
        ids: The explained row ids.
    """
    _method_box(methods, method)
    if classes:
        _target_box(view, query, classes)
    measurement = _measurement_box(view, method, classes)
    counts = sorted({*TOP, view.k})
    st.selectbox("Rows", counts, help="Rows per side", **session.widget("k", view.k, among=counts))
    options = _options_box(view, method)
    return service.ExplainRequest(
        ids=ids,
        split="typed" if view.typed else "test",
        method=method.id,
        reduce="mean" if len(ids) > 1 else None,
        measurement=measurement,
        target=view.target,
        k=view.k,
        config=options,
    )


def _method_box(methods: Sequence[service.MethodView], method: service.MethodView) -> None:
    usable = {m.id: m for m in methods if m.available and m.pairwise} | {method.id: method}
    fitted = "".join("01"[m.fitted] for m in usable.values())
    st.selectbox(
        "Method",
        list(usable),
        format_func=lambda name: usable[name].title + ("" if usable[name].fitted else " · needs a fit"),
        help=f"{method.summary} Units: {method.units_in_words}.",
        **session.widget(
            "method", method.id, lambda new: {"method": new, "config": ()}, labels=fitted, among=list(usable)
        ),
    )


def _target_box(view: View, query: service.Datum | None, classes: Sequence[str]) -> None:
    names = {"predicted": "Predicted label", "true": "Given label"}
    options = ["predicted", "true", *classes]
    if view.typed:  # nobody has said what is true of it
        options.remove("true")
    elif query is not None:
        names = {"predicted": f"{query.predicted} (predicted)", "true": f"{query.given} (given)"}
    st.selectbox(
        "Target",
        options,
        format_func=lambda name: names.get(name, f"Class {name}"),
        help="Why this label? The one whose score is explained.",
        **session.widget(
            "target", view.target, labels="·".join([*names.values(), view.typed and "own"]), among=options
        ),
    )


def _measurement_box(view: View, method: service.MethodView, classes: Sequence[str]) -> str:
    if not method.measurements:
        st.selectbox(
            "Measured as", [method.utility or "its own"], disabled=True, help="This method has its own measure."
        )
        return view.measurement
    kind = view.measurement if view.measurement in method.measurements else method.measurements[0]
    names, loss = MEASURES, "the label's log-probability"
    if not classes:
        names, loss = {"loss": "Minus the squared error"}, "minus the squared error"
    st.selectbox(
        "Measured as", list(method.measurements), format_func=lambda name: names.get(str(name), str(name)),
        help=f"What the scores are about; higher is better. Minus the loss is {loss}.",
        **session.widget("measurement", kind, labels="" if classes else "error", among=list(method.measurements)),
    )  # fmt: skip
    return kind


def _options_box(view: View, method: service.MethodView) -> dict[str, Any]:
    options, problems = typed_options(view, method)
    label = f"Options ({len(options)})" if options else "Options"
    with st.popover(label, icon=":material/tune:", disabled=not method.fields, key="options"):
        with st.form("options_form", border=False):
            for field in method.fields:
                _option(field, options.get(field.name, field.default), method)
            st.form_submit_button("Apply", type="primary", on_click=_apply, args=(method,))
        st.button("Back to defaults", key="defaults", disabled=not view.config, on_click=_reset, args=(method,))
    errors.notices(problems)
    return options


def _key(method: service.MethodView, field: service.ConfigField) -> str:
    return f"o.{method.id}.{field.name}"


def _option(field: service.ConfigField, value: Any, method: service.MethodView) -> None:
    """Draw the widget of one option; its state is set beforehand, because the address may have changed it."""
    key = _key(method, field)
    if field.name == "layers" and method.layers:
        named = [name.strip() for name in option_text(value).split(",") if name.strip()]
        st.multiselect(field.label, sorted({*method.layers, *named}), help=field.help, placeholder="All layers",
                       **session.shown(key, named, shows="default"))  # fmt: skip
    elif field.kind == "bool":
        st.toggle(field.label, help=field.help, **session.shown(key, bool(value), shows="value"))
    elif field.kind == "choice":
        choices = list(field.choices)
        st.selectbox(field.label, choices, help=field.help, **session.shown(key, value, among=choices))
    else:
        # Numbers as text: a damping of 1e-7 keeps its digits, and an empty field can mean "none".
        bounds = f"{field.low:g} to {field.high:g}" if field.low is not None and field.high is not None else None
        st.text_input(field.label, help=field.help, placeholder=bounds, max_chars=200,
                      **session.shown(key, option_text(value), shows="value"))  # fmt: skip


def _apply(method: service.MethodView) -> None:
    values = session.entered([_key(method, field) for field in method.fields])
    named = {key.rpartition(".")[2]: value for key, value in values.items()}
    session.update(config=option_pairs(named, method))


def _reset(method: service.MethodView) -> None:
    session.forget([_key(method, field) for field in method.fields])
    session.update(config=())
