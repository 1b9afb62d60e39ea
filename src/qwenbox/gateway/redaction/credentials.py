"""This is where keys and tokens of services are recognised, by the prefixes their issuers gave them so that they can be."""

import re
from collections.abc import Iterator

from qwenbox.gateway.redaction.config import Kind
from qwenbox.gateway.redaction.found import Found

_FORMS = (
    r"sk-[A-Za-z0-9_\-]{20,}",  # DashScope, OpenAI, Anthropic, DeepSeek and this box
    r"st-[A-Za-z0-9_\-.]{24,}",  # short-lived ones
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"LTAI[A-Za-z0-9]{12,26}",  # Alibaba Cloud
    r"AKID[A-Za-z0-9]{32,36}",  # Tencent Cloud
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"xox[abeprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"AIza[A-Za-z0-9_\-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}",
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"r8_[A-Za-z0-9]{30,}",  # Replicate
    r"gsk_[A-Za-z0-9]{40,}",  # Groq
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_\-]{40,}",
    r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}",  # SendGrid
    r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",  # JSON web tokens
)
_PREFIXED = re.compile(rf"(?<![A-Za-z0-9_\-])(?:{'|'.join(_FORMS)})")
_NAMED = re.compile(
    r"(?:\bbearer[ ]+|(?:api[_\-]?key|access[_\-]?key(?:[_\-]?(?:id|secret))?|secret(?:[_\-]?key)?|(?:auth|access)[_\-]?token"
    r"|password|passwd|密码|密钥)[\"']?[ ]{0,2}[:=][ ]{0,2}[\"']?)([A-Za-z0-9_\-.~+/]{16,}={0,2})",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]{0,20}PRIVATE KEY)-----(?s:.){32,8192}?-----END \1-----")

# Fewer different signs than this are an example's (sk-xxxxxxxx), not a key's.
_FEWEST_SIGNS = 8


def api_keys(text: str) -> Iterator[Found]:
    for match in _BLOCK.finditer(text):
        yield Found(Kind.API_KEY, match.start(), match.end(), match[0])
    for match in _PREFIXED.finditer(text):
        key = match[0].rstrip("-.")
        if len(set(key)) >= _FEWEST_SIGNS + 2:
            yield Found(Kind.API_KEY, match.start(), match.start() + len(key), key)
    for match in _NAMED.finditer(text):
        key = match[1].rstrip(".")
        if len(set(key)) >= _FEWEST_SIGNS and any(map(str.isdigit, key)) and any(map(str.isalpha, key)):
            yield Found(Kind.API_KEY, match.start(1), match.start(1) + len(key), key)
