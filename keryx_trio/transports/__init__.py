"""One file a transport: each reads bytes and makes a call, and writes what the call answers."""
