"""A gRPC server that tests/grpc_peers.rs starts, with the library of gRPC itself.

Arguments: its name, and the PEM files of a certificate and a key if it is to speak TLS. It prints
its port, and ends with its standard input. Messages are bytes; no protobuf is involved.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import grpc

NAME = sys.argv[1].encode()
cancelled = Event()


def unary(request, context):
    context.send_initial_metadata((("first", "head"), ("first-bin", b"\x00\xff")))
    context.set_trailing_metadata((("last", "trailer"), ("last-bin", b"\xfe\x01")))
    sent = dict(context.invocation_metadata())
    return b" ".join([NAME, sent.get("own", "-").encode(), sent.get("own-bin", b"-"), request])


def echo(request, context):
    return request


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def join(requests, context):
    return b",".join(requests)


def chat(requests, context):
    for request in requests:
        yield b"re: " + request


def fail(request, context):
    context.set_trailing_metadata((("why", "missing"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00e9 100%")


def break_off(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "no third")


def wait(request, context):
    """Does not return before its caller has gone."""
    gone = Event()
    context.add_callback(gone.set)
    # Without a deadline the time is that until the end of all time.
    yield b"left" if context.time_remaining() < 60 else b"endless"
    gone.wait()
    cancelled.set()


def was_cancelled(request, context):
    """Returns once one more call of `wait` has been cancelled."""
    seen = cancelled.wait(context.time_remaining())
    cancelled.clear()
    return b"yes" if seen else b"no"


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "BreakOff": grpc.unary_stream_rpc_method_handler(break_off),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}

server = grpc.server(ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peers.Peer", METHODS),))
if len(sys.argv) > 2:
    certificate, key = (open(path, "rb").read() for path in sys.argv[2:4])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None)
