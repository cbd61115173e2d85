"""Judges requests by the official libraries: standardwebhooks and cloudevents.

Reads a JSON list of {headers, body (base64), secret (or null)}; writes, for each, the event as the
library reads it, or {"error": …}.
"""

import base64, json, sys

from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook


def judge(request):
    body = base64.b64decode(request["body"])
    if request["secret"] is not None:
        Webhook(request["secret"]).verify(body, request["headers"])
    event = from_http(HTTPMessage(headers=request["headers"], body=body), JSONFormat())
    attributes = {name: str(value) for name, value in event.get_attributes().items()}
    return {"attributes": attributes, "data": event.get_data()}


def attempt(request):
    try:
        return judge(request)
    except Exception as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}


json.dump([attempt(request) for request in json.load(sys.stdin)], sys.stdout)
