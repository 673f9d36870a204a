"""Classes of values: events, effects, messages, groups of records. Thousands of them are made a second.

The type checker keeps them from being changed. The interpreter does not: a frozen dataclass sets each field through
a guard, which more than doubles what it costs to make one, and who changes a value has not run the type checker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """A dataclass with slots, keyword-only fields, equality and a hash by its fields, that nobody changes."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
