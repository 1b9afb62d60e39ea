"""This is where the named formats of JSON Schema are patterns; each pattern matches only valid values of its format."""

_MONTHS = r"((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
_DATE = rf"[12]\d{{3}}-{_MONTHS}"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_HOST = r"[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,20})?(\.[A-Za-z0-9]{1,20}){0,3}\.[A-Za-z]{2,12}"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_URI = rf"https?://{_HOST}(/[A-Za-z0-9._~-]{{1,40}}){{0,6}}/?(\?[A-Za-z0-9=&_.-]{{1,60}})?"
_EMAIL = rf"[A-Za-z0-9]{{1,24}}([._+-][A-Za-z0-9]{{1,24}}){{0,3}}@{_HOST}"

FORMATS: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": r"^P(\d{1,3}[YMWD]|T\d{1,3}[HMS]|\d{1,3}DT\d{1,3}[HMS])$",
    "email": f"^{_EMAIL}$",
    "idn-email": f"^{_EMAIL}$",
    "hostname": f"^{_HOST}$",
    "idn-hostname": f"^{_HOST}$",
    "ipv4": rf"^({_BYTE}\.){{3}}{_BYTE}$",
    "ipv6": r"^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    "uuid": r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    "uri": f"^{_URI}$",
    "uri-reference": f"^{_URI}$",
    "iri": f"^{_URI}$",
    "iri-reference": f"^{_URI}$",
    "uri-template": f"^{_URI}$",
    "json-pointer": r"^(/[A-Za-z0-9_-]{1,24}){0,6}$",
    "relative-json-pointer": r"^\d(/[A-Za-z0-9_-]{1,24}){0,6}$",
    "regex": r"^[A-Za-z0-9 _-]{1,60}$",
}
