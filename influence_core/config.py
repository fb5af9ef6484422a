"""The base of every record of options: frozen, checked on construction, JSON in and out, with a stable key.

Built on pydantic, so that types, bounds, choices and help text are declared once per field and serve the check, the
command line, the forms of the app and the documentation alike.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from influence_core.errors import BadInput


def digest(value: Any) -> str:
    """Return a 32-digit key of any JSON value, the same in every process and on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Config(BaseModel):
    """Options that change numbers, and nothing else: batch size, device and workers live in ``Run``.

    Attributes:
        version: Raised whenever the same options give other numbers than before: cached results are then left behind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1

    def __init__(self, **options: Any) -> None:
        """Check the options.

        Raises:
            BadInput: Names every problem at once, with the nearest right spelling of an unknown option.
        """
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise BadInput(*_explained(type(self), error)) from None

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Self:
        """Make a Config from a mapping, such as one read from JSON or a URL."""
        return cls(**dict(options))

    def changed(self, **options: Any) -> Self:
        """Return a copy with some options replaced, checked again."""
        return type(self)(**{**self.model_dump(), **options})

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values; ``checked`` takes them back."""
        return self.model_dump(mode="json")

    def key(self) -> str:
        """Return the key of these options: equal options, equal version, equal key."""
        return digest([type(self).__qualname__, type(self).version, self.to_json()])


def _explained(cls: type[Config], error: ValidationError) -> tuple[str, str, str]:
    """Turn pydantic's findings into what, why and fix."""
    known = list(cls.model_fields)
    problems, fixes = [], []
    for found in error.errors(include_url=False):
        name = str(found["loc"][0]) if found["loc"] else "options"
        if found["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"'{name}' is not an option")
            fixes.append(f"did you mean '{near[0]}'?" if near else f"the options are: {', '.join(known) or 'none'}.")
        else:
            message = found["msg"].removeprefix("Value error, ")
            problems.append(f"'{name}' = {found.get('input')!r}: {message[0].lower()}{message[1:]}")
            help_text = cls.model_fields[name].description if name in cls.model_fields else None
            fixes.append(f"{name}: {help_text}" if help_text else f"correct '{name}'.")
    return "These options cannot be used", "; ".join(problems) + ".", " ".join(dict.fromkeys(fixes))
