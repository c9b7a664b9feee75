"""An import: reads files, validates threads, stores new ones in batches, and compares or updates existing ones."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from messages_app.models import Thread
from messages_app.store import imports
from messages_app.store.errors import reason_of
from messages_app.transfer.files import InputFile
from messages_app.transfer.formats import read_threads
from messages_app.transfer.progress import ShowProgress
from messages_app.transfer.source import (
    InvalidInput,
    SkippedValues,
    SourceLocation,
    UnvalidatedThread,
    format_path,
    nested_too_deeply,
    printable,
)
from messages_app.transfer.staging import StagingDatabase
from messages_app.transfer.validation import ValidThread, validate_thread

# The size of a batch, in messages and in characters of their JSON. A batch is one transaction.
BATCH_MESSAGES = 4000
BATCH_CHARACTERS = 8_000_000


@dataclass
class ImportSummary:
    """The counts of an import so far."""

    threads: int = 0  # new threads
    messages: int = 0  # messages of new threads
    existing: int = 0  # existing threads
    differing: int = 0  # existing threads that differ from the files
    added: int = 0  # messages that are missing in existing threads
    changed: int = 0  # messages of existing threads with a different content
    deleted: int = 0  # messages of existing threads that were deleted from the store
    without_own_object: int = 0  # threads without a thread object in the files
    first_without_own_object: str = ""
    invalid: int = 0
    skipped: SkippedValues = field(default_factory=SkippedValues)


class Importer:
    """Imports the threads in files. Calls `report` with one message for each faulty line.

    - `tenant`: if not None, the owner of all threads, even if the files name another tenant.
    - `update`: change existing threads to match the files.
    - `dry_run`: write nothing.

    Raises database errors that do not concern single rows, such as OperationalError. All threads stored before the
    error are complete. Run the same import again to continue.
    """

    def __init__(self, report: Callable[[str], Any], *, tenant: str | None, update: bool, dry_run: bool) -> None:
        self.report = report
        self.tenant, self.update, self.dry_run = tenant, update, dry_run
        self.summary = ImportSummary()
        self._batch: dict[str, ValidThread] = {}
        self._messages = self._characters = 0

    def import_files(self, names: Sequence[str], show_progress: ShowProgress) -> None:
        """Import these files together. Raises UnreadableFile before anything is stored.

        Raises OSError and sqlite3.Error if the staging database cannot be written.
        """
        with ExitStack() as closing:
            files = [closing.enter_context(InputFile(name)) for name in names]
            staging = closing.enter_context(StagingDatabase())
            imports.expect_many()
            self._import_whole_threads(files, staging, show_progress)
            if staging.objects:
                with show_progress(staging.messages, "messages") as progress:
                    done = 0
                    for thread in staging.threads(self.summary.skipped):
                        done += self._add(thread)
                        progress.update(done)
            self.flush()

    def _import_whole_threads(
        self, files: Sequence[InputFile], staging: StagingDatabase, show_progress: ShowProgress
    ) -> None:
        """Read all files. Import threads that contain their messages, and stage separate threads and messages."""
        sizes = [file.size for file in files if file.size is not None]
        is_size_known = len(sizes) == len(files)
        start, done = time.monotonic(), 0
        with show_progress(*((sum(sizes), "bytes") if is_size_known else (None, "messages"))) as progress:
            for file in files:
                for thread in read_threads(file, staging, self.summary.skipped):
                    done += self._add(thread)
                    if is_size_known:
                        rate = (done + staging.messages) / (time.monotonic() - start)
                        progress.update(sum(each.bytes_read for each in files), f"{rate:,.0f} messages/s")
                    else:
                        progress.update(done + staging.messages)

    def _add(self, thread: UnvalidatedThread | InvalidInput) -> int:
        """Validate a thread and add it to the batch, or report its faults. Returns the number of its messages."""
        if isinstance(thread, InvalidInput):
            self._reject(thread)
            return 0
        try:
            valid = validate_thread(thread, self.tenant)
        except InvalidInput as invalid:
            self._reject(invalid)
        except RecursionError:
            self._reject(nested_too_deeply(thread.thread.location))
        else:
            if valid.thread.id in self._batch:
                self.flush()
            self._batch[valid.thread.id] = valid
            self._messages += len(valid.messages) + 1
            self._characters += thread.size
            if self._messages >= BATCH_MESSAGES or self._characters >= BATCH_CHARACTERS:
                self.flush()
        return len(thread.messages)

    def _reject(self, invalid: InvalidInput) -> None:
        """Report the faults of a thread, or of an object that belongs to one.

        All faults in a line of a file become one message.
        """
        self.summary.invalid += 1
        lines: dict[str, list[str]] = {}
        for location, message in invalid.faults:
            path = format_path(location.path)
            lines.setdefault(location.file_and_line, []).append(f"{path}: {message}" if path else message)
        for file_and_line, faults in lines.items():
            self.report(f"{file_and_line}: {'; '.join(faults)}")

    def flush(self) -> None:
        """Store the batch."""
        batch = list(self._batch.values())
        self._batch, self._messages, self._characters = {}, 0, 0
        stored = imports.threads_by_id([each.thread.id for each in batch])
        existing = {thread_id for thread_id, thread in stored.items() if thread.deleted_at is None}
        self._store([each for each in batch if each.thread.id not in existing], deleted=stored.keys() - existing)
        for each in batch:
            if each.thread.id in existing:
                with self._rejects(each):
                    self._meet_existing(each, stored[each.thread.id])

    def _store(self, new: list[ValidThread], deleted: Collection[str]) -> None:
        """Store new threads. The ids in `deleted` belong to deleted threads, whose rows may still be in the store."""
        # If the engine can roll back, try the batch first. If the engine rejects it, look for messages that already
        # belong to other threads.
        if self.dry_run or not imports.undoes_rejected_writes() or not self._stores_all(new, deleted):
            new = list(self._without_messages_of_other_threads(new))
            if not self.dry_run and not self._stores_all(new, deleted):
                new = list(self._store_one_by_one(new))
        for each in new:
            self.summary.threads += 1
            self.summary.messages += len(each.messages)
            self._count(each)

    def _stores_all(self, new: list[ValidThread], deleted: Collection[str]) -> bool:
        """Store all threads and return True, or return False if the database rejects one of them.

        After a rejection, nothing is stored if the engine can roll back.
        """
        try:
            self._insert(new, deleted)
        except imports.REJECTIONS:
            return False
        return True

    def _insert(self, new: Sequence[ValidThread], deleted: Collection[str]) -> None:
        if new:
            rows = [message for each in new for message in each.messages]
            imports.store([each.thread for each in new], rows, replaced=deleted)

    def _store_one_by_one(self, new: list[ValidThread]) -> Iterator[ValidThread]:
        """Store the threads one by one, to find those that the database rejects. Yields the threads that were new."""
        for each in new:
            thread_id = each.thread.id
            with self._rejects(each):
                try:
                    # Without a rollback, the attempt to store all threads may have left parts of this thread.
                    # `_insert` first removes the parts of the thread in its second argument.
                    self._insert([each], [thread_id])
                except imports.REJECTIONS:
                    thread = imports.threads_by_id([thread_id]).get(thread_id)
                    if thread is None or thread.deleted_at is not None:
                        raise
                    self._meet_existing(each, thread)  # another import stored it first
                    continue
                yield each

    def _meet_existing(self, given: ValidThread, thread: Thread) -> None:
        """Compare an existing thread with the given one, and update it if `update` is set."""
        if thread.tenant != given.thread.tenant:
            message = f"{printable(thread.id)} already exists for tenant {thread.tenant!r}"
            raise InvalidInput([(given.location.at("tenant"), message)])
        if self.update or self.dry_run:
            has_metadata = given.source.has_own_object
            stored = imports.messages_by_id([message.id for message in given.messages])
            _refuse_messages_of_other_threads(given, {row.id: row.thread_id for row in stored.values()})
            found = imports.differences(thread, given.thread, given.messages, stored, metadata=has_metadata)
            if found.any and not self.dry_run:
                try:
                    found = imports.update(given.thread, given.messages, metadata=has_metadata)
                except Thread.DoesNotExist as error:
                    message = f"{printable(thread.id)} was deleted during the import"
                    raise InvalidInput([(given.location, message)]) from error
            self.summary.differing += found.any
            self.summary.added += len(found.missing)
            self.summary.changed += len(found.changed)
            self.summary.deleted += found.deleted
            self._count(given)
        self.summary.existing += 1

    def _count(self, given: ValidThread) -> None:
        """Add the skipped values of a new or compared thread to the summary.

        Also count the thread if the files contain no thread object for it.
        """
        self.summary.skipped.merge(given.skipped)
        if not given.source.has_own_object:
            self.summary.without_own_object += 1
            self.summary.first_without_own_object = self.summary.first_without_own_object or printable(given.thread.id)

    def _without_messages_of_other_threads(self, new: list[ValidThread]) -> Iterator[ValidThread]:
        """Yield the threads whose messages belong to no other thread, stored or in the batch. Reject the others."""
        ids = [message.id for each in new for message in each.messages]
        owners = {row.id: row.thread_id for row in imports.messages_by_id(ids, "thread_id").values()}
        for each in new:
            with self._rejects(each):
                _refuse_messages_of_other_threads(each, owners)
                owners |= {message.id: each.thread.id for message in each.messages}
                yield each

    @contextmanager
    def _rejects(self, given: ValidThread) -> Iterator[None]:
        """Reject the thread if the block raises InvalidInput or the database rejects a row."""
        try:
            yield
        except InvalidInput as invalid:
            self._reject(invalid)
        except imports.REJECTIONS as error:
            self._reject(InvalidInput([(given.location, f"rejected by the database: {reason_of(error)}")]))


def _refuse_messages_of_other_threads(given: ValidThread, owners: dict[str, str]) -> None:
    thread_id = given.thread.id
    faults: list[tuple[SourceLocation, str]] = [
        (
            given.source.message_location(i).at("id"),
            f"{printable(message.id)} already exists in thread {printable(owner)}",
        )
        for i, message in enumerate(given.messages)
        if (owner := owners.get(message.id, thread_id)) != thread_id
    ]
    if faults:
        raise InvalidInput(faults)
