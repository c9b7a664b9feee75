"""Acknowledged writes survive kills of the service and its database. The tests run tests/torture.py with few kills."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import engines
from tests.stored import execute
from tests.torture import Outcome, Torture, Write, message_body

pytestmark = pytest.mark.process

# For each engine, the smallest number of kills that includes every kind of kill.
KILLS = {"sqlite": 3, "postgresql": 4, "mongodb": 5}


@pytest.fixture
def torture(tmp_path: Path) -> Iterator[Torture]:
    torture = Torture(engines.chosen, kills=KILLS[engines.chosen], seed=7, directory=tmp_path)
    yield torture
    torture.close()


def test_acknowledged_writes_survive_any_kill(torture: Torture, figures: Callable[[str, int | str], None]) -> None:
    outcome = torture.run()
    figures("durability", f"{outcome.kills.total()} kills, {outcome.acknowledged} of {outcome.sent} acknowledged")
    print(outcome)
    assert outcome.faults == []
    assert outcome.kills.total() >= KILLS[engines.chosen]
    assert outcome.sent > outcome.acknowledged == outcome.found > 50
    assert outcome.slowest_recovery < 5


def five_messages(torture: Torture) -> list[str]:
    """Send five messages from one writer to one thread. Return their ids.

    Each message is sent after the previous message was acknowledged.
    """
    writer, thread = torture.writers[0], torture.threads[0]
    writer.stopping.clear()
    # Send every request with an idempotency key, so that the writer retries it until it gets a response.
    writer.keyed = 1
    for _ in range(5):
        key = f"w{writer.number}-{len(writer.writes)}"
        writer.write(Write("message", key, thread), f"/threads/{thread}/messages", message_body(key))
    writer.client.http.close()
    return [write.id for write in writer.writes[-5:]]


@pytest.mark.engine("sqlite")
def test_verification_detects_each_kind_of_damage(torture: Torture) -> None:
    assert torture.run().faults == []
    lost, duplicated, partial, earlier, later = five_messages(torture)
    table, columns = "messages_app_message", "thread_id, role, content, attachments, assistant_id, metadata, created_at"
    execute(
        torture.url,
        f"DELETE FROM {table} WHERE id = '{lost}'",
        f"INSERT INTO {table} (id, _id, position, {columns})"
        f" SELECT 'msg_again', 'again', 1000000, {columns} FROM {table} WHERE id = '{duplicated}'",
        f"""UPDATE {table} SET content = replace(content, ' "', '"') WHERE id = '{partial}'""",
        f"UPDATE {table} SET position = 1000001 WHERE id = '{later}'",
        f"UPDATE {table} SET position = 1000002 WHERE id = '{earlier}'",
    )
    torture.outcome = Outcome("sqlite", seed=7)
    torture.verify()
    outcome = torture.outcome
    # The partial message counts as lost too.
    assert (outcome.lost, outcome.duplicated, outcome.partial) == (2, 1, 1)
    assert outcome.out_of_order > 0
