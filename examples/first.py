"""The smallest workflow worth running: three tasks count words, one adds them up.

    grampus run start examples/first.py --wait
    grampus run result last most_common

Without a server, in this process: `python examples/first.py`.
"""

from collections import Counter

from grampus import Retry, task, workflow

TEXTS = {
    "sea": "the whale and the seal and the sea",
    "land": "the hare and the hedgehog",
    "air": "a gull over the sea",
}


@task(retry=Retry(2, delay="5s"), timeout="1m")
def count(text: str) -> dict[str, int]:
    words = Counter(text.split())
    print(f"{sum(words.values())} words")
    return dict(words)


@task
def most_common(parts: list[dict[str, int]]) -> str:
    total = sum((Counter(part) for part in parts), Counter())
    word, times = total.most_common(1)[0]
    return f"{word!r}, {times} times"


@workflow
def first() -> None:
    most_common([count(text) for text in TEXTS.values()])


if __name__ == "__main__":
    print(first.local().outputs["most_common"])
