"""Nothing acknowledged is lost where the service, and its database, are killed (tests/torture.py with few kills)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import engines
from tests.stored import execute
from tests.torture import Outcome, Torture, Write, as_sent

pytestmark = pytest.mark.process

# The fewest with which each kind of kill is among them.
KILLS = {"sqlite": 3, "postgresql": 4, "mongodb": 5}


@pytest.fixture
def torture(tmp_path: Path) -> Iterator[Torture]:
    torture = Torture(engines.chosen, kills=KILLS[engines.chosen], seed=7, directory=tmp_path)
    yield torture
    torture.close()


def test_what_was_acknowledged_is_there_once_in_full_and_in_order_whatever_is_killed(
    torture: Torture, figures: Callable[[str, int | str], None]
) -> None:
    outcome = torture.run()
    figures("durability", f"{outcome.kills.total()} kills, {outcome.acknowledged} of {outcome.sent} acknowledged")
    print(outcome)
    assert outcome.faults == []
    assert outcome.kills.total() >= KILLS[engines.chosen]
    assert outcome.sent > outcome.acknowledged == outcome.found > 50
    assert outcome.slowest_return < 5


def five_messages(torture: Torture) -> list[str]:
    """Return the ids of five messages that one writer stores in one thread, each after the last was acknowledged."""
    writer, thread = torture.writers[0], torture.threads[0]
    writer.stopping.clear()
    writer.keyed = 1  # so that it retries until the service acknowledges
    for _ in range(5):
        key = f"w{writer.number}-{len(writer.writes)}"
        writer.write(Write("message", key, thread), f"/threads/{thread}/messages", as_sent(key))
    writer.client.http.close()
    return [write.id for write in writer.writes[-5:]]


@pytest.mark.engine("sqlite")
def test_run_that_finds_nothing_wrong_would_have_found_it(torture: Torture) -> None:
    assert torture.run().faults == []
    lost, doubled, half, earlier, later = five_messages(torture)
    table, columns = "messages_app_message", "thread_id, role, content, attachments, assistant_id, metadata, created_at"
    execute(
        torture.url,
        f"DELETE FROM {table} WHERE id = '{lost}'",
        f"INSERT INTO {table} (id, _id, position, {columns})"
        f" SELECT 'msg_again', 'again', 1000000, {columns} FROM {table} WHERE id = '{doubled}'",
        f"""UPDATE {table} SET content = replace(content, ' "', '"') WHERE id = '{half}'""",
        f"UPDATE {table} SET position = 1000001 WHERE id = '{later}'",
        f"UPDATE {table} SET position = 1000002 WHERE id = '{earlier}'",
    )
    torture.outcome = Outcome("sqlite", seed=7)
    torture.verify()
    outcome = torture.outcome
    assert (outcome.lost, outcome.doubled, outcome.half) == (2, 1, 1)  # what is half there is not there
    assert outcome.out_of_order > 0
