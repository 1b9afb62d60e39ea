"""Tools and prompts for the tool-call tests. Nothing here is tuned to an engine."""

from typing import Any

S = {"type": "string"}
I = {"type": "integer"}  # noqa: E741
N = {"type": "number"}
B = {"type": "boolean"}


def _tool(
    name: str, description: str, properties: dict[str, Any] | None = None, required: list[str] | None = None, **extra: Any
) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description}
    if properties is not None:
        function["parameters"] = {
            "type": "object",
            "properties": properties,
            "required": list(properties) if required is None else required,
            **extra,
        }
    return {"type": "function", "function": function}


_POINT = {
    "type": "object",
    "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90}, "lon": {"type": "number", "minimum": -180, "maximum": 180}},
    "required": ["lat", "lon"],
}
_GUEST = {"type": "object", "properties": {"name": S, "vegetarian": B}, "required": ["name"]}

# (tool, a prompt that calls for it)
OFFERED: list[tuple[dict[str, Any], str]] = [
    (
        _tool(
            "get_current_weather",
            "Weather at a place now.",
            {"city": S, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            ["city"],
        ),
        "What's the weather in Hangzhou right now?",
    ),
    (_tool("get_current_time", "The current time."), "What time is it now?"),
    (
        _tool("search_web", "Search the web.", {"query": S, "limit": {"type": "integer", "minimum": 1, "maximum": 20}}, ["query"]),
        "Search the web for news about solar panels.",
    ),
    (
        _tool("send_email", "Send an email.", {"to": {"type": "string", "format": "email"}, "subject": S, "body": S}),
        "Send an email to ann@example.com: subject Lunch, body See you at noon.",
    ),
    (
        _tool(
            "convert_currency",
            "Convert money.",
            {"amount": N, "source": {"type": "string", "pattern": "^[A-Z]{3}$"}, "target": {"type": "string", "pattern": "^[A-Z]{3}$"}},
        ),
        "How much is 250 USD in EUR? Use the tool.",
    ),
    (
        _tool(
            "create_event",
            "Put an event into the calendar.",
            {"title": S, "date": {"type": "string", "format": "date"}, "guests": {"type": "array", "items": _GUEST}},
            ["title", "date"],
        ),
        "Add a calendar event 'Team dinner' on 2025-03-14 with Ann and Bob.",
    ),
    (
        _tool(
            "set_thermostat",
            "Set a room's temperature.",
            {"room": {"enum": ["kitchen", "bedroom", "bath"]}, "degrees": {"type": "number", "minimum": 5, "maximum": 30}},
        ),
        "Set the bedroom to 19.5 degrees.",
    ),
    (_tool("turn_off_all_lights", "Switch every light off.", {}), "Please turn off all the lights."),
    (
        _tool("get_stock_price", "Price of a share.", {"symbol": {"type": "string", "pattern": "^[A-Z]{1,5}$"}}),
        "What is the current share price of AAPL?",
    ),
    (
        _tool(
            "book_flight",
            "Book a flight.",
            {"from": S, "to": S, "date": {"type": "string", "format": "date"}, "class": {"enum": ["economy", "business", "first"]}},
            ["from", "to", "date"],
        ),
        "Book me a business flight from Berlin to Madrid on 2025-06-01.",
    ),
    (
        _tool("find_route", "Route between two points.", {"start": _POINT, "end": _POINT, "mode": {"enum": ["walk", "bike", "car"]}}),
        "Find a bike route from 52.5, 13.4 to 52.4, 13.1.",
    ),
    (
        _tool(
            "add_to_cart",
            "Put goods into the cart.",
            {
                "items": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {"sku": S, "quantity": {"type": "integer", "minimum": 1}},
                        "required": ["sku", "quantity"],
                    },
                }
            },
        ),
        "Add 2 of SKU-77 and 1 of SKU-12 to my cart.",
    ),
    (
        _tool("translate_text", "Translate a text.", {"text": S, "language": {"enum": ["en", "zh", "fr", "de", "es"]}}),
        "Use the translator to translate 'good evening' into French.",
    ),
    (
        _tool("read_file", "Read a file of the project.", {"path": S, "encoding": {"type": ["string", "null"]}}, ["path"]),
        "Read the file src/main.py.",
    ),
    (
        _tool(
            "run_sql",
            "Run a query on the sales database.",
            {"query": S, "parameters": {"type": "array", "items": {"anyOf": [S, N, {"type": "null"}]}}},
            ["query"],
        ),
        "Run a SQL query that counts all orders.",
    ),
    (
        _tool(
            "play_music", "Play a song.", {"song": S, "artist": S, "volume": {"type": "integer", "minimum": 0, "maximum": 100}}, ["song"]
        ),
        "Play Imagine by John Lennon at volume 40.",
    ),
    (
        _tool(
            "create_ticket",
            "Open a support ticket.",
            {"title": S, "priority": {"enum": ["low", "normal", "high"]}, "labels": {"type": "array", "items": S, "maxItems": 4}},
            ["title", "priority"],
        ),
        "Open a high priority ticket: the printer on floor 3 is broken.",
    ),
    (
        _tool("roll_dice", "Roll dice.", {"count": {"type": "integer", "minimum": 1, "maximum": 10}, "sides": {"enum": [4, 6, 8, 12, 20]}}),
        "Roll two 20-sided dice.",
    ),
    (
        _tool("query_express", "查询快递物流信息。", {"单号": S, "公司": {"enum": ["顺丰", "中通", "圆通"]}}, ["单号"]),
        "帮我查一下顺丰快递 SF1234567890 到哪里了。",
    ),
    (
        _tool("set_reminder", "Remind the user.", {"text": S, "minutes": {"type": "integer", "exclusiveMinimum": 0}}),
        "Remind me in 25 minutes to take out the pizza.",
    ),
    (_tool("lookup_word", "Definition of a word.", {"word": S}), "Look up the word 'serendipity' in the dictionary."),
    (
        _tool("list_files", "Files of a folder.", {"folder": S, "recursive": {"type": "boolean", "default": False}}, ["folder"]),
        "List all the files in the docs folder, recursively.",
    ),
    (
        _tool(
            "update_profile",
            "Change the user's profile.",
            {
                "profile": {
                    "type": "object",
                    "properties": {
                        "name": S,
                        "address": {
                            "type": "object",
                            "properties": {"street": S, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
                            "required": ["street", "zip"],
                        },
                    },
                    "required": ["name", "address"],
                    "additionalProperties": False,
                }
            },
        ),
        "Change my profile: name Ann Lee, street Main St 5, zip 12345.",
    ),
    (_tool("get_exchange_rates", "All exchange rates of today.", {}, [], additionalProperties=False), "Get today's exchange rates."),
    (
        _tool(
            "label_images",
            "Store labels for pictures.",
            {"labels": {"type": "object", "additionalProperties": {"enum": ["cat", "dog", "other"]}}},
        ),
        "Label a.png as cat and b.png as dog.",
    ),
    (_tool("calculate", "Evaluate an arithmetic expression.", {"expression": S}), "Use the calculator: what is 1234 * 5678?"),
]

# Two calls at once.
PAIRS: list[tuple[tuple[int, int], str]] = [
    ((0, 0), "What's the weather in Paris and in Rome?"),
    ((1, 7), "Tell me the time and switch off all the lights."),
    ((8, 8), "Share prices of AAPL and MSFT, please."),
    ((15, 19), "Play Yesterday, and remind me in 10 minutes to stop it."),
]

# Prompts that call for no tool at all.
PLAIN = [
    "Hello! How are you today?",
    "Write a haiku about autumn.",
    "Explain in two sentences what a hash table is.",
    "What is the capital of Japan?",
    "Thanks, that was very helpful.",
    "Write a Python function that reverses a string.",
    "你好，请介绍一下你自己。",
    "Name three famous painters.",
    "What does 'carpe diem' mean?",
    "Tell me a short joke about programmers.",
    "How do I boil an egg?",
    "Give me an example of a JSON object that describes a person with a name and an age.",
    "Write a JSON config with the keys host, port and debug.",
    "What is the difference between a list and a tuple in Python?",
    "Who wrote Romeo and Juliet?",
    "Is 17 a prime number? Answer yes or no.",
    "写一首关于月亮的短诗。",
    "Give me a name for my new cat.",
    "Summarize: The meeting was moved to Monday because the room was taken.",
    "Show a small HTML page with a heading.",
    "What is photosynthesis?",
    "Write a polite refusal to an invitation.",
    "Correct the grammar: he go to school yesterday.",
    "List the primary colors.",
    "What are you good at?",
]


def toolbox(position: int, size: int = 4) -> list[dict[str, Any]]:
    """The tool at a position and its neighbours."""
    return [OFFERED[(position + step) % len(OFFERED)][0] for step in range(size)]
