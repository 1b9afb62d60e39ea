"""This is where numbers become text that people read: counts, money, shares, sizes, times."""

from datetime import datetime, tzinfo

_UNITS = ("B", "KB", "MB", "GB", "TB")
_SIGNS = {"CNY": "¥", "USD": "$", "EUR": "€"}


def count(value: float) -> str:
    """12,345; from a million on 1.23M."""
    if abs(value) >= 1_000_000_000:
        return f"{value / 1_000_000_000:.2f}B"
    return f"{value / 1_000_000:.2f}M" if abs(value) >= 1_000_000 else f"{value:,.0f}"


def money(micros: int, currency: str) -> str:
    """Whole millionths as ¥5.00, ¥1.2345 or ¥0.001234: as many places as whole cents, or small amounts, need."""
    amount = abs(micros) / 1_000_000
    is_even = micros % 10_000 == 0 or amount >= 100
    text = f"{amount:,.2f}" if is_even else f"{amount:,.6f}" if amount < 0.01 else f"{amount:,.4f}"
    return f"{'-' if micros < 0 else ''}{sign(currency)}{text}"


def sign(currency: str) -> str:
    """What stands before an amount."""
    return _SIGNS.get(currency, f"{currency} ")


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def size(count_bytes: float) -> str:
    step = 0
    while count_bytes >= 1000 and step < len(_UNITS) - 1:
        count_bytes, step = count_bytes / 1000, step + 1
    return f"{count_bytes:.1f} {_UNITS[step]}" if step else f"{count_bytes:.0f} B"


def duration(seconds: float | None) -> str:
    """3.2 ms, 1.24 s, 2 min 5 s."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def wait(seconds: float) -> str:
    """How long still, in whole seconds and never none: 1 s, 2 min 5 s."""
    return duration(seconds) if seconds >= 60 else f"{max(1, round(seconds))} s"


def moment(at: float | None, zone: tzinfo | None = None) -> str:
    """2026-11-23 17:05:09 in the zone; nothing: the machine's own. at: seconds since 1970."""
    return "–" if at is None else datetime.fromtimestamp(at, zone).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
