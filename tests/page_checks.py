"""What must be true of every built page, as a reader's browser sees it. Used by the page tests and by their guards."""

from pathlib import Path

CHAPTER_BYTES = 600_000

#: Runs in the page: what is wrong with the figures, the formulas, the text and the width.
_LOOK = """() => {
  const found = [];
  for (const figure of document.querySelectorAll(".pn-figure")) {
    const svg = figure.querySelector(".main-svg");
    const marks = figure.querySelectorAll(".trace path, .trace .point, .points path, .points .point, .hm image, .js-line");
    const drawn = [...marks].some((mark) => { const box = mark.getBoundingClientRect(); return box.width + box.height > 0; });
    // a scene in three dimensions is a canvas: it has objects, and names at its axes
    const layout = figure.querySelector(".pn-plot")._fullLayout, scene = layout?.scene;
    const solid = scene?._scene;
    const objects = solid?.glplot && !solid.glplot.gl.isContextLost() && solid.glplot.objects.length
      && Object.values(solid.traces).some((trace) => trace.data.x?.length);
    if (!svg || !(drawn || objects)) found.push(`figure ${figure.id} is blank`);
    if (scene && !objects) found.push(`the scene of figure ${figure.id} is blank`);
    for (const axis of scene ? ["xaxis", "yaxis", "zaxis"] : [])
      if (!scene[axis].title?.text || /^(Click|x$|y$|z$)/.test(scene[axis].title.text))
        found.push(`the scene of figure ${figure.id} has no ${axis[0]}title`);
    for (const axis of layout?._has?.("cartesian") || !scene ? ["xtitle", "ytitle"] : [])
      if (svg && !figure.querySelector(`.${axis}`)) found.push(`figure ${figure.id} has no ${axis}`);
    if (svg && !figure.querySelector(".pn-figure-title")?.textContent) found.push(`figure ${figure.id} has no title`);
    if (!figure.getAttribute("aria-label")) found.push(`figure ${figure.id} has no description`);
  }
  for (const formula of document.querySelectorAll(".math"))
    if (!formula.querySelector("mjx-container")) found.push(`formula not typeset: ${formula.textContent.slice(0, 40)}`);
  if (document.querySelector("mjx-merror")) found.push("a formula has an error");
  const text = document.querySelector("article")?.innerText ?? document.body.innerText;
  for (const word of ["Traceback", "papernets:", "{dropdown}", "|---"])
    if (text.includes(word)) found.push(`the text holds ${word}`);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 1) found.push(`the page is ${wide} px wider than the screen`);
  const shine = (color) => {
    const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor, parts = color.match(/[\\d.]+/g);
      if (parts.length === 3 || Number(parts[3]) > 0.5) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (color, node) => {
    const [a, b] = [shine(color), shine(ground(node))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const words = [...document.querySelectorAll("article p, article td, .pn-badge, .pn-note, .pn-figure text")]
    .filter((node) => node.textContent.trim() && node.getClientRects().length);
  for (const node of words) {
    const style = getComputedStyle(node);
    const color = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const ratio = contrast(color, node);
    if (ratio < 4.45) {
      found.push(`contrast ${ratio.toFixed(1)} of ${color}: ${node.textContent.trim().slice(0, 30)}`);
      break;
    }
  }
  return found;
}"""


def visit(context, page: Path, settle: float = 15) -> tuple[object, list[str]]:
    """Open a page of the built site and return it with all that is wrong. The caller closes it."""
    problems: list[str] = []
    tab = context.new_page()
    tab.on("request", lambda request: problems.append(f"calls another host: {request.url}")
           if not request.url.startswith(("file:", "data:", "blob:")) else None)
    tab.on("requestfailed", lambda request: problems.append(f"not found: {request.url}")
           if request.url.startswith("file:") else None)
    tab.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    tab.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
    tab.goto(page.as_uri())
    if tab.query_selector(".pn-figure"):
        try:
            tab.wait_for_function("() => [...document.querySelectorAll('.pn-figure')].every(f => f.dataset.drawn)",
                                  timeout=1000 * settle)
        except Exception:
            problems.append("a figure was not drawn in time")
    if tab.query_selector(".math"):
        try:
            tab.wait_for_function("() => [...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))",
                                  timeout=1000 * settle)
        except Exception:
            problems.append("a formula was not typeset in time")
    problems += tab.evaluate(_LOOK)
    return tab, problems


def size_problems(page: Path) -> list[str]:
    size = page.stat().st_size
    return [f"{page.name} has {size} bytes, at most {CHAPTER_BYTES}"] if size > CHAPTER_BYTES else []
