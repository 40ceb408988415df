"""Bytes and text: what goes over the wire, as pure functions. No I/O, no async."""
