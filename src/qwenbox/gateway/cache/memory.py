"""This is where one process has kept answers at hand, the last used ones, within a bound of bytes."""

from collections import OrderedDict

from qwenbox.gateway.cache.base import Item


class Memory:
    """By key; who was not asked for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._bytes = 0

    @property
    def used_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._items)

    def find(self, key: str) -> Item | None:
        item = self._items.get(key)
        if item is not None:
            self._items.move_to_end(key)
        return item

    def keep(self, item: Item) -> None:
        self.drop(item.key)
        if item.size_bytes > self._max_bytes:
            return
        self._items[item.key] = item
        self._bytes += item.size_bytes
        while self._bytes > self._max_bytes:
            _, oldest = self._items.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def drop(self, key: str) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._bytes -= item.size_bytes

    def clear(self) -> None:
        self._items.clear()
        self._bytes = 0
