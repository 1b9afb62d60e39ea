"""This is where a visitor writes: a prompt, pictures with it, and what it will take before it is sent."""

from collections.abc import Awaitable, Callable

from nicegui import events, ui

from qwenbox.console import parts
from qwenbox.console.pages.playground.request import Picture, Question
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

# The service's own bound for a picture that comes within a request; Exceeded limit on max bytes per data-uri item.
MOST_PICTURE_BYTES = 7_500_000
_MOST_PICTURES = 8
_COUNT_AFTER_S = 0.4
_FORMS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}

# Enter sends, but neither with Shift nor while a word is being composed, as in Chinese.
_ENTER = "(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); emit(e.target.value) } }"
# What is dropped or pasted goes to the uploader, as if it had been picked.
_DROP = "(e) => { e.preventDefault(); const f = [...e.dataTransfer.files]; if (f.length) runMethod(%d, 'addFiles', [f]) }"
_PASTE = "(e) => { const f = [...e.clipboardData.files]; if (f.length) { e.preventDefault(); runMethod(%d, 'addFiles', [f]) } }"


class Composer:
    """send, stop: what its buttons do. changed: the prompt is another, and nobody has typed for a moment."""

    def __init__(self, view: View, send: Callable[[], Awaitable[None]], stop: Callable[[], object], changed: Callable[[], object]) -> None:
        self._view = view
        self._changed = changed
        self._pictures: list[Picture] = []
        self._due: ui.timer | None = None
        self._send = view.handler(send)
        t = view.t
        with ui.element("div").classes("composer card stack") as self._box:
            self._thumbs = ui.element("div").classes("row thumbs")
            self._thumbs.set_visibility(False)
            self.prompt = ui.textarea(placeholder=t("Ask something…"), on_change=self.touched)
            self.prompt.props(f'rows=2 borderless dense data-testid=prompt aria-label="{t("Prompt")}"').classes("prompt")
            self.prompt.on("keydown", self._entered, js_handler=_ENTER)
            with ui.element("div").classes("row between"):
                with ui.element("div").classes("row"):
                    self._build_pick()
                    self.told = ui.label().classes("muted small tabular").props("data-testid=prompt-tokens")
                with ui.element("div").classes("row"):
                    self._stop_button = ui.button(t("Stop"), icon="stop", on_click=stop).props("outline no-caps data-testid=stop")
                    self._stop_button.tooltip("Esc")
                    self._send_button = ui.button(t("Send"), icon="send", on_click=self._send).props("unelevated no-caps data-testid=send")
        self._stop_button.set_visibility(False)

    def taken(self) -> Question | None:
        """What was written, and the field is empty again; None where there is nothing."""
        question = self.draft
        if question is not None:
            self._pictures = []
            self.prompt.set_value("")
            self._show_pictures()
        return question

    @property
    def draft(self) -> Question | None:
        text = (self.prompt.value or "").strip()
        return Question(text=text, pictures=tuple(self._pictures)) if text or self._pictures else None

    def set_running(self, is_running: bool) -> None:
        self._stop_button.set_visibility(is_running)
        self._send_button.set_visibility(not is_running)
        if is_running:
            self.prompt.run_method("focus")

    def set_takes_pictures(self, takes: bool) -> None:
        self._pick.set_visibility(takes)
        self._takes_pictures = takes

    def touched(self) -> None:
        """Ask what it takes, soon."""
        if self._due is not None:
            self._due.cancel()
        with self._box:
            self._due = ui.timer(_COUNT_AFTER_S, self._changed, once=True)

    def _build_pick(self) -> None:
        t = self._view.t
        self._takes_pictures = False
        uploader = ui.upload(on_upload=self._uploaded, on_rejected=self._rejected, multiple=True, auto_upload=True)
        uploader.props(f'accept="image/*" max-file-size={MOST_PICTURE_BYTES} data-testid=drop-image').classes("unseen-upload")
        self._uploader = uploader
        self._pick = ui.button(icon="image").props("flat round dense data-testid=pick-image")
        # At once in the browser: it opens its dialog for a file only while it remembers the key or the click.
        self._pick.on("click", js_handler=f"(event) => getElement({uploader.id}).$refs.qRef.pickFiles(event)")
        parts.named(self._pick, t("Add a picture")).tooltip(t("Add a picture; or drop or paste one"))
        self._box.on("dragover", js_handler="(e) => e.preventDefault()")
        self._box.on("drop", js_handler=_DROP % uploader.id)
        self._box.on("paste", js_handler=_PASTE % uploader.id)

    async def _entered(self, event: events.GenericEventArguments) -> None:
        # The field's own value may still be on its way.
        self.prompt.set_value(str(event.args))
        await self._send()

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        data = await event.file.read()
        self._uploader.reset()
        t = self._view.t
        media_type = _form(data)
        if not self._takes_pictures:
            self._warn(t("This model takes no pictures."))
        elif not media_type:
            self._warn(t("{name} is no picture that models read: PNG, JPEG, WebP, GIF or BMP.", name=event.file.name))
        elif len(self._pictures) >= _MOST_PICTURES:
            self._warn(t("At most {count} pictures at once.", count=_MOST_PICTURES))
        else:
            self._pictures.append(Picture(name=event.file.name, media_type=media_type, data=data))
            self._show_pictures()

    def _rejected(self) -> None:
        self._warn(self._view.t("Only pictures of at most {count} MB.", count=f"{MOST_PICTURE_BYTES / 1_000_000:g}"))

    def _warn(self, told: str) -> None:
        with self._box:
            self._view.tell_trouble(ApiError(ErrorKind.INVALID_REQUEST, told))

    def _show_pictures(self) -> None:
        self._thumbs.clear()
        self._thumbs.set_visibility(bool(self._pictures))
        with self._thumbs:
            for picture in self._pictures:
                self._thumb(picture)
        self.touched()

    def _thumb(self, picture: Picture) -> None:
        def remove() -> None:
            self._pictures.remove(picture)
            self._show_pictures()

        with ui.element("div").classes("thumb").props("data-testid=thumb"):
            thumbnail(picture)
            button = ui.button(icon="close", on_click=remove).props("round dense size=xs unelevated")
            parts.named(button, self._view.t("Remove {name}", name=picture.name))


def thumbnail(picture: Picture) -> ui.element:
    """The picture, small, from its own bytes."""
    image = ui.element("img")
    image.props["src"] = picture.url
    image.props["alt"] = picture.name
    return image


def _form(data: bytes) -> str:
    """What kind of picture it is, by its first bytes; "" for none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((form for mark, form in _FORMS.items() if data.startswith(mark)), "")
