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


if __name__ == "__main__":
    app.run(port=8080)
