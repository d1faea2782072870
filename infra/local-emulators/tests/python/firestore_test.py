"""Ordinary flows of google-cloud-firestore against the emulator at FIRESTORE_EMULATOR_HOST.

Nothing here is particular to this emulator, so the same script runs against Google's.
"""

import concurrent.futures
import datetime
import os
import queue
import sys
import unittest
import uuid

from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import And, FieldFilter, Or

from known import not_by_googles

PATIENCE = 20


def client(database="(default)"):
    return firestore.Client(project="emulated", database=database)


class FirestoreTest(unittest.TestCase):
    def setUp(self):
        self.db = client()
        self.prefix = "t" + uuid.uuid4().hex
        self.items = self.db.collection(self.prefix)

    def put(self, **documents):
        for name, fields in documents.items():
            self.items.document(name).set(fields)


class Documents(FirestoreTest):
    def test_a_document_is_created_read_updated_and_deleted(self):
        ref = self.items.document("a")
        moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.timezone.utc)
        fields = {
            "null": None,
            "bool": True,
            "int": 2**62,
            "float": 1.5,
            "text": "æøå 😀",
            "bytes": b"\x00\xff",
            "time": moment,
            "list": [1, "two", {"three": 3}],
            "map": {"nested": {"deep": [1]}},
            "place": firestore.GeoPoint(1.5, -2.5),
            "ref": ref,
        }
        created = ref.create(fields)
        found = ref.get()
        self.assertTrue(found.exists)
        self.assertEqual(found.to_dict(), fields)
        self.assertEqual(found.update_time, created.update_time)
        ref.update({"map.nested.deep": [2], "bool": firestore.DELETE_FIELD})
        found = ref.get()
        self.assertEqual(found.get("map.nested.deep"), [2])
        self.assertNotIn("bool", found.to_dict())
        self.assertGreater(found.update_time, found.create_time)
        self.assertEqual(ref.get(field_paths=["map.nested"]).to_dict(), {"map": {"nested": {"deep": [2]}}})
        ref.delete()
        self.assertFalse(ref.get().exists)

    def test_creating_what_exists_is_a_conflict(self):
        self.put(a={"n": 1})
        with self.assertRaises(exceptions.Conflict):
            self.items.document("a").create({"n": 2})

    def test_updating_what_is_missing_is_not_found(self):
        with self.assertRaises(exceptions.NotFound):
            self.items.document("missing").update({"n": 1})

    def test_an_update_time_that_is_not_the_last_is_refused(self):
        ref = self.items.document("a")
        first = ref.set({"n": 1})
        ref.update({"n": 2})
        stale = self.db.write_option(last_update_time=first.update_time)
        with self.assertRaises(exceptions.FailedPrecondition):
            ref.update({"n": 3}, option=stale)
        fresh = self.db.write_option(last_update_time=ref.get().update_time)
        ref.update({"n": 3}, option=fresh)
        self.assertEqual(ref.get().get("n"), 3)

    def test_merging_keeps_the_other_fields(self):
        ref = self.items.document("a")
        ref.set({"a": 1, "b": {"x": 1, "y": 2}})
        ref.set({"b": {"x": 5}}, merge=True)
        self.assertEqual(ref.get().to_dict(), {"a": 1, "b": {"x": 5, "y": 2}})

    def test_transforms(self):
        ref = self.items.document("a")
        ref.set({"n": 1, "list": [1, 2, 3], "high": 5, "low": 5})
        result = ref.update(
            {
                "n": firestore.Increment(2),
                "list": firestore.ArrayUnion([3, 4]),
                "high": firestore.Maximum(9),
                "low": firestore.Minimum(1),
                "at": firestore.SERVER_TIMESTAMP,
            }
        )
        found = ref.get().to_dict()
        self.assertEqual(found["n"], 3)
        self.assertEqual(found["list"], [1, 2, 3, 4])
        self.assertEqual((found["high"], found["low"]), (9, 1))
        self.assertLessEqual(found["at"], result.update_time)
        ref.update({"list": firestore.ArrayRemove([1, 4])})
        self.assertEqual(ref.get().get("list"), [2, 3])

    def test_reserved_ids_and_too_large_documents_are_refused(self):
        with self.assertRaises(exceptions.InvalidArgument):
            self.items.document("__reserved__").set({})
        with self.assertRaises(exceptions.InvalidArgument):
            self.items.document("big").set({"text": ["x" * 500_000] * 3})

    def test_a_batch_is_written_whole_or_not_at_all(self):
        self.put(taken={"n": 1})
        batch = self.db.batch()
        batch.set(self.items.document("a"), {"n": 1})
        batch.set(self.items.document("b"), {"n": 2})
        batch.commit()
        self.assertEqual(len(list(self.items.stream())), 3)
        batch = self.db.batch()
        batch.set(self.items.document("c"), {"n": 3})
        batch.create(self.items.document("taken"), {"n": 3})
        with self.assertRaises(exceptions.Conflict):
            batch.commit()
        self.assertFalse(self.items.document("c").get().exists)

    def test_get_all_tells_found_and_missing(self):
        self.put(a={"n": 1}, b={"n": 2})
        refs = [self.items.document(name) for name in ("a", "b", "c")]
        found = {snapshot.id: snapshot.exists for snapshot in self.db.get_all(refs)}
        self.assertEqual(found, {"a": True, "b": True, "c": False})

    def test_a_bulk_writer_writes_everything(self):
        writer = self.db.bulk_writer()
        for n in range(100):
            writer.set(self.items.document(f"d{n:03}"), {"n": n})
        writer.close()
        self.assertEqual(len(list(self.items.stream())), 100)

    def test_collections_and_documents_are_listed(self):
        parent = self.items.document("parent")
        parent.collection("one").document("x").set({})
        parent.collection("two").document("x").set({})
        self.assertEqual(sorted(c.id for c in parent.collections()), ["one", "two"])
        self.assertIn(self.prefix, [c.id for c in self.db.collections()])
        self.put(**{f"d{n}": {"n": n} for n in range(7)})
        listed = [ref.id for ref in self.items.list_documents(page_size=3)]
        self.assertEqual(listed, [f"d{n}" for n in range(7)] + ["parent"])

    def test_deleting_recursively_leaves_nothing(self):
        self.put(a={})
        self.items.document("a").collection("sub").document("b").set({})
        self.db.recursive_delete(self.items)
        self.assertEqual(list(self.items.stream()), [])
        self.assertEqual(list(self.items.document("a").collection("sub").stream()), [])

    def test_named_databases_are_apart(self):
        other = client("other")
        self.put(a={"n": 1})
        self.assertFalse(other.collection(self.prefix).document("a").get().exists)


class Transactions(FirestoreTest):
    def test_contended_transactions_all_succeed_in_the_end(self):
        counter = self.items.document("counter")
        counter.set({"n": 0})

        def add(_):
            db = client()

            @firestore.transactional
            def run(transaction):
                seen = counter.get(transaction=transaction).get("n")
                transaction.update(counter, {"n": seen + 1})

            run(db.transaction(max_attempts=30))

        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            list(pool.map(add, range(15)))
        self.assertEqual(counter.get().get("n"), 15)

    def test_a_change_to_what_was_read_runs_the_transaction_again(self):
        ref = self.items.document("a")
        ref.set({"n": 1})
        attempts = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:

            @firestore.transactional
            def run(transaction):
                seen = ref.get(transaction=transaction).get("n")
                if not attempts:
                    attempts.append(pool.submit(self.write_aside, ref))
                    concurrent.futures.wait(attempts, timeout=1)
                transaction.update(ref, {"n": seen + 1})

            run(self.db.transaction())
            attempts[0].result(timeout=PATIENCE)
        self.assertIn(ref.get().get("n"), (11, 10), "in one order or the other, none lost")

    @staticmethod
    def write_aside(ref):
        ref.update({"n": 10})

    def test_a_query_in_a_transaction(self):
        self.put(a={"n": 1}, b={"n": 2})

        @firestore.transactional
        def run(transaction):
            query = self.items.where(filter=FieldFilter("n", ">", 0))
            total = sum(doc.get("n") for doc in query.stream(transaction=transaction))
            transaction.set(self.items.document("total"), {"total": total})

        run(self.db.transaction())
        self.assertEqual(self.items.document("total").get().get("total"), 3)

    def test_a_failing_transaction_writes_nothing(self):
        ref = self.items.document("a")

        @firestore.transactional
        def run(transaction):
            transaction.set(ref, {"n": 1})
            raise ValueError("changed my mind")

        with self.assertRaises(ValueError):
            run(self.db.transaction())
        self.assertFalse(ref.get().exists)

    def test_a_read_only_transaction_sees_one_moment(self):
        self.put(a={"n": 1}, b={"n": 1})
        transaction = self.db.transaction(read_only=True)
        transaction._begin()
        a = self.items.document("a")
        self.assertEqual(a.get(transaction=transaction).get("n"), 1)
        client().collection(self.prefix).document("b").set({"n": 2})
        b = self.items.document("b")
        self.assertEqual(b.get(transaction=transaction).get("n"), 1)
        transaction._rollback()


class Queries(FirestoreTest):
    def setUp(self):
        super().setUp()
        self.put(
            a={"n": 1, "s": "x", "tags": ["red", "blue"], "maybe": None},
            b={"n": 2, "s": "y", "tags": ["green"], "maybe": float("nan")},
            c={"n": 3.0, "s": "x", "tags": [], "maybe": 1},
            d={"n": 4, "s": "z", "maybe": 2},
            e={"s": "w", "tags": ["red"]},
        )

    def ids(self, query):
        return [snapshot.id for snapshot in query.stream()]

    def where(self, *condition):
        return self.items.where(filter=FieldFilter(*condition))

    def test_every_operator(self):
        for condition, expected in [
            (("n", "==", 3), "c"),
            (("n", "<", 3), "ab"),
            (("n", "<=", 3), "abc"),
            (("n", ">", 1), "bcd"),
            (("n", ">=", 2), "bcd"),
            (("n", "!=", 2), "acd"),
            (("s", "in", ["x", "w"]), "ace"),
            (("s", "not-in", ["x", "w"]), "bd"),
            (("tags", "array_contains", "red"), "ae"),
            (("tags", "array_contains_any", ["green", "blue"]), "ab"),
            (("maybe", "==", None), "a"),
            (("maybe", "!=", None), "bcd"),
            (("maybe", "==", float("nan")), "b"),
            (("maybe", "!=", float("nan")), "cd"),
        ]:
            with self.subTest(condition=condition):
                found = self.ids(self.where(*condition))
                self.assertEqual("".join(sorted(found)), expected)

    def test_names(self):
        b = self.items.document("b")
        self.assertEqual(self.ids(self.where("__name__", "==", b)), ["b"])
        self.assertEqual(self.ids(self.where("__name__", ">", b)), ["c", "d", "e"])
        self.assertEqual(
            self.ids(self.where("__name__", "in", [b, self.items.document("e")])), ["b", "e"]
        )

    def test_and_with_or(self):
        either = Or([FieldFilter("n", "==", 1), FieldFilter("n", "==", 4)])
        self.assertEqual(sorted(self.ids(self.items.where(filter=either))), ["a", "d"])
        both = And([either, FieldFilter("s", "==", "x")])
        self.assertEqual(self.ids(self.items.where(filter=both)), ["a"])

    def test_order_limit_and_offset(self):
        self.assertEqual(self.ids(self.items.order_by("n")), ["a", "b", "c", "d"])
        descending = self.items.order_by("n", direction=firestore.Query.DESCENDING)
        self.assertEqual(self.ids(descending.limit(2)), ["d", "c"])
        self.assertEqual(self.ids(self.items.order_by("n").offset(1).limit(2)), ["b", "c"])
        by_two = self.items.order_by("s").order_by("n", direction=firestore.Query.DESCENDING)
        self.assertEqual(self.ids(by_two), ["c", "a", "b", "d"])
        last = self.items.order_by("n").limit_to_last(2).get()
        self.assertEqual([snapshot.id for snapshot in last], ["c", "d"])

    def test_cursors(self):
        by_n = self.items.order_by("n")
        self.assertEqual(self.ids(by_n.start_at({"n": 2})), ["b", "c", "d"])
        self.assertEqual(self.ids(by_n.start_after({"n": 2})), ["c", "d"])
        self.assertEqual(self.ids(by_n.end_at({"n": 2})), ["a", "b"])
        self.assertEqual(self.ids(by_n.end_before({"n": 2})), ["a"])
        b = self.items.document("b").get()
        self.assertEqual(self.ids(by_n.start_after(b).limit(1)), ["c"])

    def test_projection(self):
        found = [s.to_dict() for s in self.items.where(filter=FieldFilter("n", "==", 1)).select(["s"]).stream()]
        self.assertEqual(found, [{"s": "x"}])

    def test_aggregation(self):
        def value(query):
            return {r.alias: r.value for r in query.get()[0]}

        counted = self.items.count(alias="all").sum("n", alias="sum").avg("n", alias="avg")
        self.assertEqual(value(counted), {"all": 4, "sum": 10.0, "avg": 2.5})
        self.assertEqual(value(self.items.count(alias="all")), {"all": 5})
        none = self.where("n", ">", 100)
        self.assertEqual(value(none.count(alias="all")), {"all": 0})
        self.assertEqual(value(none.sum("n", alias="sum")), {"sum": 0})

    def test_collection_groups(self):
        group = "g" + uuid.uuid4().hex
        for parent, n in (("a", 1), ("b", 2), ("c", 3)):
            self.items.document(parent).collection(group).document("x").set({"n": n})
        query = self.db.collection_group(group)
        self.assertEqual([s.get("n") for s in query.stream()], [1, 2, 3])
        large = query.where(filter=FieldFilter("n", ">", 1))
        self.assertEqual([s.get("n") for s in large.stream()], [2, 3])

    @not_by_googles
    def test_partitions_of_a_collection_group(self):
        group = "g" + uuid.uuid4().hex
        for n in range(3):
            self.items.document(f"d{n}").collection(group).document("x").set({"n": n})
        query = self.db.collection_group(group)
        partitions = list(query.get_partitions(2))
        self.assertEqual(len(partitions), 3)
        found = [s.get("n") for each in partitions for s in each.query().stream()]
        self.assertEqual(found, [0, 1, 2])

    def test_mixed_types_come_in_their_order(self):
        mixed = self.items.document("mixed").collection("values")
        values = [None, False, True, float("-inf"), -1, 0.5, 7, "a", "b", b"a", [1], {"k": 1}]
        for number, value in enumerate(values):
            mixed.document(f"{len(values) - number:02}").set({"v": value})
        self.assertEqual([s.get("v") for s in mixed.order_by("v").stream()], values)


class Listeners(FirestoreTest):
    def watch(self, target):
        seen = queue.Queue()

        def on_snapshot(snapshots, changes, _read_time):
            seen.put(
                (
                    {s.id: s.to_dict() for s in snapshots if s.exists},
                    [(change.type.name, change.document.id) for change in changes],
                )
            )

        watching = target.on_snapshot(on_snapshot)
        self.addCleanup(watching.unsubscribe)
        return seen

    def wait_for(self, seen, expected):
        while True:
            state, changes = seen.get(timeout=PATIENCE)
            if state == expected:
                return changes

    def test_a_document_is_followed(self):
        ref = self.items.document("a")
        seen = self.watch(ref)
        self.wait_for(seen, {})
        ref.set({"n": 1})
        self.wait_for(seen, {"a": {"n": 1}})
        ref.update({"n": 2})
        self.wait_for(seen, {"a": {"n": 2}})
        ref.delete()
        self.wait_for(seen, {})

    def test_a_query_is_followed(self):
        self.put(a={"n": 1}, b={"n": 2})
        seen = self.watch(self.items.where(filter=FieldFilter("n", ">", 1)).order_by("n"))
        self.assertEqual(self.wait_for(seen, {"b": {"n": 2}}), [("ADDED", "b")])
        self.put(c={"n": 3})
        self.assertEqual(self.wait_for(seen, {"b": {"n": 2}, "c": {"n": 3}}), [("ADDED", "c")])
        self.put(c={"n": 4})
        self.assertEqual(self.wait_for(seen, {"b": {"n": 2}, "c": {"n": 4}}), [("MODIFIED", "c")])
        self.put(b={"n": 0})
        self.assertEqual(self.wait_for(seen, {"c": {"n": 4}}), [("REMOVED", "b")])
        self.items.document("c").delete()
        self.assertEqual(self.wait_for(seen, {}), [("REMOVED", "c")])

    def test_a_limited_query_is_filled_up_again(self):
        self.put(a={"n": 1}, b={"n": 2}, c={"n": 3})
        seen = self.watch(self.items.order_by("n").limit(2))
        self.wait_for(seen, {"a": {"n": 1}, "b": {"n": 2}})
        self.items.document("a").delete()
        self.wait_for(seen, {"b": {"n": 2}, "c": {"n": 3}})


if __name__ == "__main__":
    if "FIRESTORE_EMULATOR_HOST" not in os.environ:
        sys.exit("Set FIRESTORE_EMULATOR_HOST to the emulator's address.")
    unittest.main(verbosity=2)
