// Runs in a page and tells what a reader would stumble over: {what, where}[].
() => {
  const found = [];
  const tell = (what, element) => {
    const text = (element.innerText || element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 60);
    const name = element.tagName.toLowerCase() + (element.className && element.className.baseVal === undefined ? "." + String(element.className).trim().split(/\s+/).slice(0, 3).join(".") : "");
    found.push(`${what}: <${name}> “${text}”`);
  };
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth + 1) {
    found.push(`the page scrolls sideways: ${page.scrollWidth} px on ${innerWidth}`);
    for (const element of document.querySelectorAll("body *"))
      if (element.getBoundingClientRect().right > innerWidth + 1 && ![...element.children].some((child) => child.getBoundingClientRect().right > innerWidth + 1)) tell("too wide", element);
  }
  const style = (element) => getComputedStyle(element);
  const isShown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const isForEars = (element) => { const box = element.getBoundingClientRect(); return box.width <= 1 && box.height <= 1; };
  const explained = (element) => element.closest("[title], [aria-label]") !== null;

  // Text that an ancestor cuts off, or that leaves the window.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || !parent || ["SCRIPT", "STYLE", "NOSCRIPT", "TEXTAREA", "OPTION"].includes(parent.tagName)) continue;
    if (parent.closest(".q-icon, svg, [aria-hidden=true]") || !isShown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    let isInScroller = false;
    for (let element = parent; element && element !== document.body; element = element.parentElement) {
      const { overflowX, overflowY, textOverflow, position } = style(element);
      if (["auto", "scroll"].includes(overflowX) || ["auto", "scroll"].includes(overflowY)) { isInScroller = true; break; }
      if (position === "fixed") break;
      if (overflowX === "visible" && overflowY === "visible") continue;
      if (isForEars(element)) { isInScroller = true; break; }
      const frame = element.getBoundingClientRect();
      const isCut = (overflowX !== "visible" && (box.right > frame.right + 1.5 || box.left < frame.left - 1.5)) || (overflowY !== "visible" && (box.bottom > frame.bottom + 3 || box.top < frame.top - 3));
      if (isCut && !(textOverflow === "ellipsis" && explained(parent))) { tell(textOverflow === "ellipsis" ? "text ends in … and nothing tells the rest" : "text is cut off", parent); }
      if (isCut) break;
    }
    if (!isInScroller && box.left < innerWidth && box.right > innerWidth + 1.5) tell("text leaves the window", parent);
    if (!isInScroller && box.right > 0 && box.left < -1.5) tell("text leaves the window", parent);
  }
  for (const input of document.querySelectorAll("input:not([type=hidden], [type=file]), select")) {
    if (isShown(input) && input.value && input.scrollWidth > input.clientWidth + 2 && style(input).textOverflow !== "ellipsis" && input.clientWidth < 60) tell("a field too narrow for its value", input);
  }

  // Plots: something is drawn, and no two texts of it lie on each other or leave it.
  for (const element of document.querySelectorAll("[id^=c]")) {
    const component = window.getElement && /^c\d+$/.test(element.id) ? window.getElement(Number(element.id.slice(1))) : null;
    const chart = component && component.chart && component.chart.getZr ? component.chart : null;
    if (!chart || !isShown(element)) continue;
    const frame = { width: chart.getWidth(), height: chart.getHeight() };
    if (frame.width < 50 || frame.height < 20) { tell(`a plot of ${frame.width} × ${frame.height} px`, element); continue; }
    const shapes = chart.getZr().storage.getDisplayList(true).filter((shape) => !shape.ignore && !shape.invisible);
    if (shapes.length < 2) tell("an empty plot", element);
    const texts = shapes.filter((shape) => shape.style && typeof shape.style.text === "string" && shape.style.text.trim() && (shape.style.opacity ?? 1) > 0);
    const boxes = texts.map((shape) => { const box = shape.getBoundingRect().clone(); if (shape.transform) box.applyTransform(shape.transform); return { text: shape.style.text, box }; });
    boxes.forEach(({ text, box }, number) => {
      if (box.x < -2 || box.y < -2 || box.x + box.width > frame.width + 2 || box.y + box.height > frame.height + 2) tell(`a plot's “${text}” leaves it`, element);
      for (const other of boxes.slice(number + 1)) {
        const wide = Math.min(box.x + box.width, other.box.x + other.box.width) - Math.max(box.x, other.box.x);
        const high = Math.min(box.y + box.height, other.box.y + other.box.height) - Math.max(box.y, other.box.y);
        if (wide > 1 && high > 2) tell(`a plot's “${text}” lies on “${other.text}”`, element);
      }
    });
  }
  return [...new Set(found)];
}
