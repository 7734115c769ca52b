import os

from flask import Flask, request

from signature import is_genuine

app = Flask(__name__)


@app.get("/health")
def health():
    return "", 204


@app.post("/orders")
def order():
    if not is_genuine(os.environ["SIGNATURE_KEY"], request.headers, request.get_data()):
        return "the signature is wrong", 401          # rejected: a dead letter with this reason
    order = request.get_json()
    if "id" not in order:
        return "an order needs an id", 422            # rejected
    print("got", order["id"], request.headers["Dms-Message-Id"], flush=True)
    return "", 204                                    # done; an exception answers 500: redelivered


@app.post("/orders/batch")
def batch():
    if not is_genuine(os.environ["SIGNATURE_KEY"], request.headers, request.get_data()):
        return "the signature is wrong", 401          # each message is rejected
    return [verdict(message) for message in request.get_json()]


def verdict(message):
    """What becomes of one message of a batch."""
    if "id" not in message["body"]:
        return {"outcome": "reject", "error": "an order needs an id"}
    print("got", message["body"]["id"], message["message_id"], flush=True)
    return "done"                                     # or {"outcome": "retry", "error": ...}


if __name__ == "__main__":
    app.run(port=8080)
