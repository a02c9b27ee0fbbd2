"""Search in the data of the service, and the files that it finds."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from skillweave.retrieval.filters import parse_filters
from skillweave.serving.collections import Collection, Collections
from skillweave.serving.content import Body, Input
from skillweave.serving.errors import RequestError
from skillweave.serving.routes.shared import Called, read_all

router = APIRouter(tags=["search"])


def _collections(request: Request) -> Collections:
    return request.app.state.collections


Searched = Annotated[Collections, Depends(_collections)]


class SearchRequest(Body):
    """What to look for: a text, or an example of any modality. `within`: the modality of what is
    found; the first of the service if absent."""

    query: Input
    within: str | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    where: list[str] = []
    """Conditions, such as `year>=2020`."""
    words: bool = False
    """Rank by the words of the captions as well."""


@router.get("/search")
def searched(found: Searched) -> dict[str, Any]:
    """What can be searched, and with what."""
    return {
        "collections": [
            {"modality": one.index.modality, "items": len(one.index), "asked_with": one.asked}
            for one in found
        ]
    }


@router.post("/search")
async def search(body: SearchRequest, found: Searched, call: Called) -> dict[str, Any]:
    """The items most similar to a text or an example, best first, each with its cosine."""
    if not found:
        raise RequestError("no data are searched here; start the service with --data")
    collection = found.find(body.within) if body.within else next(iter(found))
    call.begin(collection.model, 1)
    (query,) = read_all([body.query], collection.model.settings)
    hits = await collection.search(query, body.k, call.usage, parse_filters(body.where), body.words)
    call.end()
    rows = [{**hit.to_json(), "file": address(collection, hit.entry.key)} for hit in hits]
    return {"modality": collection.index.modality, "hits": rows}


def address(collection: Collection, key: str) -> str:
    """Where the service has the file of an item."""
    return f"/items/{collection.index.modality}?key={quote(key, safe='')}"


@router.get(
    "/items/{modality}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def item(modality: str, key: str, found: Searched) -> Response:
    """The file of an item. What no page shows safely is sent to be saved."""
    content, kind = found.find(modality).file(key)
    headers = {"content-security-policy": "sandbox; default-src 'none'", "cache-control": "private"}
    if kind == "application/octet-stream":
        headers["content-disposition"] = "attachment"
    return Response(content, media_type=kind, headers=headers)
