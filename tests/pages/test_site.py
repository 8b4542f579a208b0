"""The built site in a real browser with the network off."""

import os
import re
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from page_checks import size_problems, visit

from papernets.cards import cards, comparisons
from papernets.tools import paths

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("site"), pytest.mark.timeout(600)]

TOC = yaml.safe_load((paths.root() / "book" / "_toc.yml").read_text(encoding="utf-8"))


def files(entries):
    for entry in entries:
        yield entry["file"]
        yield from files(entry.get("sections", ()))


PAGES = [TOC["root"], *(file for part in TOC["parts"] for file in files(part["chapters"]))]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]


def spread(pages):
    """Every other page in a group of its own, for another process: a browser mostly waits."""
    return [pytest.param(page, marks=pytest.mark.xdist_group("site-2")) if at % 2 else page for at, page in enumerate(pages)]


#: Every size and every theme; with both of each for the book that is published.
SCREENS = ("desktop-light", "phone-dark", *(("desktop-dark", "phone-light") if os.environ.get("PAPERNETS_SITE") else ()))


@pytest.mark.parametrize("page", spread(PAGES))
def test_page(site, screen, page):
    """Every page, large and small, light and dark; a chapter has what it must have, and its explorer works by keyboard."""
    path = site / f"{page}.html"
    assert path.is_file(), f"{page} stands in the table of contents and was not built"
    if page in CHAPTERS:
        check_chapter(path)
    for name in SCREENS:
        tab, problems = visit(screen(name), path)
        theme = tab.evaluate("document.documentElement.dataset.theme")
        assert problems == [], name
        assert theme == name.split("-")[1]
        if page in CHAPTERS and name == "desktop-light":
            assert tab.locator("#the-claims").count() == 1
        if page in CHAPTERS and name in SCREENS[:2]:
            check_controls(tab)
        tab.close()


def check_chapter(path):
    assert size_problems(path) == []
    text = path.read_text(encoding="utf-8")
    assert text.count('class="pn-figure"') >= 3
    assert 'class="pn-card"' in text and 'class="pn-table"' in text
    assert "injected-parameters" not in text and "profile = " not in text


def check_controls(tab):
    """Each control, moved by keyboard, changes the figure and says so; moved back, it gives the first figure."""
    figure = tab.locator(".pn-figure:has([data-control])").first
    sliders = figure.locator('input[type="range"]').count() > 0
    inputs, there, back = (figure.locator('input[type="range"]'), "ArrowRight", "ArrowLeft") if sliders else (
        figure.locator("select"), "ArrowDown", "ArrowUp")
    assert inputs.count() >= 1
    data, says = "plot => JSON.stringify([plot.data, plot.layout.xaxis])", "c => c.getAttribute('aria-valuetext') || c.value"
    plot = figure.locator(".pn-plot")
    for index in range(inputs.count()):
        control = inputs.nth(index)
        before, said = plot.evaluate(data), control.evaluate(says)
        control.focus()
        tab.keyboard.press(there)
        assert plot.evaluate(data) != before, "the figure did not change"
        assert control.evaluate(says) != said
        tab.keyboard.press(back)
        assert plot.evaluate(data) == before, "going back does not give the first figure"


def test_changing_the_theme_redraws_the_figures(site, screen):
    tab, _ = visit(screen("desktop-light"), site / f"{CHAPTERS[0]}.html")
    color = "getComputedStyle(document.querySelector('.pn-figure .xtitle')).fill"
    light = tab.evaluate(color)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.wait_for_function(f"{color} !== '{light}'", timeout=5000)
    tab.close()


def test_the_map_has_every_paper_and_leads_to_its_chapter(site, screen):
    tab, _ = visit(screen("desktop-light"), site / "book" / "index.html")
    assert tab.locator(".pn-tile").count() == len(cards())
    papers = [page for page in CHAPTERS if page.removeprefix("notebooks/") in {card.chapter for card in cards()}]
    assert tab.locator("a.pn-tile").count() == len(papers) > 0
    assert tab.locator("a.pn-tile svg").count() == len(papers)
    tab.locator("a.pn-tile").first.click()
    tab.wait_for_selector(".pn-card")
    tab.close()


def test_the_results_can_be_filtered_and_sorted(site, screen):
    tab, _ = visit(screen("desktop-light"), site / "book" / "results.html")
    total = sum(len(card.claims) for card in (*cards(), *comparisons()))
    rows = tab.locator(".pn-results tbody tr")
    assert rows.count() == total
    tab.select_option('[data-filter="verdict"]', "")
    assert tab.locator(".pn-results output").inner_text() == f"{total} of {total} claims"
    tab.select_option('[data-filter="kind"]', "exact")
    exact = sum(claim.kind == "exact" for card in (*cards(), *comparisons()) for claim in card.claims)
    assert tab.locator(".pn-results tbody tr:not([hidden])").count() == exact
    tab.fill('[data-filter="text"]', "dcff vgg")
    left = tab.locator(".pn-results tbody tr:not([hidden])")
    assert 0 < left.count() < exact
    assert all("VGG" in text for text in left.all_inner_texts())
    tab.click("thead button >> text=printed")
    up = [float(v) for v in left.locator("td:nth-child(3)").evaluate_all("cells => cells.map(c => c.dataset.sort)")]
    assert up == sorted(up) and len(set(up)) > 1
    tab.close()


def test_every_link_inside_the_site_leads_somewhere(site):
    missing = []
    for page in site.rglob("*.html"):
        if page.is_relative_to(site / "_static"):  # templates of the theme, not pages
            continue
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            parts = urlsplit(link)
            if parts.scheme or link.startswith(("#", "//")) or not parts.path:
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            if not target.exists():
                missing.append(f"{page.relative_to(site)}: {link}")
    assert missing == []


def test_no_script_or_style_comes_from_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"', text), page
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preload|icon)"[^>]+href="(?:https?:)?//', text), page
