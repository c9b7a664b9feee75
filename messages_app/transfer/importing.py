"""An import: what becomes of each thread that is given, and the account of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DataError, IntegrityError, transaction

from messages_app.management import reason_of
from messages_app.models import Message, Thread
from messages_app.store.engine import can_roll_back
from messages_app.transfer.updates import LOOKED_UP_AT_ONCE, bring_up_to_date, differences, forget, messages_by_id
from messages_app.transfer.validation import Draft, Given, LeftOut, Place, Wrong, check, nested_too_deep, path_of, shown

# How much is stored in one transaction, counted in messages and in characters of their JSON.
MESSAGES_AT_ONCE = 4000
CHARACTERS_AT_ONCE = 8_000_000

# What a database says of a row that it will not have; whatever else it says ends the import.
REFUSALS = (IntegrityError, DataError)


class Account:
    """What an import came to, in threads and messages."""

    def __init__(self) -> None:
        self.threads = self.messages = 0  # that were new
        self.there = 0  # threads that were there already
        self.differing = 0  # those of them that were not as given
        self.added = self.changed = self.deleted = 0  # messages of those: not here, other ones here, deleted here
        self.made = 0  # threads of which nothing was given but messages
        self.first_made = ""
        self.faulty = 0
        self.left_out = LeftOut()


class Import:
    """Takes drafts one by one and stores them in batches; `tell` is called with each fault, in one line.

    `tenant`: whose threads they are, whatever they say themselves. `update`: what is there already becomes as given.
    `dry_run`: nothing is written. Where the database fails (OperationalError and the like), that is raised.
    """

    def __init__(self, tell: Callable[[str], Any], *, tenant: str | None, update: bool, dry_run: bool) -> None:
        self.tell = tell
        self.tenant, self.update, self.dry_run = tenant, update, dry_run
        self.account = Account()
        self._batch: dict[str, Given] = {}
        self._messages = self._characters = 0

    def take(self, draft: Draft) -> None:
        try:
            given = check(draft, self.tenant)
        except Wrong as wrong:
            self.refuse(wrong)
            return
        except RecursionError:
            self.refuse(nested_too_deep(draft.thread.place))
            return
        if given.thread.id in self._batch:
            self.flush()
        self._batch[given.thread.id] = given
        self._messages += len(given.messages) + 1
        self._characters += draft.size
        if self._messages >= MESSAGES_AT_ONCE or self._characters >= CHARACTERS_AT_ONCE:
            self.flush()

    def refuse(self, wrong: Wrong) -> None:
        """Tells why a thread, or what was to be a part of one, is not taken: a line for each line of a file."""
        self.account.faulty += 1
        lines: dict[str, list[str]] = {}
        for place, words in wrong.faults:
            where = path_of(place.steps)
            lines.setdefault(place.of_line, []).append(f"{where}: {words}" if where else words)
        for of_line, faults in lines.items():
            self.tell(f"{of_line}: {'; '.join(faults)}")

    def flush(self) -> None:
        """Stores what was taken and not stored yet."""
        batch = list(self._batch.values())
        self._batch, self._messages, self._characters = {}, 0, 0
        there: dict[str, Thread] = {}
        for ids in _parts([given.thread.id for given in batch]):
            there |= {thread.id: thread for thread in Thread.objects.filter(id__in=ids)}
        living = {thread_id for thread_id, thread in there.items() if thread.deleted_at is None}
        self._store([given for given in batch if given.thread.id not in living], gone=there.keys() - living)
        for given in batch:
            if given.thread.id in living:
                with self._refusals_of(given):
                    self._meet(given, there[given.thread.id])

    def _store(self, new: list[Given], gone: Iterable[str]) -> None:
        """Stores threads that are not there; of `gone` something may be left, as they were deleted."""
        # Where a refusal leaves nothing behind, whose the messages are is asked only after one.
        if self.dry_run or not can_roll_back(Thread.objects.db) or not self._write_together(new, gone):
            new = list(self._without_messages_of_others(new))
            if not self.dry_run and not self._write_together(new, gone):
                new = list(self._write_each(new))
        for given in new:
            self.account.threads += 1
            self.account.messages += len(given.messages)
            self._note(given)

    def _write_together(self, new: list[Given], gone: Iterable[str]) -> bool:
        """Whether the database took all of them; where it is one that rolls back, it took none otherwise."""
        try:
            self._write(new, gone)
        except REFUSALS:
            return False
        return True

    def _write_each(self, new: list[Given]) -> Iterator[Given]:
        """Stores each by itself, to tell which is refused; gives those that were new."""
        for given in new:
            with self._refusals_of(given):
                try:
                    # Where nothing is rolled back, something may be left of all of them.
                    self._write([given], [given.thread.id])
                except REFUSALS:
                    there = Thread.objects.filter(id=given.thread.id, deleted_at=None).first()
                    if there is None:
                        raise
                    self._meet(given, there)  # another import was faster
                    continue
                yield given

    def _note(self, given: Given) -> None:
        """Counts what is told of every thread that is taken."""
        self.account.left_out.include(given.left_out)
        if not given.draft.has_own_object:
            self.account.made += 1
            self.account.first_made = self.account.first_made or shown(given.thread.id)

    def _write(self, new: list[Given], gone: Iterable[str]) -> None:
        if not new:
            return
        with transaction.atomic(using=Thread.objects.db):
            for thread_id in gone:
                forget(thread_id)
            Thread.objects.store_rows(
                [given.thread for given in new], [message for given in new for message in given.messages]
            )

    def _meet(self, given: Given, thread: Thread) -> None:
        """Compares a thread that is there with what is given, and brings it up to date where that is asked for."""
        if thread.tenant != given.thread.tenant:
            of_whom = f"of tenant {thread.tenant!r}"
            raise Wrong([(given.place.at("tenant"), f"{shown(thread.id)} is there already, {of_whom}")])
        if self.update or self.dry_run:
            here = messages_by_id(message.id for message in given.messages)
            _refuse_those_of_others(given, {row.id: row.thread_id for row in here.values()})
            found = differences(thread, given.thread, given.messages, here, metadata=given.draft.has_own_object)
            if found.any and not self.dry_run:
                try:
                    found = bring_up_to_date(given.thread, given.messages, metadata=given.draft.has_own_object)
                except Thread.DoesNotExist as error:
                    raise Wrong([(given.place, f"{shown(thread.id)} was deleted meanwhile")]) from error
            self.account.differing += found.any
            self.account.added += len(found.missing)
            self.account.changed += len(found.changed)
            self.account.deleted += found.deleted
            self._note(given)
        self.account.there += 1

    def _without_messages_of_others(self, new: list[Given]) -> Iterator[Given]:
        """Those that have no message of another thread; tells of the rest."""
        owners: dict[str, str] = {}
        for ids in _parts([message.id for given in new for message in given.messages]):
            owners |= dict(Message.objects.filter(id__in=ids).values_list("id", "thread_id"))
        for given in new:
            try:
                _refuse_those_of_others(given, owners)
            except Wrong as wrong:
                self.refuse(wrong)
                continue
            owners |= {message.id: given.thread.id for message in given.messages}
            yield given

    @contextmanager
    def _refusals_of(self, given: Given) -> Iterator[None]:
        try:
            yield
        except Wrong as wrong:
            self.refuse(wrong)
        except REFUSALS as error:
            self.refuse(Wrong([(given.place, f"the database refuses it: {reason_of(error)}")]))


def _refuse_those_of_others(given: Given, owners: dict[str, str]) -> None:
    thread_id = given.thread.id
    faults: list[tuple[Place, str]] = [
        (given.draft.place_of(i).at("id"), f"{shown(message.id)} is there already, in thread {shown(owner)}")
        for i, message in enumerate(given.messages)
        if (owner := owners.get(message.id, thread_id)) != thread_id
    ]
    if faults:
        raise Wrong(faults)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), LOOKED_UP_AT_ONCE):
        yield ids[start : start + LOOKED_UP_AT_ONCE]
