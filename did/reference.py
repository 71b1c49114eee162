"""Relative references resolved against any base URI (RFC 3986 section 5.2).

`urllib.parse.urljoin` knows only some schemes and drops the base of all others, so it is not used.
"""

from __future__ import annotations

import re

# RFC 3986 appendix B; matches every text without line breaks
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)

Parts = tuple[str | None, str | None, str, str | None, str | None]


def split_reference(text: str) -> Parts:
    """(scheme, authority, path, query, fragment); None where absent."""
    match = _PARTS.fullmatch(text)
    assert match is not None
    return match[1], match[2], match[3], match[4], match[5]


def resolve_reference(base: str, reference: str) -> str:
    """The target URI of `reference` against the absolute URI `base`."""
    scheme, authority, path, query, fragment = split_reference(reference)
    base_scheme, base_authority, base_path, base_query, _ = split_reference(base)
    if scheme is not None:
        return _compose(scheme, authority, _remove_dot_segments(path), query, fragment)
    if authority is not None:
        return _compose(base_scheme, authority, _remove_dot_segments(path), query, fragment)
    if path == "":
        target_path = base_path
        query = base_query if query is None else query
    elif path.startswith("/"):
        target_path = _remove_dot_segments(path)
    else:
        target_path = _remove_dot_segments(_merge(base_authority, base_path, path))
    return _compose(base_scheme, base_authority, target_path, query, fragment)


def _merge(base_authority: str | None, base_path: str, path: str) -> str:
    if base_authority is not None and base_path == "":
        return "/" + path
    return base_path[: base_path.rfind("/") + 1] + path


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4."""
    kept: list[str] = []
    while path:
        if path.startswith("../"):
            path = path[3:]
        elif path.startswith(("./", "/./")):
            path = path[2:]
        elif path == "/.":
            path = "/"
        elif path.startswith("/../") or path == "/..":
            path = "/" + path[4:]
            if kept:
                kept.pop()
        elif path in (".", ".."):
            path = ""
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            kept.append(path[:end])
            path = path[end:]
    return "".join(kept)


def _compose(
    scheme: str | None, authority: str | None, path: str, query: str | None, fragment: str | None
) -> str:
    return "".join(
        (
            "" if scheme is None else scheme + ":",
            "" if authority is None else "//" + authority,
            path,
            "" if query is None else "?" + query,
            "" if fragment is None else "#" + fragment,
        )
    )
