"""Draw docs/assets/shm_protocol.svg: what a rank does at each step of a large all_reduce.

python tools/bench/_protocol_picture.py
"""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "docs" / "assets" / "shm_protocol.svg"
STAGES = {"put": "#5e35b1", "reduce": "#b93a00", "take": "#22692a"}
GROUND, INK, PALE = "#eef0f4", "#374151", "#9aa1ad"
PIECES, LAG, STEP, ROW, LEFT = 5, 2, 92, 38, 70


def turns() -> list[list[tuple[str, int]]]:
    """Return what is done in each turn, as csrc/pipeline.c does it: stage and piece."""
    made = []
    for turn in range(PIECES + LAG):
        done = []
        if 1 <= turn <= PIECES:
            done.append(("reduce", turn - 1))
        if turn < PIECES:
            done.append(("put", turn))
        if turn >= LAG:
            done.append(("take", turn - LAG))
        made.append(done)
    return made


def draw() -> str:
    """Return the picture: a column for each turn, a row for each stage, slots by number."""
    rows = {stage: 40 + place * ROW for place, stage in enumerate(("put", "reduce", "take"))}
    width, height = LEFT + STEP * (PIECES + LAG) + 20, 40 + 3 * ROW + 44
    parts = [f'<text x="8" y="{y + 22}" fill="{STAGES[stage]}">{stage}</text>' for stage, y in rows.items()]
    for turn, done in enumerate(turns()):
        x = LEFT + turn * STEP
        for stage, piece in done:
            y = rows[stage]
            parts.append(
                f'<rect x="{x + 4}" y="{y}" width="{STEP - 14}" height="{ROW - 8}" rx="4" fill="{STAGES[stage]}"/>'
                f'<text x="{x + 4 + (STEP - 14) / 2}" y="{y + 20}" text-anchor="middle" fill="#fff">piece {piece}, '
                f"slot {piece % 4}</text>"
            )
        if turn > 0:
            parts.append(f'<line x1="{x - 3}" x2="{x - 3}" y1="28" y2="{height - 40}" stroke="{PALE}"/>')
            parts.append(f'<text x="{x - 3}" y="20" text-anchor="middle">wait {turn - 1}</text>')
        if turn + 1 < PIECES + LAG:
            parts.append(f'<text x="{x + STEP / 2}" y="{height - 22}" text-anchor="middle">publish {turn}</text>')
    parts.append(f'<text x="8" y="{height - 4}">In a turn: wait, reduce, put, publish, take.</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="10" '
        f'font-family="sans-serif" fill="{INK}"><title>A large all_reduce</title>'
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    TARGET.write_text(draw())
