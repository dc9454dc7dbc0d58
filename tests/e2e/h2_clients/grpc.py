"""A gRPC server and clients for it, by Debian's python3-grpcio. Messages are bytes, so that nothing has to be generated.

    grpc.py server [CHAIN KEY]       prints the port it listens on, then what a test asks about
    grpc.py CASE ADDRESS [CA]        a case of CASES; prints "done" when everything was as it must be
"""

import concurrent.futures
import sys
import threading
import time

# This file has the module's name.
sys.path = [path for path in sys.path if not path.endswith("h2_clients")]
import grpc  # noqa: E402

PATIENCE = 20
LARGE = bytes(range(256)) * (8 * 1024)
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def unary(request, context):
    context.send_initial_metadata([it for it in context.invocation_metadata() if it[0].startswith("x-own")])
    context.set_trailing_metadata([("x-length", str(len(request))), ("x-end-bin", b"\x00\xff")])
    return request


def down(request, context):
    for count in range(int(request)):
        yield str(count).encode() * 1000


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "t\u00e4xt % and more")


def fail_late(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "late")


def wait(request, context):
    say("deadline", context.time_remaining() is not None and context.time_remaining() < 5)
    gone = threading.Event()
    context.add_callback(gone.set)
    say("cancelled", gone.wait(PATIENCE))
    return b""


HANDLERS = {
    "/test.Test/Unary": grpc.unary_unary_rpc_method_handler(unary),
    "/test.Test/Down": grpc.unary_stream_rpc_method_handler(down),
    "/test.Test/Up": grpc.stream_unary_rpc_method_handler(up),
    "/test.Test/Both": grpc.stream_stream_rpc_method_handler(both),
    "/test.Test/Fail": grpc.unary_unary_rpc_method_handler(fail),
    "/test.Test/FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "/test.Test/Wait": grpc.unary_unary_rpc_method_handler(wait),
}


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return HANDLERS.get(details.method)


def serve(*certificate):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=SIZES)
    server.add_generic_rpc_handlers([Service()])
    if certificate:
        chain, key = (open(path, "rb").read() for path in certificate)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port)
    server.wait_for_termination()


def calls(channel):
    """The four kinds of call, with messages of all sizes and metadata both ways."""
    call = channel.unary_unary("/test.Test/Unary")
    for message in [b"", b"x", b"x" * 16_384, LARGE]:
        own = [("x-own", "1"), ("x-own-bin", b"\x00\xfe")]
        answer, facts = call.with_call(message, metadata=own, timeout=PATIENCE)
        assert answer == message
        assert all(field in facts.initial_metadata() for field in own), facts.initial_metadata()
        trailing = dict(facts.trailing_metadata())
        assert trailing["x-length"] == str(len(message)) and trailing["x-end-bin"] == b"\x00\xff", trailing
        assert facts.code() == grpc.StatusCode.OK
    answers = list(channel.unary_stream("/test.Test/Down")(b"500", timeout=PATIENCE))
    assert answers == [str(count).encode() * 1000 for count in range(500)]
    assert list(channel.unary_stream("/test.Test/Down")(b"0", timeout=PATIENCE)) == []
    sent = channel.stream_unary("/test.Test/Up")(iter([LARGE, b"", b"abc"]), timeout=PATIENCE)
    assert sent == str(len(LARGE) + 3).encode()
    assert channel.stream_unary("/test.Test/Up")(iter([]), timeout=PATIENCE) == b"0"
    assert list(channel.stream_stream("/test.Test/Both")(iter([LARGE] * 5), timeout=PATIENCE)) == [LARGE] * 5


def dialogue(channel):
    """Each message goes out when the last one's answer is here: nothing waits for the end of a stream."""
    answered = threading.Semaphore(1)

    def questions():
        for count in range(50):
            answered.acquire()
            yield str(count).encode()

    for count, answer in enumerate(channel.stream_stream("/test.Test/Both")(questions(), timeout=PATIENCE)):
        assert answer == str(count).encode()
        answered.release()


def many(channel):
    call = channel.unary_unary("/test.Test/Unary")
    futures = [call.future(str(count).encode() * 100, timeout=PATIENCE) for count in range(300)]
    for count, future in enumerate(futures):
        assert future.result() == str(count).encode() * 100


def errors(channel):
    error = failure(lambda: channel.unary_unary("/test.Test/Fail")(b"x", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "t\u00e4xt % and more", error
    assert ("x-why", "because") in error.trailing_metadata()
    answers = channel.unary_stream("/test.Test/FailLate")(b"x", timeout=PATIENCE)
    assert next(answers) == b"first"
    error = failure(lambda: next(answers))
    assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "late", error
    error = failure(lambda: channel.unary_unary("/test.Test/Unknown")(b"x", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadline(channel):
    error = failure(lambda: channel.unary_unary("/test.Test/Wait")(b"x", timeout=1))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def cancelled(channel):
    future = channel.unary_unary("/test.Test/Wait").future(b"x")
    time.sleep(0.5)
    future.cancel()
    assert failure(future.result, grpc.FutureCancelledError)


def failure(call, kind=grpc.RpcError):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("it was to fail")


CASES = {case.__name__: case for case in [calls, dialogue, many, errors, deadline, cancelled]}


def run(case, address, *ca):
    if ca:
        credentials = grpc.ssl_channel_credentials(open(ca[0], "rb").read())
        options = [*SIZES, ("grpc.ssl_target_name_override", "example.com")]
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, SIZES)
    with channel:
        CASES[case](channel)
    say("done")


def say(*words):
    print(*words, flush=True)


serve(*sys.argv[2:]) if sys.argv[1] == "server" else run(*sys.argv[1:])
