import os

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

from signature import is_genuine

app = FastAPI()


@app.get("/health", status_code=204)
async def health():
    return Response(status_code=204)


@app.post("/orders", status_code=204)
async def order(request: Request):
    body = await request.body()
    if not is_genuine(os.environ["SIGNATURE_KEY"], request.headers, body):
        raise HTTPException(401, "the signature is wrong")        # rejected: a dead letter with this reason
    order = await request.json()
    if "id" not in order:
        raise HTTPException(422, "an order needs an id")          # rejected
    print("got", order["id"], request.headers["Dms-Message-Id"], flush=True)
    return Response(status_code=204)                              # done; an exception answers 500: redelivered


@app.post("/orders/batch")
async def batch(request: Request):
    if not is_genuine(os.environ["SIGNATURE_KEY"], request.headers, await request.body()):
        raise HTTPException(401, "the signature is wrong")        # each message is rejected
    return [verdict(message) for message in await request.json()]


def verdict(message):
    """What becomes of one message of a batch."""
    if "id" not in message["body"]:
        return {"outcome": "reject", "error": "an order needs an id"}
    print("got", message["body"]["id"], message["message_id"], flush=True)
    return "done"                                                 # or {"outcome": "retry", "error": ...}


if __name__ == "__main__":
    uvicorn.run(app, port=8080, log_level="warning")
