"""Runs a server where only this machine can reach it: the server itself would listen on every interface.

``python loopback.py SERVER PORT``: listens on 127.0.0.1, then enters a network of its own, in which it starts
``SERVER PORT``, and passes connections on. Linux only. The server ends with this process.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import signal
import socket
import struct
import subprocess
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def enter_a_network_of_its_own() -> None:
    """Leave this machine's network; only the loopback interface is there, and up."""
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sh", b"lo", 0)
        (flags,) = struct.unpack("16xh", fcntl.ioctl(asking, SIOCGIFFLAGS, request)[:18])
        fcntl.ioctl(asking, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def dies_with_its_parent() -> None:
    """For the server, before it begins."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, to its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(listening: socket.socket, port: int) -> None:
    """Pass on every connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # it does not listen yet: whoever has connected tries again
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(connected, sock=listening) as server:
        await server.serve_forever()


def main(server: str, port: int) -> None:
    """Serve until it is stopped."""
    listening = socket.create_server(("127.0.0.1", port))
    enter_a_network_of_its_own()
    with subprocess.Popen([server, str(port)], preexec_fn=dies_with_its_parent):  # noqa: PLW1509 - one thread
        asyncio.run(serve(listening, port))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:] == ["--try"]:
        enter_a_network_of_its_own()
    else:
        main(sys.argv[1], int(sys.argv[2]))
