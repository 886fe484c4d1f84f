#!/usr/bin/env python3
"""The bus between nodes beside others' on the same machine, in turn: sixnines and bare QUIC (`nines bench discs`), and where they are installed
NATS (nats-server) and corosync's CPG (corosync, libcpg; as root: two daemons in namespaces of their own).

    cargo build --release && tests/beside.py
    tests/beside.py --nines target/release/nines --rounds 5000 --json beside.json

There and back: 64 bytes to another process that answers, microseconds. One way: messages a second until the last one has arrived. NATS and CPG run in
the clear, sixnines and bare QUIC encrypted. What is not installed is named and left out. Exit 0; 1 if something that is installed could not be measured.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SIZE = 64
WARM_UP = 500
PATIENCE = 20.0  # seconds; far beyond what anything takes that works
ONE_WAY = {"64-B": (64, 1_000_000), "1-KiB": (1024, 300_000)}
CPG_ONE_WAY = {"64-B": (64, 50_000), "1-KiB": (1024, 50_000)}


def spread(name, seconds):
    values = sorted(s * 1e6 for s in seconds)
    at = lambda part: round(values[min(len(values) - 1, int(len(values) * part))], 1)
    return {"name": name, "n": len(values), "median": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": round(values[-1], 1), "unit": "us"}


def rate(name, count, seconds):
    return {"name": name, "n": 1, "per_second": round(count / seconds), "unit": "1/s"}


# ---- sixnines, bare QUIC ------------------------------------------------------------------------------------------------


def ours(nines, rounds):
    done = subprocess.run([nines, "bench", "discs", "--rounds", str(rounds), "--seconds", "1", "--json", "-"], check=True, stdout=subprocess.PIPE)
    wanted = {
        "there-and-back/state/1-link/callback": "there-and-back/sixnines",
        "there-and-back/raw": "there-and-back/quic",
        "one-way/64-B": "one-way/64-B/sixnines",
        "one-way/1-KiB": "one-way/1-KiB/sixnines",
    }
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    return [{**rows[name], "name": ours} for name, ours in wanted.items()]


# ---- NATS ---------------------------------------------------------------------------------------------------------------


class Nats:
    """As much of a client as a measurement needs."""

    def __init__(self, port):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.line()  # INFO
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        self.settle()

    def line(self):
        while b"\r\n" not in self.rest:
            self.take()
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def take(self):
        more = self.socket.recv(1 << 20)
        if not more:
            raise ConnectionError("nats-server closed the connection")
        self.rest += more

    def settle(self):
        """Until the server has done all that it was sent."""
        self.socket.sendall(b"PING\r\n")
        while self.line() != b"PONG":
            pass

    def message(self):
        while True:
            head = self.line()
            if head == b"PING":
                self.socket.sendall(b"PONG\r\n")
            elif head.startswith(b"MSG "):
                break
        length = int(head.rsplit(b" ", 1)[1])
        while len(self.rest) < length + 2:
            self.take()
        body, self.rest = self.rest[:length], self.rest[length + 2 :]
        return body


def nats_echo(port, ready):
    nats = Nats(port)
    nats.socket.sendall(b"SUB ask 1\r\n")
    nats.settle()
    ready.send(None)
    while True:
        nats.socket.sendall(b"PUB answer %d\r\n%s\r\n" % (SIZE, nats.message()))


def nats_count(port, size, count, ready):
    nats = Nats(port)
    nats.socket.sendall(b"SUB flood 1\r\n")
    nats.settle()
    ready.send(None)
    due = count * len(b"MSG flood 1 %d\r\n%s\r\n" % (size, bytes(size)))
    got = len(nats.rest)
    buffer = bytearray(1 << 20)
    while got < due:
        more = nats.socket.recv_into(buffer)
        if more == 0:
            raise ConnectionError("nats-server dropped the subscriber")
        got += more
    ready.send(time.monotonic())


@contextlib.contextmanager
def helper(target, *arguments):
    """Another process, with a line to it; it has said that it is ready."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    try:
        hear(here)
        yield here
    finally:
        process.terminate()
        process.join()


def hear(line):
    if not line.poll(PATIENCE * 3):
        raise TimeoutError("the other process says nothing")
    return line.recv()


def nats(server, rounds):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = subprocess.Popen([server, "-a", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return nats_rows(port, rounds)
    finally:
        daemon.terminate()
        daemon.wait()


def nats_rows(port, rounds):
    rows = []
    client = Nats(port)
    client.socket.sendall(b"SUB answer 1\r\n")
    client.settle()
    ask = b"PUB ask %d\r\n%s\r\n" % (SIZE, b"x" * SIZE)
    with helper(nats_echo, port):
        times = []
        for _ in range(rounds + WARM_UP):
            begin = time.monotonic()
            client.socket.sendall(ask)
            client.message()
            times.append(time.monotonic() - begin)
    rows.append(spread("there-and-back/nats", times[WARM_UP:]))
    for word, (size, count) in ONE_WAY.items():
        one = b"PUB flood %d\r\n%s\r\n" % (size, b"x" * size)
        together = max(1, 65_536 // len(one))
        with helper(nats_count, port, size, count) as line:
            begin = time.monotonic()
            for _ in range(count // together):
                client.socket.sendall(one * together)
            client.socket.sendall(one * (count % together))
            rows.append(rate(f"one-way/{word}/nats", count, hear(line) - begin))
    return rows


# ---- corosync's CPG -----------------------------------------------------------------------------------------------------


class Cpg:
    """libcpg, for one group."""

    class Name(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("value", ctypes.c_char * 128)]

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]

    DELIVER = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    CHANGE = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_void_p, ctypes.c_size_t] * 3)
    OK, TRY_AGAIN, AGREED = 1, 6, 2
    WAIT_FOR_ONE, ALL_THERE_IS = 1, 2

    class Callbacks(ctypes.Structure):
        pass

    def __init__(self, on_message):
        self.library = ctypes.CDLL("libcpg.so.4")
        deliver = lambda handle, group, node, pid, body, length: on_message(ctypes.string_at(body, min(length, 16)))
        self.callbacks = self.Callbacks(self.DELIVER(deliver), self.CHANGE(lambda *_: None))
        self.handle = ctypes.c_uint64()
        self.patiently(lambda: self.library.cpg_initialize(ctypes.byref(self.handle), ctypes.byref(self.callbacks)))
        name = self.Name(5, b"bench")
        self.patiently(lambda: self.library.cpg_join(self.handle, ctypes.byref(name)))

    def patiently(self, call):
        deadline = time.monotonic() + PATIENCE
        while (code := call()) != self.OK:
            if time.monotonic() > deadline:
                raise TimeoutError(f"libcpg answers {code}")
            time.sleep(0.05)

    def send(self, body):
        vector = self.Vector(body, len(body))
        while (code := self.library.cpg_mcast_joined(self.handle, self.AGREED, ctypes.byref(vector), 1)) == self.TRY_AGAIN:
            self.dispatch(self.ALL_THERE_IS)
        if code != self.OK:
            raise OSError(f"cpg_mcast_joined: {code}")

    def dispatch(self, what=WAIT_FOR_ONE):
        if (code := self.library.cpg_dispatch(self.handle, what)) not in (self.OK, self.TRY_AGAIN):
            raise OSError(f"cpg_dispatch: {code}")


Cpg.Callbacks._fields_ = [("deliver", Cpg.DELIVER), ("change", Cpg.CHANGE)]


def cpg_answerer():
    """On the second node: answers what is asked, and says when the last of a flood has come."""
    waiting = []
    cpg = Cpg(waiting.append)
    while True:
        cpg.dispatch()
        for body in waiting:
            if body.startswith((b"ask", b"end")):
                cpg.send(b"answer".ljust(SIZE, b"."))
        waiting.clear()


def cpg_asker(rounds):
    """On the first node."""
    answers = []
    cpg = Cpg(lambda body: answers.append(body) if body.startswith(b"answer") else None)

    def wait_for_answer():
        while not answers:
            cpg.dispatch()
        answers.clear()

    # What is sent before the second node is a member nobody answers; what it then answers late must not be taken for a later answer.
    deadline = time.monotonic() + PATIENCE
    while not answers:
        if time.monotonic() > deadline:
            raise TimeoutError("the second node does not answer")
        cpg.send(b"ask".ljust(SIZE, b"."))
        time.sleep(0.1)
        cpg.dispatch(cpg.ALL_THERE_IS)
    time.sleep(0.5)
    cpg.dispatch(cpg.ALL_THERE_IS)
    answers.clear()
    times = []
    for _ in range(rounds + WARM_UP):
        begin = time.monotonic()
        cpg.send(b"ask".ljust(SIZE, b"."))
        wait_for_answer()
        times.append(time.monotonic() - begin)
    rows = [spread("there-and-back/cpg", times[WARM_UP:])]
    for word, (size, count) in CPG_ONE_WAY.items():
        begin = time.monotonic()
        for _ in range(count):
            cpg.send(b"flood".ljust(size, b"."))
        cpg.send(b"end".ljust(SIZE, b"."))
        wait_for_answer()
        rows.append(rate(f"one-way/{word}/cpg", count, time.monotonic() - begin))
    print(json.dumps(rows))


COROSYNC_CONF = """
totem {
    version: 2
    cluster_name: bench
    transport: knet
    crypto_cipher: none
    crypto_hash: none
    token: 1000
}
quorum {
    provider: corosync_votequorum
    two_node: 1
    wait_for_all: 0
}
logging {
    to_stderr: yes
    to_syslog: no
}
nodelist {
    node {
        ring0_addr: 10.99.0.1
        name: n1
        nodeid: 1
    }
    node {
        ring0_addr: 10.99.0.2
        name: n2
        nodeid: 2
    }
}
"""


def corosync(daemon, rounds):
    """Two daemons, each with network, shared memory and run directory of its own, on two ends of a cable."""
    with tempfile.TemporaryDirectory(prefix="sixnines-beside-") as directory, contextlib.ExitStack() as running:
        conf = os.path.join(directory, "corosync.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(COROSYNC_CONF)

        def start(command, **more):
            process = subprocess.Popen(command, **more)
            running.callback(lambda: (process.send_signal(signal.SIGKILL), process.wait()))
            return process

        own = "for d in /dev/shm /run /var/lib/corosync /var/log; do mount -t tmpfs none $d; done; mkdir -p /run/lock /var/log/corosync; echo ready; exec sleep infinity"
        rooms = [start(["unshare", "--net", "--mount", "--uts", "sh", "-c", own], stdout=subprocess.PIPE) for _ in range(2)]
        for room in rooms:
            room.stdout.readline()
        inside = lambda room, *command: ["nsenter", "-t", str(room.pid), "-n", "-m", "-u", *command]
        subprocess.run(inside(rooms[0], "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(rooms[1].pid)), check=True)
        for number, room in enumerate(rooms, 1):
            for line in (["hostname", f"n{number}"], ["ip", "addr", "add", f"10.99.0.{number}/24", "dev", "cable"], ["ip", "link", "set", "cable", "up"], ["ip", "link", "set", "lo", "up"]):
                subprocess.run(inside(room, *line), check=True)
        for room in rooms:
            start(inside(room, daemon, "-f", "-c", conf), stderr=subprocess.DEVNULL)
        me = [sys.executable, os.path.abspath(__file__)]
        start(inside(rooms[1], *me, "--cpg-answerer"))
        done = subprocess.run(inside(rooms[0], *me, "--cpg-asker", str(rounds)), stdout=subprocess.PIPE, check=True, timeout=PATIENCE * 15)
        return json.loads(done.stdout)


# ---- all in turn ----------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nines", default="target/release/nines", metavar="FILE", help="the binary [%(default)s]")
    parser.add_argument("--rounds", type=int, default=10_000, help="there and back [%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="where the rows go, as one object")
    parser.add_argument("--cpg-answerer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cpg-asker", type=int, metavar="ROUNDS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpg_answerer:
        return cpg_answerer()
    if options.cpg_asker:
        return cpg_asker(options.cpg_asker)
    if not os.access(options.nines, os.X_OK):
        parser.error(f"{options.nines} is no program; build it (cargo build --release) or say where it is (--nines FILE)")

    rows, failed = [], False
    daemons = {name: shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") for name in ("nats-server", "corosync")}
    parts = [("sixnines and bare QUIC", options.nines, ours), ("nats-server", daemons["nats-server"], nats), ("corosync", daemons["corosync"], corosync)]
    for name, program, measure in parts:
        if program is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        if name == "corosync" and os.geteuid() != 0:
            print("corosync: its daemons want root, left out", file=sys.stderr)
            continue
        print(f"{name} ...", file=sys.stderr)
        try:
            rows += measure(program, options.rounds)
        except (OSError, subprocess.SubprocessError, TimeoutError, ValueError, KeyError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    for row in sorted(rows, key=lambda row: row["name"]):
        if "per_second" in row and row["per_second"] is not None:
            print(f"{row['name']:28} {row['per_second']:>12,.0f} a second")
        else:
            print(f"{row['name']:28} {row['median']:>8.1f} us   p95 {row['p95']:.1f}   p99 {row['p99']:.1f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"bench": "beside", "rows": rows}, file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
