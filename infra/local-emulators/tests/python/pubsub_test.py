"""Google's Python client against a Pub/Sub emulator, the one PUBSUB_EMULATOR_HOST names.

Ordinary flows only, nothing of the emulator's own: the script runs as well against Google's (GOOGLE=1).
"""

import base64
import json
import os
import queue
import threading
import time
import unittest
import uuid
from concurrent.futures import TimeoutError as FutureTimeout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.protobuf import field_mask_pb2, timestamp_pb2
from google.pubsub_v1 import types

from known import not_by_googles

PROJECT = "python-test"
# Longer than anything takes that isn't broken.
LONG = 30


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        cls.publisher = pubsub_v1.PublisherClient(publisher_options=options)
        cls.subscriber = pubsub_v1.SubscriberClient()

    @classmethod
    def tearDownClass(cls):
        cls.publisher.stop()
        cls.subscriber.close()

    def topic(self, **settings):
        name = self.publisher.topic_path(PROJECT, unique("topic"))
        self.publisher.create_topic(request={"name": name, **settings})
        return name

    def subscription(self, topic, **settings):
        name = self.subscriber.subscription_path(PROJECT, unique("subscription"))
        self.subscriber.create_subscription(
            request={"name": name, "topic": topic, **settings}
        )
        return name

    def publish(self, topic, *texts, **attributes):
        """Publishes in order, each text before the next; answers the ids."""
        return [
            self.publisher.publish(topic, text.encode(), **attributes).result(LONG)
            for text in texts
        ]

    def pull(self, subscription, count):
        """Exactly the next `count` messages."""
        received = []
        until = time.monotonic() + LONG
        while len(received) < count:
            self.assertLess(time.monotonic(), until, f"{len(received)} of {count} came")
            response = self.subscriber.pull(
                request={
                    "subscription": subscription,
                    "max_messages": count - len(received),
                },
                timeout=LONG,
            )
            received.extend(response.received_messages)
        return received

    def ack(self, subscription, received):
        ids = [each.ack_id for each in received]
        self.subscriber.acknowledge(
            request={"subscription": subscription, "ack_ids": ids}
        )

    def nack(self, subscription, received):
        self.subscriber.modify_ack_deadline(
            request={
                "subscription": subscription,
                "ack_ids": [each.ack_id for each in received],
                "ack_deadline_seconds": 0,
            }
        )


def texts(received):
    return [each.message.data.decode() for each in received]


class Administration(Case):
    def test_topics_are_created_listed_and_deleted(self):
        topic = self.topic(labels={"env": "test"})
        self.assertEqual(
            self.publisher.get_topic(request={"topic": topic}).labels["env"], "test"
        )
        with self.assertRaises(exceptions.AlreadyExists):
            self.publisher.create_topic(request={"name": topic})
        listed = self.publisher.list_topics(request={"project": f"projects/{PROJECT}"})
        self.assertIn(topic, [each.name for each in listed])
        self.publisher.delete_topic(request={"topic": topic})
        with self.assertRaises(exceptions.NotFound):
            self.publisher.get_topic(request={"topic": topic})

    @not_by_googles
    def test_topics_are_updated_by_mask(self):
        topic = self.topic(labels={"env": "test"})
        updated = self.publisher.update_topic(
            request={
                "topic": types.Topic(name=topic, labels={"env": "other"}),
                "update_mask": field_mask_pb2.FieldMask(paths=["labels"]),
            }
        )
        self.assertEqual(updated.labels["env"], "other")

    def test_lists_come_in_pages(self):
        topic = self.topic()
        names = sorted(self.subscription(topic) for _ in range(5))
        pager = self.publisher.list_topic_subscriptions(
            request={"topic": topic, "page_size": 2}
        )
        pages = [list(page.subscriptions) for page in pager.pages]
        self.assertTrue(all(len(page) <= 2 for page in pages))
        self.assertEqual(sorted(sum(pages, [])), names)

    def test_subscriptions_are_updated_by_mask(self):
        topic = self.topic()
        name = self.subscription(topic, ack_deadline_seconds=20)
        updated = self.subscriber.update_subscription(
            request={
                "subscription": types.Subscription(name=name, ack_deadline_seconds=60),
                "update_mask": field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]),
            }
        )
        self.assertEqual(updated.ack_deadline_seconds, 60)
        self.assertEqual(updated.topic, topic)
        self.subscriber.delete_subscription(request={"subscription": name})
        with self.assertRaises(exceptions.NotFound):
            self.subscriber.get_subscription(request={"subscription": name})

    def test_what_is_missing_is_not_found(self):
        nowhere = self.publisher.topic_path(PROJECT, unique("nowhere"))
        with self.assertRaises(exceptions.NotFound):
            self.subscription(nowhere)
        with self.assertRaises(exceptions.NotFound):
            self.publisher.publish(nowhere, b"x").result(LONG)


class Delivery(Case):
    def test_messages_carry_data_attributes_and_ids(self):
        topic = self.topic()
        subscription = self.subscription(topic)
        ids = self.publish(topic, "hello", kind="greeting")
        received = self.pull(subscription, 1)
        message = received[0].message
        self.assertEqual(message.data, b"hello")
        self.assertEqual(message.attributes["kind"], "greeting")
        self.assertEqual(message.message_id, ids[0])
        self.ack(subscription, received)

    def test_streaming_pull_keeps_the_order_of_keys(self):
        topic = self.topic()
        subscription = self.subscription(topic, enable_message_ordering=True)
        sent = [
            self.publisher.publish(topic, str(n).encode(), ordering_key=f"key-{n % 5}")
            for n in range(200)
        ]
        for future in sent:
            future.result(LONG)
        seen, done = {}, threading.Event()
        lock = threading.Lock()

        def callback(message):
            with lock:
                seen.setdefault(message.ordering_key, []).append(int(message.data))
                if sum(map(len, seen.values())) >= 200:
                    done.set()
            message.ack()

        pulling = self.subscriber.subscribe(subscription, callback=callback)
        self.assertTrue(done.wait(LONG))
        pulling.cancel()
        pulling.result(LONG)
        for key, numbers in seen.items():
            once = list(dict.fromkeys(numbers))
            self.assertEqual(once, sorted(once), key)

    def test_a_nacked_message_comes_again(self):
        topic = self.topic()
        subscription = self.subscription(topic)
        self.publish(topic, "again")
        seen = queue.Queue()

        def callback(message):
            first = seen.empty()
            seen.put(message.message_id)
            message.nack() if first else message.ack()
            if not first:
                done.set()

        done = threading.Event()
        pulling = self.subscriber.subscribe(subscription, callback=callback)
        self.assertTrue(done.wait(LONG))
        pulling.cancel()
        pulling.result(LONG)
        self.assertEqual(seen.get(), seen.get())

    def test_flow_control_bounds_what_is_out(self):
        topic = self.topic()
        subscription = self.subscription(topic)
        self.publish(topic, *map(str, range(20)))
        out, held, lock = [], [], threading.Lock()
        full = threading.Event()

        def callback(message):
            with lock:
                held.append(message)
                out.append(message.message_id)
                if len(out) >= 3:
                    full.set()

        pulling = self.subscriber.subscribe(
            subscription,
            callback=callback,
            flow_control=pubsub_v1.types.FlowControl(max_messages=3),
        )
        self.assertTrue(full.wait(LONG))
        with self.assertRaises(FutureTimeout):
            pulling.result(1)
        self.assertEqual(len(out), 3)
        pulling.cancel()
        for message in held:
            message.ack()
        pulling.result(LONG)

    @not_by_googles
    def test_a_filter_lets_only_matching_messages_in(self):
        topic = self.topic()
        subscription = self.subscription(
            topic, filter='attributes.lang = "en" AND NOT attributes:draft'
        )
        self.publish(topic, "no", lang="de")
        self.publish(topic, "no", lang="en", draft="yes")
        self.publish(topic, "yes", lang="en")
        self.assertEqual(texts(self.pull(subscription, 1)), ["yes"])

    @not_by_googles
    def test_a_dead_letter_is_forwarded_after_five_attempts(self):
        topic, grave = self.topic(), self.topic()
        subscription = self.subscription(
            topic,
            dead_letter_policy=types.DeadLetterPolicy(
                dead_letter_topic=grave, max_delivery_attempts=5
            ),
        )
        buried = self.subscription(grave)
        self.publish(topic, "cursed")
        for attempt in range(1, 6):
            received = self.pull(subscription, 1)
            self.assertEqual(received[0].delivery_attempt, attempt)
            self.nack(subscription, received)
        self.assertEqual(texts(self.pull(buried, 1)), ["cursed"])


class Seeking(Case):
    def test_a_seek_to_a_time_brings_acknowledged_messages_back(self):
        topic = self.topic()
        subscription = self.subscription(topic, retain_acked_messages=True)
        self.publish(topic, "a", "b")
        self.ack(subscription, self.pull(subscription, 2))
        beginning = timestamp_pb2.Timestamp(seconds=1)
        self.subscriber.seek(
            request={"subscription": subscription, "time": beginning}
        )
        self.assertEqual(sorted(texts(self.pull(subscription, 2))), ["a", "b"])

    def test_a_snapshot_brings_back_what_was_open(self):
        topic = self.topic()
        subscription = self.subscription(topic)
        self.publish(topic, "a")
        self.ack(subscription, self.pull(subscription, 1))
        self.publish(topic, "b")
        snapshot = self.subscriber.snapshot_path(PROJECT, unique("snapshot"))
        self.subscriber.create_snapshot(
            request={"name": snapshot, "subscription": subscription}
        )
        self.publish(topic, "c")
        self.ack(subscription, self.pull(subscription, 2))
        self.subscriber.seek(
            request={"subscription": subscription, "snapshot": snapshot}
        )
        self.assertEqual(sorted(texts(self.pull(subscription, 2))), ["b", "c"])
        self.subscriber.delete_snapshot(request={"snapshot": snapshot})


class Pushing(Case):
    def setUp(self):
        pushed = self.pushed = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["content-length"])
                body = json.loads(self.rfile.read(length))
                pushed.put((self.headers.get("authorization"), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("localhost", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://localhost:{self.server.server_port}/push"

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    @not_by_googles
    def test_messages_are_pushed_with_a_token_that_verifies(self):
        topic = self.topic()
        subscription = self.subscription(
            topic,
            push_config=types.PushConfig(
                push_endpoint=self.endpoint,
                oidc_token=types.PushConfig.OidcToken(
                    service_account_email="pusher@example.com", audience="audience"
                ),
            ),
        )
        ids = self.publish(topic, "pushed", kind="greeting")
        authorization, body = self.pushed.get(timeout=LONG)
        self.assertEqual(body["subscription"], subscription)
        self.assertEqual(base64.b64decode(body["message"]["data"]), b"pushed")
        self.assertEqual(body["message"]["messageId"], ids[0])
        self.assertEqual(body["message"]["attributes"], {"kind": "greeting"})
        self.assertIsNotNone(authorization)
        token = authorization.removeprefix("Bearer ")
        issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
        # The emulator may name Google as the issuer, as the service does; the keys are its own.
        keys = jwt.PyJWKClient(f"http://{os.environ['PUBSUB_EMULATOR_HOST']}/oauth2/v3/certs")
        claims = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token).key,
            algorithms=["RS256"],
            audience="audience",
            issuer=issuer,
        )
        self.assertEqual(claims["email"], "pusher@example.com")

    def test_a_subscription_turns_from_pull_to_push(self):
        topic = self.topic()
        subscription = self.subscription(topic)
        ids = self.publish(topic, "waiting")
        self.subscriber.modify_push_config(
            request={
                "subscription": subscription,
                "push_config": types.PushConfig(push_endpoint=self.endpoint),
            }
        )
        _, body = self.pushed.get(timeout=LONG)
        self.assertEqual(body["message"]["messageId"], ids[0])


if __name__ == "__main__":
    if not os.environ.get("PUBSUB_EMULATOR_HOST"):
        raise SystemExit("PUBSUB_EMULATOR_HOST must name an emulator")
    unittest.main(verbosity=2)
