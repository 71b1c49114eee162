"""The JSON-LD contexts that come with this package, and a document loader that knows no others.

A context decides what a signed name means, so it is part of the verifier: the texts are package
data, read once, and their hashes are frozen in a test. Nothing is ever fetched.

| URL | from |
| --- | --- |
| https://www.w3.org/ns/credentials/v2 | PyLD 3.3.0 (npm and crates have the same) |
| https://www.w3.org/ns/credentials/examples/v2 | crate ssi-contexts 0.1.10 |
| https://www.w3.org/ns/credentials/undefined-terms/v2 | written after VC Data Model 2.0 |
| https://w3id.org/security/data-integrity/v2 | npm @digitalbazaar/data-integrity-context 2.0.1 |

The texts are the W3C's, under the W3C Software and Document License.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ledger.errors import InvalidInputError

CREDENTIALS_V2 = "https://www.w3.org/ns/credentials/v2"
UNDEFINED_TERMS_V2 = "https://www.w3.org/ns/credentials/undefined-terms/v2"
FILE_BY_URL = {
    CREDENTIALS_V2: "credentials-v2.jsonld",
    "https://www.w3.org/ns/credentials/examples/v2": "credentials-examples-v2.jsonld",
    UNDEFINED_TERMS_V2: "credentials-undefined-terms-v2.jsonld",
    "https://w3id.org/security/data-integrity/v2": "data-integrity-v2.jsonld",
}


def load_document(url: str, options: object = None) -> dict[str, Any]:
    """PyLD's document loader: a bundled context, in PyLD's form. Raises InvalidInputError for any
    other URL."""
    del options
    return {
        "contentType": "application/ld+json",
        "contextUrl": None,
        "documentUrl": url,
        "document": load_context(url),
    }


@cache
def load_context(url: str) -> dict[str, Any]:
    """The context document of a URL; callers must not change it. Raises InvalidInputError."""
    name = FILE_BY_URL.get(url)
    if name is None:
        raise InvalidInputError(
            "JSON-LD context is not one of those that come with the verifier",
            expected=", ".join(FILE_BY_URL),
            got=repr(url)[:120],
        )
    context: dict[str, Any] = json.loads(files(__package__).joinpath(name).read_bytes())
    return context
