"""Join tokens: how they are spelled, and what the ledger says to those who use them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from grampus.cluster import join_token, tokens
from grampus.cluster.commands import encode_command
from grampus.cluster.join_token import JoinToken, secret_hash
from grampus.cluster.refusal import Refusal
from grampus.cluster.token_commands import (
    CreateToken,
    RevokeToken,
    RevokeWorker,
    TokenCommand,
    UseToken,
)
from grampus.errors import UsageError
from grampus.ledger import Ledger

ENTROPY = bytes(range(join_token.ENTROPY))
HASH = "ab" * 32
HOUR = 3_600_000


def test_a_token_is_read_back_as_it_was_spelled() -> None:
    for authority in (HASH, join_token.PLAIN):
        token = join_token.make(authority, ENTROPY)
        assert join_token.parse(token.text) == token
        assert join_token.parse(f"  {token.text}\n") == token
        assert token.text.startswith(f"grampus-join.{authority}.")
        assert token.encrypted == (authority == HASH)


def test_all_of_the_entropy_of_the_secret_counts() -> None:
    seen = set()
    for place in range(join_token.ENTROPY):
        changed = bytearray(ENTROPY)
        changed[place] ^= 0x80
        seen.add(join_token.make(HASH, bytes(changed)).text)
    assert len(seen) == join_token.ENTROPY
    with pytest.raises(ValueError, match="40 random bytes"):
        join_token.make(HASH, ENTROPY[1:])
    with pytest.raises(ValueError, match="32 random bytes"):
        join_token.new_secret(ENTROPY[:31])


@pytest.mark.parametrize("cut", ["", "grampus-join", "x", "last", "upper", "extra", "hash"])
def test_what_is_no_token_is_told_without_its_text(cut: str) -> None:
    text = join_token.make(HASH, ENTROPY).text
    wrong = {
        "x": "x" + text, "last": text[:-1], "upper": text.upper(), "extra": text + ".more",
        "hash": text.replace(HASH, HASH[:-1]),
    }.get(cut, cut)  # fmt: skip
    with pytest.raises(UsageError) as caught:
        join_token.parse(wrong)
    assert text[-20:-1] not in str(caught.value)


def test_no_secret_is_in_a_repr_or_in_the_hash() -> None:
    token = join_token.make(HASH, ENTROPY)
    assert token.secret not in repr(token)
    assert len(secret_hash(token.secret)) == 64
    assert token.secret not in secret_hash(token.secret)
    assert dataclasses.is_dataclass(token) is False


class Book:
    """A ledger, asked one command at a time."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.db = self.ledger.database

    def ask(self, command: TokenCommand) -> Any:
        index = self.ledger.applied_index + 1
        answers, facts = self.ledger.apply(index, 1, [encode_command(command)])
        assert facts == []
        return answers[0]

    def create(self, token: JoinToken, role: str = "worker", name: str = "", at: int = 0) -> Any:
        hashed = secret_hash(token.secret)
        return self.ask(CreateToken(at, token.id, hashed, role, name, at + HOUR))

    def use(
        self, token: JoinToken, name: str = "w1", key: str = "k1", role: str = "worker", at: int = 1
    ) -> Any:
        return self.ask(UseToken(at, token.id, secret_hash(token.secret), role, name, key))


@pytest.fixture
def book() -> Book:
    return Book()


def token_of(number: int) -> JoinToken:
    return join_token.make(HASH, bytes([number]) * join_token.ENTROPY)


FIRST, SECOND = token_of(1), token_of(2)


def refused(answer: Any, code: str, text: str) -> None:
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert text in answer.reason


def test_a_token_admits_one_node_and_the_same_again(book: Book) -> None:
    assert book.create(FIRST) == "created"
    assert book.use(FIRST) == "admitted"
    assert tokens.worker_key(book.db, "w1") == "k1"
    # The answer was lost: it asks again.
    assert book.use(FIRST, at=2) == "admitted"
    row = tokens.find_token(book.db, FIRST.id)
    assert row is not None
    assert (row.used, row.used_by, row.key) == (1, "w1", "k1")


def test_a_token_is_not_used_twice(book: Book) -> None:
    book.create(FIRST)
    book.use(FIRST)
    refused(book.use(FIRST, name="w2"), "used", "was used by w1")
    refused(book.use(FIRST, key="k2"), "used", "was used by w1")
    assert tokens.worker_key(book.db, "w2") is None
    assert tokens.worker_key(book.db, "w1") == "k1"


def test_two_that_use_one_token_in_one_batch_are_told_apart(book: Book) -> None:
    book.create(FIRST)
    hashed = secret_hash(FIRST.secret)
    both = [UseToken(1, FIRST.id, hashed, "worker", name, name) for name in ("w1", "w2")]
    answers, _ = book.ledger.apply(2, 1, [encode_command(command) for command in both])
    assert answers[0] == "admitted"
    refused(answers[1], "used", "was used by w1")


def test_an_expired_token_admits_nobody_not_even_again(book: Book) -> None:
    book.create(FIRST)
    refused(book.use(FIRST, at=HOUR), "expired", "has expired")
    book.use(FIRST, at=HOUR - 1)
    refused(book.use(FIRST, at=HOUR + 1), "expired", "has expired")


def test_a_wrong_secret_is_told_no_more_than_an_unknown_token(book: Book) -> None:
    book.create(FIRST)
    forged = JoinToken(HASH, FIRST.id, SECOND.secret)
    assert book.use(forged) == book.use(SECOND)
    refused(book.use(forged), "no-token", "not known here")
    assert tokens.worker_key(book.db, "w1") is None


def test_a_token_is_for_one_role_and_perhaps_for_one_name(book: Book) -> None:
    book.create(FIRST, role="worker")
    refused(book.use(FIRST, role="server"), "conflict", "is for a worker")
    book.create(SECOND, role="server", name="s2")
    refused(book.use(SECOND, role="worker"), "conflict", "is for a server")
    refused(book.use(SECOND, role="server", name="s3"), "conflict", "is for s2 only")
    assert book.use(SECOND, role="server", name="s2") == "admitted"
    # A server is known by the membership of the log, not by a key here.
    assert tokens.worker_key(book.db, "s2") is None


def test_the_name_of_another_worker_is_taken_only_with_a_token_for_that_name(book: Book) -> None:
    book.create(FIRST)
    book.use(FIRST)
    book.create(SECOND)
    refused(book.use(SECOND, key="k2"), "conflict", "has joined before with another key")
    third = token_of(3)
    book.create(third, name="w1")
    assert book.use(third, key="k2") == "admitted"
    assert tokens.worker_key(book.db, "w1") == "k2"
    # The old machine's key counts no more, and its token does not bring it back.
    refused(book.use(FIRST), "conflict", "was removed")


def test_a_worker_that_was_removed_stays_out(book: Book) -> None:
    book.create(FIRST)
    book.use(FIRST)
    assert book.ask(RevokeWorker(2, "w1")) == "revoked"
    assert tokens.worker_key(book.db, "w1") is None
    refused(book.use(FIRST), "conflict", "was removed")
    refused(book.ask(RevokeWorker(2, "w1")), "not-found", "no worker w1")


def test_a_token_that_was_removed_admits_nobody(book: Book) -> None:
    book.create(FIRST)
    assert book.ask(RevokeToken(1, FIRST.id)) == "revoked"
    refused(book.use(FIRST), "no-token", "has been removed")
    refused(book.ask(RevokeToken(1, FIRST.id)), "not-found", "no join token")


def test_a_token_is_created_once(book: Book) -> None:
    assert book.create(FIRST) == "created"
    assert book.create(FIRST) == "created"
    refused(book.create(FIRST, role="server"), "conflict", "already")
    refused(book.create(SECOND, role="admin"), "conflict", "not admin")


def test_there_are_not_too_many_tokens_and_old_ones_are_forgotten(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 3)
    for number in range(3):
        book.create(token_of(number))
    refused(book.create(token_of(9)), "too-many", "remove some")
    late = HOUR + tokens.REMEMBERED + 1
    assert book.create(token_of(9), at=late) == "created"
    assert [row.id for row in tokens.list_tokens(book.db)] == [token_of(9).id]


def test_no_secret_is_in_the_ledger(book: Book) -> None:
    book.create(FIRST)
    book.use(FIRST)
    dump = repr(list(book.db.query("SELECT * FROM join_token"))) + repr(
        list(book.db.query("SELECT * FROM worker_key"))
    )
    assert FIRST.id in dump
    assert FIRST.secret not in dump
