"""One look for every figure: colours of Okabe and Ito, the paper's method always orange-red, baselines always grey."""

import functools

import plotly.graph_objects as go

OURS = "#D55E00"
BASELINE = "#8A8A8A"
#: Further colours that differ in brightness as well as in hue.
ACCENTS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: From nothing to much, readable in print, by the colour-blind and on dark ground.
SCALE = [[0, "rgba(86,180,233,0.06)"], [0.5, "#56B4E9"], [1, "#0072B2"]]


@functools.cache
def figure_template() -> go.layout.Template:
    """Transparent ground, quiet axes, a grey that can be read on white and on black."""
    text = "#7B7B7B"
    axis = dict(gridcolor="rgba(128,128,128,0.22)", linecolor="rgba(128,128,128,0.6)", zeroline=False, ticks="outside",
                tickcolor="rgba(128,128,128,0.6)", automargin=True, title=dict(standoff=8))
    return go.layout.Template(layout=dict(
        font=dict(family="system-ui, sans-serif", size=13, color=text), paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", colorway=[OURS, BASELINE, *ACCENTS], xaxis=axis, yaxis=axis,
        title=dict(x=0, xref="paper", xanchor="left", font=dict(size=15), automargin=True, yref="container",
                   pad=dict(t=12)),
        margin=dict(l=56, r=16, t=56, b=48),
        legend=dict(orientation="h", y=-0.22, x=0, xanchor="left"), hoverlabel=dict(font=dict(size=12)),
        modebar=dict(bgcolor="rgba(0,0,0,0)")))
