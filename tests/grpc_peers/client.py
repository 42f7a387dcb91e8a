"""A gRPC client that tests/grpc_peers.rs starts, with the library of gRPC itself.

Arguments: the address of the gateway, the calls to make, and the PEM file of an authority and the
name of the server if it is to speak TLS. It prints what it saw as JSON.
"""

import json
import sys
from queue import Queue

import grpc

SERVICE = "/peers.Peer/"
# For calls that must not fail: long enough for a machine that is busy.
LONG = 60


def connect(target):
    if len(sys.argv) <= 3:
        return grpc.insecure_channel(target)
    authority = open(sys.argv[3], "rb").read()
    credentials = grpc.ssl_channel_credentials(root_certificates=authority)
    options = [("grpc.ssl_target_name_override", sys.argv[4])]
    return grpc.secure_channel(target, credentials, options=options)


channel = connect(sys.argv[1])


def of(metadata):
    shown = {}
    for name, value in metadata or ():
        shown[name] = value.hex() if isinstance(value, bytes) else value
    return shown


def failure(error):
    trailing = of(error.trailing_metadata())
    return {"code": error.code().name, "details": error.details(), "trailing": trailing}


def unary(name="Unary", message=b"hello", **how):
    return channel.unary_unary(SERVICE + name)(message, timeout=LONG, **how)


def kinds():
    """A call of each of the four kinds, with metadata, and one that is compressed."""
    own = (("own", "text"), ("own-bin", b"\x01"))
    call = channel.unary_unary(SERVICE + "Unary")
    reply, done = call.with_call(b"hello", timeout=LONG, metadata=own)
    # The next message is sent only after the reply to the one before has come.
    chat, queue = [], Queue()
    queue.put(b"0")
    for answer in channel.stream_stream(SERVICE + "Chat")(iter(queue.get, None), timeout=LONG):
        chat.append(answer.decode())
        queue.put(b"%d" % len(chat) if len(chat) < 20 else None)
    long = bytes(range(256)) * 4096
    count = channel.unary_stream(SERVICE + "Count")(b"5", timeout=LONG)
    return {
        "unary": reply.hex(),
        "initial": of(done.initial_metadata()),
        "trailing": of(done.trailing_metadata()),
        "code": done.code().name,
        "count": [message.decode() for message in count],
        "join": channel.stream_unary(SERVICE + "Join")(
            (b"%d" % number for number in range(5)), timeout=LONG
        ).decode(),
        "chat": chat,
        "long": unary("Echo", long) == long,
        "compressed": unary("Echo", long, compression=grpc.Compression.Gzip) == long,
    }


def spread():
    """Many calls over one connection: which server answered each."""
    return [unary().split()[0].decode() for _ in range(10)]


def failed():
    """How calls end that a server, or the gateway, refuses."""
    seen = {}
    for name in ["Fail", "Unknown"]:
        try:
            unary(name)
        except grpc.RpcError as error:
            seen[name] = failure(error)
    messages = []
    try:
        for message in channel.unary_stream(SERVICE + "BreakOff")(b"", timeout=LONG):
            messages.append(message.decode())
    except grpc.RpcError as error:
        seen["BreakOff"] = {**failure(error), "messages": messages}
    try:
        channel.unary_unary("/none.None/Call")(b"", timeout=LONG)
    except grpc.RpcError as error:
        seen["no route"] = failure(error)
    return seen


def deadline():
    """A call that outlasts its deadline, and one that the client cancels."""
    seen = {}
    for name in ["deadline", "cancel"]:
        # On a busy machine, the first message may come after a short deadline.
        for timeout in [5, 30] if name == "deadline" else [None]:
            call = channel.unary_stream(SERVICE + "Wait")(b"", timeout=timeout)
            try:
                seen[name] = {"first": next(call).decode()}
                break
            except grpc.RpcError:
                pass
        if name == "cancel":
            call.cancel()
        try:
            next(call)
        except grpc.RpcError as error:
            seen[name]["code"] = error.code().name
        seen[name]["reached the server"] = unary("WasCancelled").decode()
    return seen


CALLS = {"kinds": kinds, "spread": spread, "failed": failed, "deadline": deadline}
print(json.dumps(CALLS[sys.argv[2]]()))
