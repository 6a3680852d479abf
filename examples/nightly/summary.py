"""The last step of `nightly.yaml`: a text file for people."""

from pathlib import Path
from typing import Any


def main(day: str, folder: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes `summary-DAY.txt`; answers its path and the day's total in cents."""
    total = sum(row["cents"] for row in rows)
    lines = [f"{row['shop']:<12}{row['items']:>6}{row['cents'] / 100:>12.2f}" for row in rows]
    text = "\n".join([f"Sales of {day}", *lines, f"{'total':<18}{total / 100:>12.2f}", ""])
    path = Path(folder) / f"summary-{day}.txt"
    path.write_text(text, encoding="utf-8")
    print(text)
    return {"path": str(path), "cents": total}
