"""The live face: the explorer in JupyterLab, and over a bare comm."""

import os
import re
import subprocess
import sys
import textwrap
import time

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.timeout(300)

EXPLORE = textwrap.dedent("""
    import plotly.graph_objects as go
    from papernets.chapter import Chapter, Slider

    def draw(n):
        return go.Figure(go.Scatter(x=[0, 1, 2], y=[0, n, 2 * n]), layout=dict(title=f"n is {n}", xaxis_title="x"))

    explorer = Chapter("dcff").explore(draw, alt="A line", n=Slider(1, 9, value=3, label="steepness"))
    explorer
""").strip()


@pytest.mark.xdist_group("kernels")
def test_a_slider_set_over_the_comm_changes_the_figure():
    """What a frontend does: it sends the slider's new state, and hears the figure's."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        models, shown = {}, []

        def hear(message):
            content = message["content"]
            if message["msg_type"] == "comm_open":
                models[content["comm_id"]] = content["data"]["state"]
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.append(content["data"])

        client.execute_interactive(EXPLORE, output_hook=hear, timeout=120)
        assert "application/vnd.jupyter.widget-view+json" in shown[0]
        slider = next(id for id, state in models.items() if state.get("_model_name") == "IntSliderModel")
        assert models[slider]["value"] == 3 and models[slider]["description"] == "steepness"
        figures = [id for id, state in models.items() if "_widget_data" in state or "_data" in state]
        assert len(figures) == 1
        message = client.session.msg("comm_msg", {"comm_id": slider, "data": {"method": "update", "state": {"value": 7}}})
        client.shell_channel.send(message)
        said, end = [], time.monotonic() + 30
        while time.monotonic() < end and not any("14" in text for text in said):
            heard = client.get_iopub_msg(timeout=30)
            if heard["msg_type"] == "comm_msg" and heard["content"]["comm_id"] == figures[0]:
                said.append(str(heard["content"]["data"]))
        assert any(re.search(r"\[?0, 7, 14\]?|n is 7", text) for text in said), said
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.browser
@pytest.mark.xdist_group("site")
def test_a_slider_moved_in_jupyterlab_changes_the_figure(tmp_path, chromium):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(EXPLORE)], metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    nbformat.write(notebook, tmp_path / "live.ipynb")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--ip=127.0.0.1", "--allow-root",
               "--IdentityProvider.token=", "--LabApp.news_url=None", f"--notebook-dir={tmp_path}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    try:
        for line in server.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        page, foreign = context.new_page(), []
        page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(
            (found[0], "data:", "blob:", "ws:")) else None)
        page.goto(f"{found[0]}/lab/tree/live.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
        page.click(".jp-CodeCell .cm-content")
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".jp-OutputArea .js-plotly-plot .main-svg", timeout=90_000)
        says = "text => [...document.querySelectorAll('.jp-OutputArea .main-svg')].some(s => s.textContent.includes(text))"
        page.wait_for_function(says, arg="n is 3", timeout=20_000)
        page.locator(".jp-OutputArea .noUi-handle").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(says, arg="n is 4", timeout=20_000)
        assert foreign == []
        context.close()
    finally:
        server.terminate()
        server.wait(20)
