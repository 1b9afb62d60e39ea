"""This is where personal data that nobody has is made up for tests, and what only looks like it: with checksums of our own.

Imports nothing a detector uses; everything follows from the `random.Random` that is handed in.
"""

# ruff: noqa: E501  (tables stay rows)

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

CHECKED = ("resident_id", "bank_card", "iban")

FULL_WIDTH = {ord(sign): chr(ord(sign) + 0xFEE0) for sign in string.digits + string.ascii_letters}
DASHES = ("-", "‐", "–", "—", "－", "−")
SPACES = (" ", "\u3000", "\u00a0", "\u2009")

_MOBILES = [
    "134",
    "135",
    "136",
    "137",
    "138",
    "139",
    "147",
    "150",
    "151",
    "152",
    "157",
    "158",
    "159",
    "178",
    "182",
    "183",
    "187",
    "188",
    "198",
    "130",
    "131",
    "132",
    "155",
    "156",
    "166",
    "185",
    "186",
    "133",
    "153",
    "177",
    "180",
    "181",
    "189",
    "199",
]
_PLACES = [
    "110101",
    "110105",
    "120101",
    "310104",
    "310115",
    "320102",
    "330106",
    "350102",
    "370102",
    "420106",
    "430102",
    "440106",
    "440305",
    "500103",
    "510107",
    "610113",
]
_CARDS = (("62", 16), ("62", 19), ("622848", 19), ("621700", 19), ("4", 16), ("51", 16), ("53", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("3528", 16), ("6011", 16), ("65", 16))  # fmt: skip
_IBANS = {"DE": "8n10n", "FR": "5n5n11c2n", "GB": "4a6n8n", "ES": "4n4n1n1n10n", "IT": "1a5n5n12c", "NL": "4a10n", "CH": "5n12c", "AT": "5n11n", "BE": "3n7n2n", "SA": "2n18c", "AE": "3n16n", "PL": "8n16n"}  # fmt: skip
_AREAS = (("010", 8), ("021", 8), ("020", 8), ("0755", 8), ("0571", 8), ("0512", 8), ("025", 8), ("028", 8))
_NORTH_AMERICA = ["212", "312", "415", "646", "206", "617", "702", "303"]


@dataclass(frozen=True)
class Item:
    """kind: what it is, or for a look-alike what it could be taken for. text: as it stands in the running text, words that belong to it
    before and after. plain: letters and digits only, as a search through what left would look for it."""

    kind: str
    text: str
    before: str = ""
    after: str = ""

    @property
    def plain(self) -> str:
        return plain(self.text)


Maker: TypeAlias = Callable[[random.Random], Item]


def plain(text: str) -> str:
    """Letters and digits in ASCII, lower case, nothing between them."""
    narrow = "".join(chr(ord(sign) - 0xFEE0) if 0xFF01 <= ord(sign) <= 0xFF5E else sign for sign in text)
    return "".join(sign for sign in narrow.lower() if sign.isascii() and sign.isalnum())


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(count))


def luhn_digit(body: str) -> str:
    """The digit that makes the body's Luhn sum a multiple of ten (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, sign in enumerate(reversed(body)):
        value = int(sign) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def resident_digit(body: str) -> str:
    """The check digit of 17 others (GB 11643-1999)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[sum(int(sign) * weight for sign, weight in zip(body, weights, strict=True)) % 11]


def iban_digits(country: str, account: str) -> str:
    """ISO 13616: 98 less the remainder of the account, the country and 00, letters as 10 to 35."""
    number = int("".join(str(int(sign, 36)) for sign in f"{account}{country}00"))
    return f"{98 - number % 97:02d}"


def spelled(draw: random.Random, groups: list[str]) -> str:
    """The groups as somebody writes them: together, apart, full-width, on two lines."""
    form = draw.randrange(7)
    if form == 0:
        return "".join(groups)
    if form == 1:
        return "".join(groups).translate(FULL_WIDTH)
    if form == 2:
        return draw.choice(SPACES).join(groups)
    if form == 3:
        return draw.choice(DASHES).join(groups)
    if form == 4:
        return draw.choice(SPACES).join(groups).translate(FULL_WIDTH)
    if form == 5:
        return draw.choice(("\n", "\r\n", " \n")).join(groups)
    cut = draw.randrange(1, len(groups))
    return " ".join(groups[:cut]) + "\n" + " ".join(groups[cut:])


def cut(text: str, *lengths: int) -> list[str]:
    groups: list[str] = []
    for length in lengths:
        groups.append(text[:length])
        text = text[length:]
    return [group for group in (*groups, text) if group]


def phone(draw: random.Random) -> Item:
    form = draw.randrange(6)
    if form <= 2:
        number = draw.choice(_MOBILES) + digits(draw, 8)
        prefix = draw.choice(("", "", "+86 ", "+86", "0086 ", "86-"))
        return Item("phone", prefix + spelled(draw, cut(number, 3, 4)))
    if form == 3:
        area, length = draw.choice(_AREAS)
        number = draw.choice("5678") + digits(draw, length - 1)
        return Item(
            "phone", draw.choice((f"{area}-{number}", f"({area}) {number}", f"（{area}）{number}", f"{area} {number[:4]} {number[4:]}"))
        )
    if form == 4:
        area, rest = draw.choice(_NORTH_AMERICA), "234567"[draw.randrange(6)] + digits(draw, 2)
        rest = rest if rest[1:] != "11" else rest[0] + "23"
        last = digits(draw, 4)
        forms = (
            f"+1 {area} {rest} {last}",
            f"+1-{area}-{rest}-{last}",
            f"({area}) {rest}-{last}",
            f"{area}-{rest}-{last}",
            f"{area}.{rest}.{last}",
        )
        return Item("phone", draw.choice(forms))
    number = draw.choice(("+44 7700 9" + digits(draw, 5), "+49 151 2" + digits(draw, 7), "+81 90 2" + digits(draw, 3) + " " + digits(draw, 4), "+65 91" + digits(draw, 6), "+852 6" + digits(draw, 7), "+33 6 1" + digits(draw, 1) + " " + digits(draw, 2) + " " + digits(draw, 2) + " " + digits(draw, 2)))  # fmt: skip
    return Item("phone", number.replace("+44 7700 9", "+44 7911 1") if number.startswith("+44") else number)


def _born(draw: random.Random) -> str:
    return f"{draw.randrange(1950, 2010)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}"


def resident_id(draw: random.Random) -> Item:
    if draw.random() < 0.1:
        old = draw.choice(("110101", "310104", "440106", "330106", "420106")) + _born(draw)[2:] + digits(draw, 3)
        return Item("resident_id", draw.choice((old, old.translate(FULL_WIDTH), f"{old[:6]} {old[6:12]} {old[12:]}")))
    body = draw.choice(_PLACES) + _born(draw) + digits(draw, 3)
    number = body + resident_digit(body)
    if draw.random() < 0.2:
        number = number.lower()
    return Item("resident_id", spelled(draw, draw.choice((cut(number, 6, 8), cut(number, 6, 4, 4), cut(number, 3, 3, 4, 4)))))


def bank_card(draw: random.Random) -> Item:
    issuer, length = draw.choice(_CARDS)
    body = issuer + digits(draw, length - len(issuer) - 1)
    number = body + luhn_digit(body)
    return Item("bank_card", spelled(draw, cut(number, 4, 6) if length == 15 else cut(number, 4, 4, 4, 4)))


def iban(draw: random.Random) -> Item:
    country = draw.choice(list(_IBANS))
    structure, account = _IBANS[country], ""
    while structure:
        count = structure[: next(place for place, sign in enumerate(structure) if sign.isalpha())]
        kind, structure = structure[len(count)], structure[len(count) + 1 :]
        signs = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}[kind]
        account += "".join(draw.choice(signs) for _ in range(int(count)))
    number = country + iban_digits(country, account) + account
    return Item("iban", spelled(draw, cut(number, *[4] * 8)))


def email(draw: random.Random) -> Item:
    name = draw.choice(("zhang.wei", "li_na", "j.smith", "anna-k", "wang", "info", "m", "first.last+tag")) + draw.choice(
        ("", digits(draw, 2))
    )
    host = draw.choice(("example.com", "mail.example.cn", "qq.com", "163.com", "corp.example.co.uk", "uni-bonn.de", "foxmail.com"))
    address = f"{name}@{host}"
    if draw.random() < 0.15:
        address = address.replace("@", "＠")
    elif draw.random() < 0.1:
        address = address.translate(FULL_WIDTH).replace("@", "＠").replace(".", "．")
    return Item("email", address)


def ip(draw: random.Random) -> Item:
    if draw.random() < 0.3:
        groups = [f"{draw.randrange(0x1, 0xFFFF):x}" for _ in range(6)]
        return Item("ip", draw.choice(("2001:db8:" + ":".join(groups), f"2400:3200::{groups[0]}", f"fe80::{groups[0]}:{groups[1]}", f"fd12:3456:789a::{groups[2]}")))  # fmt: skip
    address = f"{draw.choice((10, 192, 172, 8, 47, 114, 203))}.{draw.randrange(1, 255)}.{draw.randrange(0, 255)}.{draw.randrange(1, 255)}"
    return Item("ip", draw.choice((address, address, address.translate(FULL_WIDTH).replace(".", "．"))))


def passport(draw: random.Random) -> Item:
    number = draw.choice(("E" + digits(draw, 8), "E" + draw.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") + digits(draw, 7), "G" + digits(draw, 8)))
    text = draw.choice(
        (number, number, number.translate(FULL_WIDTH), f"{number[:1]} {number[1:5]} {number[5:]}", f"{number[:5]}-{number[5:]}")
    )
    before = draw.choice(("护照号", "护照号码：", "passport no. ", "Passport number: ", "护照为 ", "passport "))
    return Item("passport", text, before=before)


def api_key(draw: random.Random) -> Item:
    def signs(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(draw.choice(alphabet) for _ in range(count))

    key = draw.choice((
        "sk-" + signs(32, "0123456789abcdef"), "sk-proj-" + signs(48), "sk-ant-api03-" + signs(40), "AKIA" + signs(16, string.ascii_uppercase + string.digits),
        "LTAI5t" + signs(18), "ghp_" + signs(36), "glpat-" + signs(20), "AIza" + signs(35), "hf_" + signs(34), "xoxb-" + digits(draw, 12) + "-" + signs(24),
    ))  # fmt: skip
    if draw.random() < 0.15:
        return Item("api_key", signs(40), before="Authorization: Bearer ")
    return Item("api_key", key, before=draw.choice(("", "", "key=", "api_key: ", "密钥：")))


TRUE: dict[str, Maker] = {
    "phone": phone,
    "resident_id": resident_id,
    "bank_card": bank_card,
    "email": email,
    "iban": iban,
    "ip": ip,
    "passport": passport,
    "api_key": api_key,
}


def wrong_digit(draw: random.Random, right: str) -> str:
    return draw.choice([sign for sign in string.digits if sign != right])


def like_resident_id(draw: random.Random) -> Item:
    form = draw.randrange(3)
    body = draw.choice(_PLACES) + _born(draw) + digits(draw, 3)
    if form == 0:
        number = body + wrong_digit(draw, resident_digit(body))
    elif form == 1:
        body = body[:10] + draw.choice(("1332", "0231", "0000", "1700")) + body[14:]
        number = body + resident_digit(body)
    else:
        body = draw.choice(("99", "00", "77", "20")) + body[2:]
        number = body + resident_digit(body)
    return Item("resident_id", spelled(draw, cut(number, 6, 8)))


def like_bank_card(draw: random.Random) -> Item:
    issuer, length = draw.choice(_CARDS)
    body = issuer + digits(draw, length - len(issuer) - 1)
    if draw.random() < 0.7:
        number = body + wrong_digit(draw, luhn_digit(body))
        return Item("bank_card", spelled(draw, cut(number, 4, 4, 4, 4)))
    number = body + luhn_digit(body)  # an order's number may be Luhn's by chance: the text says what it is
    return Item(
        "bank_card", number, before=draw.choice(("订单号：", "订单编号 ", "快递单号:", "order no. ", "tracking number: ", "流水号"))
    )


def like_iban(draw: random.Random) -> Item:
    number = plain(iban(draw).text).upper()
    wrong = f"{(int(number[2:4]) + draw.randrange(1, 90)) % 97:02d}"
    if wrong == number[2:4] or (int(wrong) - int(number[2:4])) % 97 == 0:
        wrong = "00"
    return Item("iban", spelled(draw, cut(number[:2] + wrong + number[4:], *[4] * 8)))


def like_email(draw: random.Random) -> Item:
    return Item("email", draw.choice(("@张伟", "logo@2x.png", "icon@3x.webp", "git@github.com:qwen/box.git", "lodash@4.17.21", "@app.route", "user@localhost", "a@b", "3 @ 5.00", "actions/checkout@v4", "＠所有人", "x@y@z", "react@18.2.0")))  # fmt: skip


def like_ip(draw: random.Random) -> Item:
    four = ".".join(str(draw.randrange(0, 30)) for _ in range(4))
    big = f"{draw.randrange(256, 999)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}"
    clock = f"{draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}"
    mac = ":".join(f"{draw.randrange(256):02x}" for _ in range(6))
    return draw.choice((
        Item("ip", four, before=draw.choice(("v", "version ", "版本 ", "版本号：", "release "))), Item("ip", big), Item("ip", clock), Item("ip", mac),
        Item("ip", four, before="Chrome/"), Item("ip", "std::cout"), Item("ip", "abc::def"), Item("ip", four, before="第", after="节"),
        Item("ip", f"{draw.randrange(10)}.{draw.randrange(100)}.{draw.randrange(100)}"), Item("ip", "127.0.0.1"), Item("ip", "255.255.255.0"),
    ))  # fmt: skip


def like_passport(draw: random.Random) -> Item:
    return Item("passport", draw.choice(("E", "G")) + digits(draw, 8), before=draw.choice(("型号", "part ", "SKU ", "error code ", "货号")))


def like_api_key(draw: random.Random) -> Item:
    sha = "".join(draw.choice("0123456789abcdef") for _ in range(40))
    uuid = "-".join("".join(draw.choice("0123456789abcdef") for _ in range(count)) for count in (8, 4, 4, 4, 12))
    return Item("api_key", draw.choice((sha, uuid, "sk-learn", "sk-xxxxxxxxxxxxxxxxxxxxxxxx", "AKIA", "hf_hub_download", "ghp_token", "sk-your-key", "bearer of bad news", "AIza", "xoxb-", "$DASHSCOPE_API_KEY", "api_key=None", sha[:7])))  # fmt: skip


def like_phone(draw: random.Random) -> Item:
    number = draw.choice(_MOBILES) + digits(draw, 8)
    seconds = str(draw.randrange(1_600_000_000, 1_800_000_000))
    isbn = "978" + draw.choice("7") + digits(draw, 8)
    isbn += str(-sum(int(sign) * (3 if place % 2 else 1) for place, sign in enumerate(isbn)) % 10)
    year = draw.randrange(1990, 2030)
    return draw.choice((
        Item("phone", number, before=draw.choice(("订单号：", "order number ", "流水号 ", "工单编号：", "ticket #", "invoice no. ", "批号"))),
        Item("phone", seconds), Item("phone", seconds + digits(draw, 3)), Item("phone", seconds + digits(draw, 6)),
        Item("phone", isbn, before="ISBN "), Item("phone", f"{isbn[:3]}-{isbn[3]}-{isbn[4:7]}-{isbn[7:12]}-{isbn[12]}"),
        Item("phone", f"{number[:2]},{number[2:5]},{number[5:8]},{number[8:]}"), Item("phone", number, before="¥"), Item("phone", number, after=" 元"),
        Item("phone", f"{number}.{digits(draw, 2)}"), Item("phone", f"0.{number}"), Item("phone", f"{year}-11-{draw.randrange(10, 29)} 15:{draw.randrange(10, 59)}"),
        Item("phone", "12" + digits(draw, 9)), Item("phone", digits(draw, 6)), Item("phone", f"{year}年{draw.randrange(1, 12)}月"),
        Item("phone", f"{year}–{year + 5}"), Item("phone", f"DD2024-{number}"), Item("phone", "SF" + digits(draw, 13)), Item("phone", number + digits(draw, 9), before="订单 "),
        Item("phone", f"{draw.randrange(90)}.{digits(draw, 6)}, {draw.randrange(180)}.{digits(draw, 6)}"), Item("phone", "2024" + digits(draw, 4) + digits(draw, 8), before="订单"),
    ))  # fmt: skip


ALIKE: dict[str, Maker] = {
    "phone": like_phone,
    "resident_id": like_resident_id,
    "bank_card": like_bank_card,
    "email": like_email,
    "iban": like_iban,
    "ip": like_ip,
    "passport": like_passport,
    "api_key": like_api_key,
}

_CHINESE = (
    "昨天下午我们开会讨论了项目进度，", "客户反映系统有时打不开，", "请尽快处理这件事，", "根据您提供的材料，", "我已经在表格里填好了，", "他在邮件里写道：", "如需帮助请告诉我们，", "登记的信息如下：",
)  # fmt: skip
_CHINESE_END = ("，请核对后回复。", "。谢谢！", "，其他内容不变。", "；以上请知悉。", "，麻烦确认一下。", "（已确认）。")
_ENGLISH = (
    "We talked about this yesterday and ", "The customer wrote that ", "Please have a look at ", "As stated in the form, ", "My notes say: ", "According to the log, ", "Sorry for the delay; it was ",
)  # fmt: skip
_ENGLISH_END = (", which is what we have on file.", ". Thanks!", "; please confirm.", " and nothing else changed.", ", as far as I know.")


def running(draw: random.Random, item: Item) -> tuple[str, int, int]:
    """A sentence around the item, and where the item stands in it."""
    is_chinese = draw.random() < 0.5
    before = draw.choice(_CHINESE if is_chinese else _ENGLISH) + item.before
    after = item.after + draw.choice(_CHINESE_END if is_chinese else _ENGLISH_END)
    return before + item.text + after, len(before), len(before) + len(item.text)
