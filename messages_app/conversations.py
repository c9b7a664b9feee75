"""Made-up conversations that read like real ones, for seeding. The same random generator gives the same words."""

import random
from collections.abc import Iterator
from typing import NamedTuple


class Turn(NamedTuple):
    role: str
    text: str


SLOTS = {
    "name": "Amara Chen|Lucía Fernández|Noah Müller|Priya Nair|Søren Dahl|Yuki Tanaka|Omar Haddad|Zoë Martin".split(
        "|"
    ),
    "city": "Lisbon|Osaka|Montréal|Kraków|Nairobi|Gdańsk|Valparaíso|Leipzig|Tbilisi|Hội An".split("|"),
    "month": "January|March|April|June|September|October|November".split("|"),
    "days": "three|four|five|six|ten".split("|"),
    "language": "Python|Go|TypeScript|Rust|Java".split("|"),
    "error": "timeout|permission denied|out of memory|connection reset|unexpected end of file".split("|"),
    "service": "billing worker|search index|login page|image uploader|nightly report".split("|"),
    "dish": "mushroom risotto|ramen|shakshuka|moussaka|lentil soup|okonomiyaki".split("|"),
    "diet": "vegetarian|gluten-free|low on salt|without dairy".split("|"),
    "product": "desk lamp|rain jacket|coffee grinder|bike light|mechanical keyboard".split("|"),
    "reason": "arrived with a scratch|stopped working after a week|is the wrong colour|never arrived".split("|"),
    "subject": "photosynthesis|compound interest|the French Revolution|recursion|plate tectonics".split("|"),
    "grade": "fourteen-year-old|complete beginner|first-year student|curious grandparent".split("|"),
    "number": "12|27|48|96|150|312".split("|"),
    "order": "A-10482|B-77310|C-20951|D-66207".split("|"),
}

# One scene a paragraph: U and A are user and assistant, C and O a tool's call and its output.
SCENES = r"""
U: I'm going to {city} for {days} days in {month}. What should I not miss? 🙂
A: {city} in {month} is a good choice: fewer people, and the weather is usually kind. I'd keep the first morning for the old town on foot, one day for a trip outside, and the evenings for food. Do you prefer museums or being outdoors?
U: Outdoors, mostly. And we don't have a car.
A: Then take the regional train for the day trip and walk the river path back. Buy the {days}-day pass at the station; it pays for itself on the second ride.
U: Could you put that into a short plan?
A: Day 1: old town, market, viewpoint at sunset.\nDay 2: train out, walk back, dinner by the water.\nDay 3 and on: one park, one neighbourhood, nothing before ten.

U: Our {service} fails with "{error}" about once an hour. It's written in {language}. Where do I start?
A: Start with what changed last, then with the logs around one failure: what did it wait for just before the {error}? Once an hour sounds like something scheduled.
U: There is a cron job at minute {number}, but it only rotates logs.
C: read_logs(service="{service}", around="the last failure", lines={number})
O: 02:00:03 rotate: renamed current.log\n02:00:03 {service}: {error}\n02:00:04 {service}: restarted
A: That is your culprit: the process still writes to the renamed file. Either send it SIGHUP after the rotation, or use copytruncate.
U: SIGHUP it is. That fixed it, thank you!

U: My order {order}, a {product}, {reason}.
A: I'm sorry about that. I can send a new {product} or return the money; which would you like?
U: A new one, please. Do I have to send the old one back?
A: Only if it's easy for you: there is a label in the e-mail that just went out to you. The replacement leaves tomorrow.
U: Great. Please write the name on the parcel as {name}.
A: Done. It goes out to {name}, with order number {order} on the label.

U: Explain {subject} as you would to a {grade}.
A: Think of it as a story with three people in it: one who has something, one who needs it, and one who carries it across. {subject} is mostly about the one who carries.
U: Nice picture. What's the part that most people get wrong?
A: They think that it happens all at once. It happens in small steps, and each step only needs to know the one before.
U: Give me one question to check that I understood it.
A: If you took the middle step away, which of the other two would notice first, and why?

U: What can I cook tonight? I have {number} minutes and it should be {diet}.
A: How about {dish}? It's easy to make {diet}, and most of the time it cooks by itself.
U: I don't have fresh herbs, only dried thyme.
A: Dried thyme is fine: use a third of the amount, and put it in early so that it softens.
U: And for {days} people instead of two?
A: Double everything but the salt; taste before the second half of it goes in. A wider pan matters more than a bigger one.

U: Please rewrite this for a letter to {name}: "we can't do the meeting in {month}, too much going on here"
A: Dear {name},\n\nthank you for the invitation. {month} turns out to be full for us; could we look at the month after instead? I'd be glad to suggest some dates.\n\nKind regards
U: A little warmer at the end?
A: ... I'd be glad to suggest some dates, and I'm looking forward to seeing you.\n\nWith warm regards

U: How do I read a large CSV file in {language} without loading all of it?
A: Read it as a stream: one record at a time, and keep only what you add up. Here is the shape of it in {language}:\n\n    open the file\n    for each record:\n        total += amount\n    print the total
U: It has {number} million lines. Will that take hours?
A: No; minutes. The disk is the limit, not {language}. If it is too slow, first look whether you parse dates that you never use.
U: I do. Took them out: from {number} seconds to nine.
A: That's the usual story. Leave a comment there, so that nobody puts them back.
"""

BRIDGES = [
    "One more thing.",
    "Something else while I have you here.",
    "Different topic:",
    "Thanks! Next question.",
    "While we're at it,",
]
_ROLES = {"U": "user", "A": "assistant", "C": "tool_call", "O": "tool_output"}
_SCENES = [
    [Turn(_ROLES[line[0]], line[3:].replace("\\n", "\n")) for line in scene.splitlines()]
    for scene in SCENES.strip().split("\n\n")
]


def conversation(rng: random.Random) -> Iterator[Turn]:
    """The turns of a conversation that never ends: take as many as are wanted."""
    bridge = ""
    while True:
        slots = {name: rng.choice(values) for name, values in SLOTS.items()}
        for role, text in rng.choice(_SCENES):
            yield Turn(role, f"{bridge} {text.format(**slots)}".lstrip())
            bridge = ""
        bridge = rng.choice(BRIDGES)
