"""The `data.probe` section: generated tasks, each of which needs one ability of a model.

    recall      do key and ask, some positions apart, carry the same number? (yes)
                s3 s0 s9 key1 s4 s4 s7 . s1 s8 s0 s2 ask1 s6 s5 . s3 s3 s1
    agreement   the same of a fact in the first quarter and a claim in the last quarter? (no)
                s3 fact0 s9 s2 s4 s4 s7 . s1 s8 s0 s2 s6 s0 s5 . s3 claim1 s1
    motif       does it hold s0 s1 s2, or s2 s1 s0? (s0 s1 s2)
                s3 s7 s0 s1 s2 s2 s9 . s1 s8 s1 s0 s0 s6 s5 . s3 s2 s0
    copy        repeat the text:     s3 s0 s9 -> s3 s0 s9
    reverse     write it backwards:  s3 s0 s9 -> s9 s0 s3
    sort        sort its symbols:    s3 s0 s9 -> s0 s3 s9

The first three are classifications with two classes, the others translations.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from minitx.config.base import Section, rule, setting

ProbeKind = Literal["recall", "motif", "agreement", "copy", "reverse", "sort"]
PROBE_TASKS: dict[ProbeKind, Literal["classification", "translation"]] = {
    "recall": "classification",
    "motif": "classification",
    "agreement": "classification",
    "copy": "translation",
    "reverse": "translation",
    "sort": "translation",
}
SENTENCE = 8
"""Classification: every eighth token is a full stop, which makes sentences for `model.attention.span`."""
MOTIF = 3
"""Adjacent tokens of a motif: the first three symbols, forwards or backwards."""


class ProbeConfig(Section):
    """Which generated task (drawn in minitx/data/sources/generated.py). No text occurs twice, in any split."""

    kind: ProbeKind = "recall"
    """recall | motif | agreement (two classes, as many texts in each: chance is 1/2); copy | reverse | sort."""
    length: int = Field(64, ge=4, le=4096)
    """Tokens of each text."""
    distance: int | None = Field(None, ge=1)
    """recall, agreement: positions from the first mark to the second; null = drawn for each text."""
    n_symbols: int = Field(16, ge=2, le=1000)
    """Symbols that texts are made of, marks apart."""
    n_facts: int = Field(2, ge=2, le=1000)
    """recall, agreement: symbols that a mark can carry."""
    n_train: int = Field(20_000, ge=2)
    n_validation: int = Field(1_000, ge=2)
    n_test: int = Field(2_000, ge=2)
    """Rows."""
    seed: int = setting(0, "seed", ge=0)
    """Of the texts; the run's `seed` does not change them. Test texts do not depend on `n_train`."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> ProbeConfig:
        if self.distance is not None:
            self._check_distance(self.distance)
        if self.kind == "motif" and self.n_symbols <= MOTIF:
            must = f"be at least {MOTIF + 1}, because data.probe.kind is motif"
            raise rule("data.probe.n_symbols", self.n_symbols, must, "other symbols must stand between motifs")
        rows, texts = self.n_train + self.n_validation + self.n_test, self.least_distinct
        if 2 * rows > texts:
            must = f"be at most {texts // 2:,} with n_validation and n_test ({rows:,}), because no text comes twice"
            remedy = f"at least {texts:,} texts can be told apart, and half are drawn at most; raise data.probe.length"
            raise rule("data.probe.n_train", self.n_train, must, remedy)
        return self

    def _check_distance(self, distance: int) -> None:
        if self.kind not in ("recall", "agreement"):
            must = f"be null, because data.probe.kind is {self.kind}"
            raise rule("data.probe.distance", distance, must, "recall and agreement have a distance")
        if not self.starts(distance):
            fitting = [d for d in range(1, self.length) if self.starts(d)]
            why = f"because data.probe.length is {self.length} and every {SENTENCE}th token a full stop"
            must = f"be {fitting[0]} to {fitting[-1]}, {why}"
            raise rule("data.probe.distance", distance, must, "change one of the two")

    @property
    def task(self) -> Literal["classification", "translation"]:
        """The task of the kind."""
        return PROBE_TASKS[self.kind]

    @property
    def stops(self) -> range:
        """Positions of full stops."""
        return range(SENTENCE - 1, self.length if self.task == "classification" else 0, SENTENCE)

    @property
    def areas(self) -> tuple[range, range]:
        """Positions where the first mark may stand, and the second: in agreement the outer quarters."""
        if self.kind == "agreement":
            return range(self.length // 4), range(self.length - self.length // 4, self.length)
        return range(self.length), range(self.length)

    def starts(self, distance: int) -> list[int]:
        """Positions of the first mark from which the second, `distance` further on, is at an allowed position too."""
        first, second = self.areas
        return [
            start
            for start in first
            if start not in self.stops and start + distance in second and start + distance not in self.stops
        ]

    @property
    def least_distinct(self) -> int:
        """A lower bound of the number of distinct texts: twice those of the smaller class."""
        n_free = self.length - len(self.stops)
        if self.task == "translation":
            return int(self.n_symbols**n_free)
        if self.kind == "motif":  # without the motif's middle symbol elsewhere there is no second motif
            return 2 * int((self.n_symbols - 1) ** (n_free - MOTIF))
        n_places = 1 if self.distance is None else len(self.starts(self.distance))
        return 2 * n_places * self.n_facts * int(self.n_symbols ** (n_free - 2))
