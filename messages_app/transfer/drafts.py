"""Files -> drafts of threads: our own lines as they come, what was saved elsewhere when all of it has been read."""

from collections.abc import Iterator
from functools import partial

from messages_app.transfer.foreign import MESSAGE, THREAD, Spool, items_of, kind_of, plain
from messages_app.transfer.reader import Objects, Source
from messages_app.transfer.validation import Draft, LeftOut, Located, Place, Wrong, nested_too_deep, shown


def drafts_in(source: Source, spool: Spool, left_out: LeftOut) -> Iterator[Draft | Wrong]:
    """The threads in our own form that a source holds, and faults of what cannot be any.

    Threads and messages by themselves go to the spool; objects of another kind are counted in `left_out`.
    """
    for found in Objects(source.content):
        place = Place(source.name, found.line)
        if found.fault:
            yield Wrong([(place, found.fault)])
            continue
        for item in items_of(Located(place, found.value)):
            place, value = item.located
            match kind_of(value):
                case "thread" if "messages" in value:
                    yield _whole(item.located, found.size)
                case "thread" | "thread.message":
                    try:
                        if isinstance(value.get("_id"), dict):
                            item = item._replace(located=Located(place, plain(value)))
                        spool.add(item)
                    except Wrong as wrong:
                        yield wrong
                    except RecursionError:
                        yield nested_too_deep(place)
                case str(kind):
                    left_out.add(f"object of kind {shown(kind)}", place)
                case None:
                    yield Wrong([(place, f"neither a thread nor a message: object is not {THREAD} or {MESSAGE}")])


def _whole(located: Located, size: int) -> Draft | Wrong:
    place, value = located
    messages = value["messages"]
    if not isinstance(messages, list):
        return Wrong([(place.at("messages"), "value is not a valid list")])
    return Draft(located, messages, partial(place.at, "messages"), size)
