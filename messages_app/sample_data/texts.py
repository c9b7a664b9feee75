"""The texts of sample conversations, in several languages.

`conversation` chooses texts with a random generator. If the generator is in the same state, the texts are the same.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple


class DialogTurn(NamedTuple):
    """One message of a dialog. `attached` is the kind of its file: "document", "table", "picture", or empty."""

    role: str
    text: str
    attached: str = ""


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

# Each paragraph is a scene. U: user, A: assistant, C: tool call, O: tool output. D, T and P: user with a document, a
# table or a picture.
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

D: Attached is the contract for the {service}. What notice do we have to give?
C: search_files(query="notice period termination", limit=3)
O: page {number}: "Either party may terminate this agreement with {days} weeks' notice to the end of a month."
A: {days} weeks to the end of a month, on page {number}. If you give notice before the middle of {month}, it ends that month.
U: And if we miss it?
A: Then it goes on for another month, and nothing else happens: there is no automatic renewal for a year.

T: Here are the sales of {product}s by month. Which month was best?
C: run_code("sales.groupby('month').amount.sum().sort_values().tail(3)")
O: September    {number}81\n{month}    {number}90\nDecember    {number}97
A: December, with {month} just behind it. Without the one large order {order}, {month} would be first.
U: Leave that order out, then. What remains?
A: Then {month} leads by a little: about {number} pieces more than December.

P: What is growing on this leaf? The plant is on my balcony in {city}.
A: It looks like powdery mildew: white, dry, and only on the upper side. Does it come off when you rub it?
U: Yes, it does. 🌿
A: Then it is mildew. Take the worst leaves off, and spray the rest with one part milk and nine parts water, twice a week.
"""

# Scenes in other languages. In each paragraph, line B is a bridge that connects the scene to the previous one.
ELSEWHERE = r"""
B: Otra cosa:
U: Mi pedido {order} todavía no ha llegado. ¿Dónde está?
C: track(order="{order}")
O: en reparto, última lectura: {city}
A: Está en reparto desde esta mañana. Debería llegar hoy antes de las ocho; si no estás, lo dejan con el vecino.
U: ¡Qué bien! ¿Y si no llega mañana tampoco?
A: Entonces te devolvemos el dinero: escríbeme aquí con el número {order}, y lo hago enseguida.

B: もう一つ質問です。
U: {number}分で作れる晩ごはんを教えてください。🍚
A: 親子丼はいかがですか。鶏肉と玉ねぎを煮て、卵でとじるだけです。
U: 卵が一つしかありません。
A: 一つでも大丈夫です。水溶き片栗粉を少し入れると、ふんわり仕上がります。

B: 还有一个问题：
U: 我打算去{city}玩几天，有什么推荐吗？
A: 第一天可以在老城散步，第二天坐火车去郊外。您更喜欢博物馆还是户外活动？
U: 户外活动，最好不用开车。
A: 那就沿着河边走一圈，大约{number}分钟；傍晚去山顶看日落。

B: سؤال آخر:
U: الطلب رقم {order} وصل مكسورًا. ماذا أفعل؟
A: نأسف لذلك. هل تفضّل أن نرسل لك قطعة جديدة أم أن نعيد لك المبلغ؟
U: قطعة جديدة من فضلك.
A: تمّ. سترسل غدًا، ورقم الطلب هو {order}.

B: एक और सवाल:
U: चक्रवृद्धि ब्याज क्या होता है? आसान भाषा में समझाइए।
A: जब ब्याज पर भी ब्याज मिलता है, उसे चक्रवृद्धि ब्याज कहते हैं। पहले साल ₹{number}, दूसरे साल उससे थोड़ा ज़्यादा।
U: धन्यवाद, अब समझ में आ गया। 🙏
A: बहुत बढ़िया! कोई और सवाल हो तो ज़रूर पूछिए।

B: И ещё один вопрос.
U: Сервис падает с ошибкой «{error}» примерно раз в час. С чего начать?
C: read_logs(lines={number})
O: 02:00:03 rotate: переименован current.log\n02:00:03 {error}\n02:00:04 перезапуск
A: Процесс пишет в переименованный файл. Отправьте ему SIGHUP после ротации.
U: Помогло, спасибо!

B: Κάτι ακόμα:
U: Μπορείς να μου εξηγήσεις τι είναι η αναδρομή;
A: Είναι μια συνάρτηση που καλεί τον εαυτό της, κάθε φορά με ένα μικρότερο πρόβλημα, μέχρι να φτάσει στο απλούστερο.
U: Και πώς ξέρει πότε να σταματήσει;
A: Έχει μια βασική περίπτωση, που απαντά χωρίς νέα κλήση.

B: 하나 더 물어볼게요.
U: 회의를 다음 주로 미루고 싶어요. {name} 님께 보낼 메일을 써 주세요.
A: {name} 님, 안녕하세요. 죄송하지만 회의를 다음 주로 옮길 수 있을까요? 편하신 시간을 알려 주시면 맞추겠습니다.
U: 조금 더 짧게 부탁해요.
A: {name} 님, 회의를 다음 주로 옮겨도 괜찮으실까요? 감사합니다.
"""
ELSEWHERE_SHARE = 0.2

BRIDGES = [
    "One more thing.",
    "Something else while I have you here.",
    "Different topic:",
    "Thanks! Next question.",
    "While we're at it,",
]
_SPEAKERS = {
    "U": ("user", ""),
    "A": ("assistant", ""),
    "C": ("tool_call", ""),
    "O": ("tool_output", ""),
    "D": ("user", "document"),
    "T": ("user", "table"),
    "P": ("user", "picture"),
}


class Language(NamedTuple):
    bridges: list[str]
    scenes: list[list[DialogTurn]]


def _parse_scene(lines: list[str]) -> list[DialogTurn]:
    turns = []
    for line in lines:
        role, attached = _SPEAKERS[line[0]]
        turns.append(DialogTurn(role, line[3:].replace("\\n", "\n"), attached))
    return turns


def _paragraphs(text: str) -> list[list[str]]:
    return [paragraph.splitlines() for paragraph in text.strip().split("\n\n")]


_ENGLISH = Language(BRIDGES, [_parse_scene(lines) for lines in _paragraphs(SCENES)])
_OTHERS = [Language([bridge[3:]], [_parse_scene(lines)]) for bridge, *lines in _paragraphs(ELSEWHERE)]


def conversation(rng: random.Random) -> Iterator[DialogTurn]:
    """Yield the messages of an endless conversation in one language."""
    language = rng.choice(_OTHERS) if rng.random() < ELSEWHERE_SHARE else _ENGLISH
    bridge = ""
    while True:
        slots = {name: rng.choice(values) for name, values in SLOTS.items()}
        for turn in rng.choice(language.scenes):
            text = turn.text.format_map(slots)
            yield DialogTurn(turn.role, f"{bridge} {text}".lstrip(), turn.attached)
            bridge = ""
        bridge = rng.choice(language.bridges)
