"""gRPC in and out: the only room of the server that speaks protobuf.

A call passes the gate (``interceptors``, ``layers``), reaches a servicer, and leaves as a message or as an error that
``status`` made. ``server`` joins these; ``convert`` turns messages into values and back.
"""
