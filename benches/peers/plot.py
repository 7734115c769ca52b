"""Draws the comparison as an SVG for light and dark pages: one row of bars for each phase, one bar for each system."""

from xml.sax.saxutils import escape

from figures import NAMES, Results, rate

PHASES = {"produce": "Send", "consume": "Receive and acknowledge", "both": "Both at once, sent + acknowledged"}
SYSTEMS = ("bound", "dms", "redis", "nats", "rabbitmq")
WIDTH, LEFT, BAR, GAP = 900, 400, 18, 6
STYLE = """
text { font: 13px sans-serif; fill: #1f2328 } .head { font-weight: bold } .note { fill: #59636e }
.dms { fill: #1f6feb } .other { fill: #8c959f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9198a1 } .dms { fill: #4493f8 } .other { fill: #656c76 } }
"""


def svg(kept):
    results, parts, y = Results(kept), [], 0
    rates = {phase: {name: results.median(name, phase, rate) for name in SYSTEMS} for phase in PHASES}
    longest = max(most for each in rates.values() for most in each.values())
    for phase, title in PHASES.items():
        y += 24
        parts.append(f'<text class="head" x="0" y="{y}">{title}, messages a second</text>')
        y += 10
        for name in SYSTEMS:
            found = rates[phase][name]
            length = found / longest * (WIDTH - LEFT - 80)
            middle = y + BAR - 5
            kind = "dms" if name == "dms" else "other"
            parts.append(f'<text x="0" y="{middle}">{escape(NAMES[name])}</text>'
                         f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR}" rx="2"/>'
                         f'<text class="note" x="{LEFT + length + 8:.0f}" y="{middle}">{found:,.0f}</text>')
            y += BAR + GAP
    label = "Messages a second of dms-worker and other systems"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 4}" role="img" aria-label="{label}">' \
           f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
