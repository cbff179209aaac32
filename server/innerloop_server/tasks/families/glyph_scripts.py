"""The letters of ``glyphs``: whole scripts, each for one split, and the fonts that have them."""

from __future__ import annotations

from dataclasses import dataclass

from innerloop_server.domain import Split

SANS = ("DejaVuSans", "DejaVuSans-Bold")
MONO = ("DejaVuSansMono", "DejaVuSansMono-Bold")
SERIF = ("DejaVuSerif", "DejaVuSerif-Bold")


@dataclass(frozen=True)
class Alphabet:
    """Letters of one script, in one case."""

    name: str
    split: Split
    letters: str
    """Those that are told apart by more than size and place. Some differ by a dot or a stroke, as in reading."""
    fonts: tuple[str, ...]
    """Of those that matplotlib ships; each has all the letters."""


ALPHABETS = (
    Alphabet("latin capitals", Split.TRAIN, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", SANS + MONO + SERIF),
    Alphabet("latin small", Split.TRAIN, "abcdefghijklmnopqrstuvwxyz", SANS + MONO + SERIF),
    Alphabet("greek capitals", Split.TRAIN, "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ", SANS + MONO + SERIF),
    Alphabet("greek small", Split.TRAIN, "αβγδεζηθικλμνξοπρςστυφχψω", SANS + MONO + SERIF),
    Alphabet("cyrillic capitals", Split.TRAIN, "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ", SANS + MONO + SERIF),
    Alphabet("armenian capitals", Split.TRAIN, "ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ", SANS + MONO + SERIF),
    Alphabet("armenian small", Split.TRAIN, "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ", SANS + MONO + SERIF),
    Alphabet("arabic", Split.TRAIN, "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", SANS + MONO),
    Alphabet("canadian syllabics", Split.TRAIN, "ᐁᐃᐅᐊᐯᐱᐳᐸᑌᑎᑐᑕᑫᑭᑯᑲᒉᒋᒍᒐᒣᒥᒧᒪᓀᓂᓄᓇᓓᓕᓗᓚᓭᓯᓱᓴᔐᔑᔓᔕᔦᔨᔪᔭᕂᕆᕈᕋᕓᕕᕗᕙᕞᕠᕤᕦ", SANS),
    Alphabet("lisu", Split.TRAIN, "ꓐꓑꓒꓓꓔꓕꓖꓗꓘꓙꓚꓛꓜꓝꓞꓟꓠꓡꓢꓣꓤꓥꓦꓧꓨꓩꓪꓫꓬꓭꓮꓯꓰꓱꓲꓳꓴꓵꓶꓷ", SANS),
    Alphabet("old italic", Split.TRAIN, "𐌀𐌁𐌂𐌃𐌄𐌅𐌆𐌇𐌈𐌉𐌊𐌋𐌌𐌍𐌎𐌏𐌐𐌑𐌒𐌓𐌔𐌕𐌖𐌗𐌘𐌙𐌚𐌛𐌜𐌝𐌞", SANS),
    Alphabet("hebrew", Split.VALIDATION, "אבגדהוזחטיךכלםמןנסעףפץצקרשת", SANS),
    Alphabet("lao", Split.VALIDATION, "ກຂຄງຈຊຍດຕຖທນບປຜຝພຟມຢຣລວສຫອຮ", SANS + MONO),
    Alphabet("georgian", Split.TEST, "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ", SANS + MONO + SERIF),
    Alphabet("georgian asomtavruli", Split.TEST, "ႠႡႢႣႤႥႦႧႨႩႪႫႬႭႮႯႰႱႲႳႴႵႶႷႸႹႺႻႼႽႾႿჀჁჂჃჄჅ", SANS + SERIF),
    Alphabet("n'ko", Split.TEST, "ߊߋߌߍߎߏߐߑߒߓߔߕߖߗߘߙߚߛߜߝߞߟߠߡߢߣߤߥߦߧ", SANS),
    Alphabet("tifinagh", Split.TEST, "ⴰⴱⴲⴳⴴⴵⴶⴷⴸⴹⴺⴻⴼⴽⴾⴿⵀⵁⵂⵃⵄⵅⵆⵇⵈⵉⵊⵋⵌⵍⵎⵏⵐⵑⵒⵓⵔⵕⵖⵗⵘⵙⵚⵛⵜⵝⵞⵟⵠⵡⵢⵣⵤⵥ", SANS),
)

LETTERS = "".join(alphabet.letters for alphabet in ALPHABETS)
"""Every letter; a class of ``glyphs`` is a place in here."""


def groups() -> dict[Split, tuple[tuple[int, ...], ...]]:
    """Split -> its alphabets, as classes."""
    found: dict[Split, tuple[tuple[int, ...], ...]] = dict.fromkeys(Split, ())
    first = 0
    for alphabet in ALPHABETS:
        after = first + len(alphabet.letters)
        found[alphabet.split] += (tuple(range(first, after)),)
        first = after
    return found
