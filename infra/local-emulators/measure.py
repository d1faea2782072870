"""Start time and memory of the Pub/Sub and Firestore emulators, ours or Google's.

    make test-python                                                          # installs the clients, once
    target/python/bin/python infra/local-emulators/measure.py --build debug   # or release; build it first
    target/python/bin/python infra/local-emulators/measure.py --google        # by gcloud

Memory is that of all processes started, Java and gcloud's own Python apart. It reads /proc: Linux only.
"""

import argparse
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STARTS, MESSAGES, DOCUMENTS = 5, 100_000, 10_000


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Emulators:
    """Started, and answering on both ports; `seconds` is how long that took."""

    def __init__(self, options):
        ports = self.pubsub, self.firestore = free_port(), free_port()
        data = tempfile.mkdtemp()
        if options.google:
            gcloud = ["gcloud", "--quiet"]
            commands = [
                [*gcloud, "beta", "emulators", "pubsub", "start", "--project=p", f"--data-dir={data}"]
                + [f"--host-port=127.0.0.1:{self.pubsub}"],
                [*gcloud, "emulators", "firestore", "start", f"--host-port=127.0.0.1:{self.firestore}"],
            ]
        else:
            program = ROOT / "target" / options.build / "infrachat-emulators"
            commands = [
                [program, f"--pubsub=127.0.0.1:{self.pubsub}"]
                + [f"--firestore=127.0.0.1:{self.firestore}", "--control=127.0.0.1:0"]
            ]
        began = time.monotonic()
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes = [subprocess.Popen(each, start_new_session=True, **quiet) for each in commands]
        for port in ports:
            while not self.answers(port):
                if any(process.poll() is not None for process in self.processes):
                    raise SystemExit("an emulator has ended: is it built, is gcloud complete?")
                time.sleep(0.002)
        self.seconds = time.monotonic() - began

    @staticmethod
    def answers(port):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200
        except OSError:
            return False

    def memory(self):
        """Resident MiB by kind of program."""
        sizes = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            fields = rest.split()
            if int(fields[3]) in [process.pid for process in self.processes]:
                sizes[name] = sizes.get(name, 0) + int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        return ", ".join(f"{name} {size:.0f} MiB" for name, size in sizes.items())

    def stop(self):
        for process in self.processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def messages(port):
    os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{port}"
    from google.cloud import pubsub_v1

    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    topic, subscription = "projects/p/topics/measured", "projects/p/subscriptions/measured"
    publisher.create_topic(name=topic)
    subscriber.create_subscription(name=subscription, topic=topic)
    for future in [publisher.publish(topic, b"x" * 200) for _ in range(MESSAGES)]:
        future.result()
    left = MESSAGES
    while left > 0:
        received = subscriber.pull(subscription=subscription, max_messages=1000).received_messages
        if received:
            subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in received])
        left -= len(received)


def documents(port):
    os.environ["FIRESTORE_EMULATOR_HOST"] = f"127.0.0.1:{port}"
    from google.cloud import firestore

    client = firestore.Client(project="p")
    for start in range(0, DOCUMENTS, 500):
        batch = client.batch()
        for number in range(start, start + 500):
            batch.set(client.document(f"c/d{number}"), {"n": number, "text": "x" * 200})
        batch.commit()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", choices=["debug", "release"], default="debug")
    parser.add_argument("--google", action="store_true")
    options = parser.parse_args()
    seconds = []
    for _ in range(STARTS):
        emulators = Emulators(options)
        seconds.append(emulators.seconds)
        emulators.stop()
    print("start, s:", " ".join(f"{each:.3f}" for each in sorted(seconds)))
    emulators = Emulators(options)
    try:
        print("idle:", emulators.memory())
        for what, count, run in [
            ("messages published and acknowledged", MESSAGES, lambda: messages(emulators.pubsub)),
            ("documents", DOCUMENTS, lambda: documents(emulators.firestore)),
        ]:
            began = time.monotonic()
            run()
            print(f"after {count:,} {what} ({time.monotonic() - began:.1f} s):", emulators.memory())
    finally:
        emulators.stop()


if __name__ == "__main__":
    main()
