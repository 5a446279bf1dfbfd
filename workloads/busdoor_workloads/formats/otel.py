"""Spans of OpenTelemetry's conventions for generative AI, as OTLP JSON (semconv `gen-ai`).

resourceSpans / scopeSpans / spans with the attributes gen_ai.usage.input_tokens and .output_tokens
(before 1.27 prompt_tokens and completion_tokens); spans of agents and tools have none, or sum up
those of calls, and are no requests. Spans of one gen_ai.conversation.id are a session, whose calls
come as long after the answer before as recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions
from busdoor_workloads.reading.json_table import read_documents
from busdoor_workloads.reading.table import Table

_NAMES = {
    "arrival_s": "startTimeUnixNano",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
}
_SESSION = "gen_ai.conversation.id"
_OLD = {
    "gen_ai.usage.input_tokens": "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.output_tokens": "gen_ai.usage.completion_tokens",
}
# Values of gen_ai.operation.name of a call to a model that answers with tokens.
_CALLS = {None, "chat", "text_completion", "generate_content"}
_ERROR = {"2", "STATUS_CODE_ERROR"}


def _read(path: Path, options: ReadOptions) -> Draft:
    documents = read_documents(path, options.max_bytes)
    spans = [span for document in documents for span in _spans(document, path.name)]
    calls = [span for span in spans if span["gen_ai.operation.name"] in _CALLS]
    counted = [span for span in calls if span["input_tokens"] is not None]
    if not counted:
        raise ValueError(
            f"{path.name} has {len(spans):,} spans, but none with gen_ai.usage.input_tokens: it is "
            "no record of calls to a model"
        )
    frame = pd.DataFrame(counted).sort_values("arrival_s", kind="stable")
    answered = ~frame["failed"] & (frame["output_tokens"] != 0)
    draft = Draft(
        table=Table(path=path, frame=pd.DataFrame(), record_name="call"),
        frame=frame.loc[answered, [*_NAMES, "ended", _SESSION]],
        names=_NAMES,
        time_unit="ns",
        metadata={"rows_read": len(counted), "rows_dropped_failed": int((~answered).sum())},
    )
    ended, session = draft.frame.pop("ended"), draft.frame.pop(_SESSION)
    if session.notna().any():
        _add_sessions(draft, ended, session)
    return draft


def _add_sessions(draft: Draft, ended: pd.Series[Any], session: pd.Series[Any]) -> None:
    """Make calls of a conversation follow one another; others are sessions of one call."""
    own = pd.Series([("own", place) for place in session.index], index=session.index)
    named = session.astype(object).where(session.notna(), own)
    number = pd.Series(pd.factorize(named)[0], index=session.index)
    start = draft.frame["arrival_s"]
    since = start - ended.groupby(number).shift()
    draft.frame["session_id"] = number
    draft.frame["think_time_s"] = since.clip(lower=0).fillna(0)
    draft.frame["arrival_s"] = start.groupby(number).transform("first")
    draft.number_turns = True
    draft.notes.append(
        f"{draft.table.path.name}: calls of a conversation come a think time after the answer "
        "before; the recorded server times are not replayed"
    )
    if parallel := int((since < 0).sum()):
        draft.notes.append(
            f"{draft.table.path.name}: {parallel:,} calls began before the answer before in their "
            "conversation; they come right after it"
        )


def _spans(document: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    for resource in _objects(document, "resourceSpans", name):
        for scope in _objects(resource, "scopeSpans", name):
            for span in _objects(scope, "spans", name):
                yield _span(span, name)


def _span(span: Mapping[str, Any], name: str) -> dict[str, Any]:
    attributes = {
        str(one.get("key")): _value(one.get("value")) for one in _objects(span, "attributes", name)
    }
    status = span.get("status")
    row = {key: _text(attributes.get(key)) for key in ("gen_ai.operation.name", _SESSION)}
    row["failed"] = isinstance(status, dict) and _text(status.get("code")) in _ERROR
    for column in ("input_tokens", "output_tokens"):
        key = _NAMES[column]
        row[column] = attributes.get(key, attributes.get(_OLD[key]))
    return row | {
        "arrival_s": _nanoseconds(span, "startTimeUnixNano", name),
        "ended": _nanoseconds(span, "endTimeUnixNano", name),
    }


def _value(value: Any) -> Any:
    """Return an attribute's value; OTLP JSON writes 64-bit numbers as strings."""
    if not isinstance(value, dict):
        return None
    if "intValue" in value and str(value["intValue"]).isdigit():
        return int(value["intValue"])
    return next(iter(value.values()), None)


def _text(value: Any) -> Any:
    return None if value is None else str(value)


def _nanoseconds(span: Mapping[str, Any], key: str, name: str) -> int:
    text = str(span.get(key))
    if not text.isdigit() or int(text) >= 2**63:
        raise ValueError(f"{name}: {key} is {text[:40]}; it must be nanoseconds since 1970")
    return int(text)


def _objects(holder: Mapping[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    values = holder.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name}: {key} must be a list of objects, as in OTLP JSON")
    return values


OTEL = Format(
    name="otel",
    title="OpenTelemetry spans of generative AI: OTLP JSON",
    container="json",
    marks=frozenset({"resourceSpans"}),
    time_unit=None,
    read=_read,
)
