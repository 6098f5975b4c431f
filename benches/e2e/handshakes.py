#!/usr/bin/env python3
"""What a storm of TLS handshakes does to a client that is logged in already.

One client asks SELECT 1 again and again; meanwhile strangers open connections, send the first message of a TLS handshake
(the same bytes each time, which cost them nothing) and go when the answer has come, which costs the pooler a key
agreement and a signature. Printed: latencies of the client without and with the storm, and handshakes a second.

    handshakes.py [--pgsluice target/release/pgsluice] [--key ec|rsa] [--strangers 200] [--seconds 4]
"""

import argparse
import multiprocessing
import pathlib
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))

from private import Servers, free_port  # noqa: E402


def hello():
    """The bytes of a ClientHello that names PostgreSQL's protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(read, write).do_handshake()
    except ssl.SSLWantReadError:
        return write.read()


def storm(port, strangers, until, done):
    """`strangers` connections at a time, each closed when it is answered and opened anew."""
    first, ready, count = hello(), selectors.DefaultSelector(), 0

    def begin():
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        ready.register(one, selectors.EVENT_WRITE)

    for _ in range(strangers):
        begin()
    while time.monotonic() < until:
        for key, event in ready.select(0.1):
            one = key.fileobj
            try:
                if event & selectors.EVENT_WRITE:
                    one.sendall(first)
                    ready.modify(one, selectors.EVENT_READ)
                    continue
                answered = len(one.recv(8192)) > 100
            except OSError:
                answered = False
            count += answered
            ready.unregister(one)
            one.close()
            begin()
    done.put(count)


def login(port):
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        data += client.recv(65536)
    return client


def latencies(client, until):
    question, times = b"Q" + struct.pack("!i", 13) + b"SELECT 1\0", []
    while time.monotonic() < until:
        began, data = time.perf_counter(), b""
        client.sendall(question)
        while not data.endswith(b"Z\0\0\0\x05I"):
            data += client.recv(65536)
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


def shown(times):
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: E731
    return f"{len(times):>7} queries, ms: p50 {at(0.5):.2f}, p99 {at(0.99):.2f}, max {times[-1]:.2f}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pgsluice", type=pathlib.Path, default="target/release/pgsluice")
    arguments.add_argument("--key", choices=("ec", "rsa"), default="ec")
    arguments.add_argument("--strangers", type=int, default=200)
    arguments.add_argument("--seconds", type=float, default=4)
    options = arguments.parse_args()
    with Servers() as servers:
        postgres = servers.postgres()
        key = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if options.key == "ec" else ["rsa:2048"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-subj", "/CN=localhost", "-days", "2",
                        "-keyout", servers.dir / "key.pem", "-out", servers.dir / "cert.pem"],
                       check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        servers.spawn("pgsluice", [options.pgsluice.resolve(), "run"], port=port, env={
            "DATABASE_URL": f"postgres://postgres@127.0.0.1:{postgres.port}/postgres", "PGSLUICE_AUTH_TYPE": "trust",
            "PGSLUICE_LISTEN": f"127.0.0.1:{port}", "PGSLUICE_HTTP_LISTEN": "off", "PGSLUICE_LOG_LEVEL": "error",
            "PGSLUICE_CLIENT_TLS_CERT_FILE": str(servers.dir / "cert.pem"),
            "PGSLUICE_CLIENT_TLS_KEY_FILE": str(servers.dir / "key.pem")})
        client = login(port)
        latencies(client, time.monotonic() + 0.5)
        print("alone ", shown(latencies(client, time.monotonic() + options.seconds)), flush=True)
        done, until = multiprocessing.Queue(), time.monotonic() + options.seconds + 1
        stormers = [multiprocessing.Process(target=storm, args=(port, options.strangers // 2, until, done)) for _ in range(2)]
        for stormer in stormers:
            stormer.start()
        time.sleep(0.5)
        print("storm ", shown(latencies(client, time.monotonic() + options.seconds)), flush=True)
        count = sum(done.get() for _ in stormers)
        for stormer in stormers:
            stormer.join()
        print(f"        {count / (options.seconds + 1):.0f} handshakes a second", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
