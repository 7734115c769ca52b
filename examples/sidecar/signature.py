import hashlib
import hmac
import time


def is_genuine(key, headers, body):
    """Whether the sidecar has signed this request, with this key, in the last five minutes."""
    try:
        stamp, signature = (part.split("=", 1)[1] for part in headers["Dms-Signature-V2"].split(","))
        age = abs(time.time() - int(stamp))
    except (KeyError, ValueError, IndexError):
        return False
    lines = sorted((name.lower(), value) for name, value in headers.items())
    lines = [line for line in lines if line[0].startswith(("dms-", "ce-")) and not line[0].startswith("dms-signature")]
    text = stamp + "\n" + "".join(f"{name}:{value}\n" for name, value in lines) + "\n"
    wanted = hmac.new(key.encode(), text.encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, wanted) and age < 300
